"""Bytes of files that lie anywhere: a range at a time, read ahead, tried again, and kept in a local
cache."""
