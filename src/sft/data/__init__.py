"""From files to batches: sources, formats, splits, chat templates, tokens, packing."""
