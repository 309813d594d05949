"""Video action recognition with 3D Octave Convolutions (Chen et al., "Drop an Octave", ICCV 2019)."""

__version__ = "0.1.0"
