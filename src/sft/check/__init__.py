"""`sft check`: what a run would train on, and what is wrong with it, before a single step."""
