"""What a network sees of a video: clips to train on, views to evaluate on."""
