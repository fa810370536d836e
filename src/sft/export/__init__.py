"""The finished model: plain transformers weights, adapter, model card."""
