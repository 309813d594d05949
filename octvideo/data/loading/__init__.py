"""Samples and batches, read ahead by processes that may hang or crash without harm."""
