"""Judgements over records: pure functions, no model, no files."""
