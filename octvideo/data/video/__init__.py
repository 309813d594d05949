"""Video files and folders of frames: what their packets say, their frames, and writing them."""
