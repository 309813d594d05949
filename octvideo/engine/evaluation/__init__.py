"""Evaluation: scores of every video or image, the journal of what is done, metrics and result
files."""
