"""What sft prints."""
