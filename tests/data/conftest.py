"""Puts coded_videos.py, the clips that these tests write, on the import path of every folder below."""
