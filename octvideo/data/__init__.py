"""Lists, decoding, sampling and batches of clips, videos and images."""
