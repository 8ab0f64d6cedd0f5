"""What a run calls now and then to measure something of its model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from gpt3.model import GPT3ForCausalLM


class Evaluator(Protocol):
    """Something measured now and then while training, such as few-shot accuracy (gpt3.evaluation.probe)."""

    every: int
    """Steps between two measurements."""

    def __call__(self, model: GPT3ForCausalLM, step: int) -> Mapping[str, float]:
        """Numbers by name; they are logged as ``eval/NAME``. Called on every rank."""
