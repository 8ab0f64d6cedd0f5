"""What an evaluation is made of: an `Item` is one question with its answers, a `Task` a set of them and how it is scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["choice", "greedy", "word", "text"]
"""How a task is scored.

choice   the likeliest of several completions; accuracy
greedy   greedy decoding up to the end of the line equals the answer; accuracy (the paper's synthetic tasks)
word     every token of the answer is the likeliest in its place; accuracy, and perplexity of the answer (LAMBADA)
text     beam search up to the end of the line, compared with all accepted answers; exact match and F1
"""
Normalization = Literal["token", "sum", "unconditional"]
"""What the log-probability of a completion is divided by or set against (section 2.4).

token          its number of tokens, the paper's default
sum            nothing
unconditional  P(completion | context) / P(completion | answer context): ARC, OpenBookQA, RACE
"""


@dataclass(frozen=True)
class Item:
    """One example of a task.

    A completion begins with the space that parts it from its context.
    """

    context: str
    """What stands before the answer. Of a partial scoring: before the right answer, for demonstrations."""
    completions: tuple[str, ...]
    """choice: the options. Else: the accepted answers, the first of which is shown in demonstrations."""
    gold: int = 0
    """The right option."""
    contexts: tuple[str, ...] = ()
    """Partial scoring (Winograd, Winogrande): one context for each option; the completions are all the same."""
    id: str = ""
    """Where it comes from, for the list of examples."""

    @property
    def demonstration(self) -> str:
        """The item solved."""
        return self.context + self.completions[self.gold]


@dataclass(frozen=True)
class Source:
    """Where a task's items come from."""

    data_dir: str | None = None
    """Folder of files."""
    format: str = "paper"
    """paper or released, for generated tasks."""
    seed: int = 0
    """Of generated tasks."""


@dataclass(frozen=True)
class Split:
    """A task's items."""

    test: Sequence[Item]
    """What is scored."""
    shots: Sequence[Item] | None = None
    """What demonstrations are drawn from; None: the test items themselves, but for the one asked."""
    zero_shot: Sequence[Item] | None = None
    """The test items as they are asked without demonstrations, where that differs (LAMBADA)."""
    instruction: str = ""
    """Before everything, its line ends included."""


@dataclass(frozen=True)
class Task:
    """A set of questions and how answers to them are scored."""

    name: str
    """As --tasks has it."""
    summary: str
    """What is asked, in a few words."""
    kind: Kind
    """How it is scored."""
    split: Callable[[Source], Split]
    """Its items; reads files or generates them."""
    shots: int
    """The paper's K."""
    separator: str = "\n\n"
    """Between demonstrations, and before the question."""
    normalization: Normalization = "token"
    """Of choices."""
    answer_context: str = ""
    """Of the unconditional normalisation: what the completion follows there."""
    chance: float = 0.0
    """Accuracy of guessing, 0 to 1."""
    paper: str | None = None
    """Its name in Table H.1."""
    max_new_tokens: int = 16
    """Tokens an answer may have, for greedy and text."""
    metrics: tuple[str, ...] = ("acc",)
    """Figures of its kind, the first being the paper's."""
