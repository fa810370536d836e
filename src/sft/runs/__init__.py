"""The run folder: its layout, its records, and everything that reads it."""
