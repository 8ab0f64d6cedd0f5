"""Pretraining: from data to a run folder with its curves, checkpoints and final model folder."""
