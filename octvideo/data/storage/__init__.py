"""Byte ranges of files anywhere: read ahead, retried, and kept in a local cache."""
