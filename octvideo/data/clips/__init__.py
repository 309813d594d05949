"""Clips for training and views for evaluation, cut from videos."""
