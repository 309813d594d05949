"""Work on a dataset before training: lists, checks, resized copies, demo clips."""
