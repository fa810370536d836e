"""`sft watch`: a separate, read-only process that serves run folders as a live page."""
