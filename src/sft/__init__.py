"""Supervised fine-tuning that is right by construction, watched, and fast."""
