"""Pre-trained models: loading, attention over flat batches, LoRA, FLOPs."""
