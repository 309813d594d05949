"""Octave convolutions on a GPU in one pass over memory; imported only where Triton is used."""
