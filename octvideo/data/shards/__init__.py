"""Sets of shards: tar files of videos in WebDataset's layout, and an index of each."""
