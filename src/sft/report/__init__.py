"""What a run folder tells: its state, series and facts, and the report made of them."""
