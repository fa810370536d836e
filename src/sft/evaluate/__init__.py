"""Before and after: what the base model and the tuned model do on the same rows."""
