"""Naming what happens in many videos: batches, rows that outlive a kill, windows, events."""
