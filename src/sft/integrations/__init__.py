"""The guards in other people's training loops: what measures, records and judges, without ours."""
