"""Pretraining: from a shard folder to a run folder with its curves, checkpoints and final model folder."""

from gpt3.training.options import TrainOptions
from gpt3.training.run import RunResult, train

__all__ = ["RunResult", "TrainOptions", "train"]
