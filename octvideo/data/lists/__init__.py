"""Lists of videos, and the names of their classes."""
