"""What can be told from the data before training, and what can be done about it there."""
