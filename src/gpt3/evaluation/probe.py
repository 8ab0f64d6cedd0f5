"""Tasks evaluated while a model trains: `gpt3 train --probe arithmetic,wiki-topic`, logged as eval/NAME."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gpt3.errors import InputError, RunError
from gpt3.evaluation.items import Source, Task
from gpt3.evaluation.protocol import Questions, fitting_shots, with_room
from gpt3.evaluation.results import mean
from gpt3.evaluation.scores import score
from gpt3.evaluation.tasks import GROUPS, select
from gpt3.inference.language_model import LanguageModel

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from gpt3.model import GPT3ForCausalLM

EXAMPLES = 50
"""Questions of a task; those of a group are shared among its tasks, at least 5 each."""
SHOTS = 1


class Probe:
    """An Evaluator of the training loop: accuracy of each name, one-shot if that fits, else zero-shot.

    Args:
        names: generated tasks, and groups of them.
        tokenizer: of the model.
        every: steps between two measurements.

    Raises:
        InputError: an unknown task, or one that is not generated.
    """

    def __init__(self, names: Sequence[str], tokenizer: PreTrainedTokenizerFast, every: int) -> None:
        self.every, self.tokenizer = every, tokenizer
        check_names(names)
        self.parts = {name: select([name]) for name in names}
        self._asked: dict[str, tuple[Task, Questions]] = {}

    def __call__(self, model: GPT3ForCausalLM, step: int) -> Mapping[str, float]:
        """Accuracies by name, 0 to 1; none if the weights give NaN. The random state is untouched."""
        was_training = model.training
        model.eval()
        try:
            language_model = LanguageModel(model, self.tokenizer)
            return {f"{name}/acc": self._accuracy(language_model, name) for name in self.parts}
        except RunError:  # the loop stops for that, with its own message
            return {}
        finally:
            model.train(was_training)

    def _accuracy(self, model: LanguageModel, name: str) -> float:
        tasks = self.parts[name]
        right = []
        for task in tasks:
            if task.name not in self._asked:
                limit = max(5, EXAMPLES // len(tasks))
                split = task.split(Source())
                roomy = with_room(model, task, split)
                asked = Questions(task, split, SHOTS, 0, limit)
                if fitting_shots(model, roomy, asked) < SHOTS:
                    asked = Questions(task, split, 0, 0, limit)
                self._asked[task.name] = roomy, asked
            right += [result.metrics["acc"] for result in score(model, *self._asked[task.name])]
        return mean(right).value


def check_names(names: Sequence[str]) -> None:
    """Refuse tasks that cannot be evaluated in training.

    Raises:
        InputError: unknown tasks, or tasks that need files.
    """
    files = [task.name for task in select(names) if task.name not in GROUPS["generated"]]
    if files:
        raise InputError(
            f"--probe {files[0]} needs files. Use arithmetic, scrambling, wiki-topic or one of their tasks."
        )
