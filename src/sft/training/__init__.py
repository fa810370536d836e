"""One training run, from its parts to its model."""
