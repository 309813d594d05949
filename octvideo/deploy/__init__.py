"""Fused inference and export."""
