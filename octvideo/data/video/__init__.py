"""Video files and folders of frames: examining packets, reading frames, and writing videos."""
