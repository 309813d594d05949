"""Naming what happens in many videos: batches across them, rows that outlive a kill, windows over
time, events."""
