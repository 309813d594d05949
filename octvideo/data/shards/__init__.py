"""Sets of shards: tar files of videos in WebDataset's layout, each with an index."""
