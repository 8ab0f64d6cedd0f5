"""The evaluation of a model in training: `gpt3 train --probe arithmetic,wiki-topic`, logged as eval/NAME."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gpt3.errors import InputError, RunError
from gpt3.evaluation import Source, Task
from gpt3.evaluation.protocol import Questions, fitting_shots, score, with_room
from gpt3.evaluation.results import mean
from gpt3.evaluation.tasks import GROUPS, select
from gpt3.inference.language_model import LanguageModel

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from gpt3.model import GPT3ForCausalLM

PROBED, PROBED_SHOTS = 50, 1
"""Questions of a task (those of a group are shared among its tasks, at least 5 each), and few-shot examples."""


class Probe:
    """An Evaluator of the training loop: accuracy of each name, one-shot if that fits, else zero-shot.

    Args:
        names: generated tasks, and groups of them (`check_probes`).
        tokenizer: of the model.
        every: steps between two measurements.
    """

    def __init__(self, names: Sequence[str], tokenizer: PreTrainedTokenizerFast, every: int) -> None:
        self.every, self.tokenizer = every, tokenizer
        self.parts = {name: select([name]) for name in names}
        self._asked: dict[str, Questions] = {}

    def __call__(self, model: GPT3ForCausalLM, step: int) -> Mapping[str, float]:
        """Accuracies by name, 0 to 1; none if the weights give NaN. The random state is untouched."""
        try:
            language_model = LanguageModel(model, self.tokenizer)
            return {f"{name}/acc": self._accuracy(language_model, tasks) for name, tasks in self.parts.items()}
        except RunError:  # the loop stops for that, with its own message
            return {}

    def _accuracy(self, model: LanguageModel, tasks: Sequence[Task]) -> float:
        right = []
        for task in tasks:
            if task.name not in self._asked:
                split, limit = task.split(Source()), max(5, PROBED // len(tasks))
                shots = min(PROBED_SHOTS, task.shots)
                asked = Questions(with_room(model, task, split), split, shots, 0, limit)
                fits = fitting_shots(model, asked) >= shots
                self._asked[task.name] = asked if fits else dataclasses.replace(asked, shots=0)
            asked = self._asked[task.name]
            right += [result.metrics["acc"] for result in score(model, asked.task, asked)]
        return mean(right).value


def check_probes(names: Sequence[str]) -> None:
    """Refuse tasks that cannot be evaluated in training.

    Raises:
        InputError: unknown tasks, or tasks that need files.
    """
    files = [task.name for task in select(names, "--probe") if task.name not in GROUPS["generated"]]
    if files:
        raise InputError(
            f"--probe {files[0]} needs files. Use arithmetic, scrambling, grammar, wiki-topic or one of their tasks."
        )
