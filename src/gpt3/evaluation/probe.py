"""Tasks asked now and then while a model trains: `gpt3 train --probe arithmetic,wiki-topic`, logged as eval/NAME."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gpt3.errors import InputError, RunError
from gpt3.evaluation.items import Source, Task
from gpt3.evaluation.protocol import Question, fitting_shots, questions, with_room
from gpt3.evaluation.results import mean
from gpt3.evaluation.scores import score
from gpt3.evaluation.tasks import GROUPS, select
from gpt3.inference.language_model import LanguageModel

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from gpt3.model import GPT3ForCausalLM

EXAMPLES = 50
"""Questions of a task; of a group, shared out among its tasks, at least 5 of each."""
SHOTS = 1


class Probe:
    """An Evaluator of the training loop: accuracy of each name, one-shot where that fits, else zero-shot.

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
        self._asked: dict[str, tuple[Task, list[Question]]] = {}

    def __call__(self, model: GPT3ForCausalLM, step: int) -> Mapping[str, float]:
        """Accuracies by name, 0 to 1; none for weights that give no numbers. No random state is touched."""
        was_training = model.training
        model.eval()
        try:
            language_model = LanguageModel(model, self.tokenizer)
            return {f"{name}/acc": self._accuracy(language_model, name) for name in self.parts}
        except RunError:  # the loop stops for that, in its own words
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
                asked = questions(task, split, SHOTS, 0, limit)
                if fitting_shots(model, roomy, asked) < SHOTS:
                    asked = questions(task, split, 0, 0, limit)
                self._asked[task.name] = roomy, asked
            right += [result.metrics["acc"] for result in score(model, *self._asked[task.name])]
        return mean(right).value


def check_names(names: Sequence[str]) -> None:
    """Refuse what cannot be asked while training.

    Raises:
        InputError: unknown tasks, or tasks that need files.
    """
    generated = set(GROUPS["generated"])
    files = [task.name for task in select(names) if task.name not in generated]
    if files:
        raise InputError(
            f"--probe {files[0]} needs files; probes are generated tasks: arithmetic, scrambling, wiki-topic or one of theirs"
        )
