"""Locally banded attention in blocks."""
