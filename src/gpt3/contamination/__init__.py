"""Benchmark examples that appear in a model's training text (Brown et al. 2020, Appendix C)."""
