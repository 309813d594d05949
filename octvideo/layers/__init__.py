"""Building blocks: octave convolutions and what stands beside them. Depends on torch only."""
