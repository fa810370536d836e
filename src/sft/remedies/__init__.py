"""What can be done about a pitfall that a guard has found."""
