"""What an evaluation is made of: an `Item` is one question with its answers, a `Task` a set of them and how it is scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["choice", "greedy", "word", "text"]
"""How a task is scored.

choice   the likeliest of several completions; accuracy
greedy   greedy decoding up to the end of the line equals the answer; accuracy (the paper's synthetic tasks)
word     every token of the answer is the likeliest in its place; accuracy, and perplexity of the answer (LAMBADA)
text     beam search up to the end of the line, compared with all accepted answers by the task's `measure`
"""
Measure = Literal["squad", "squad2", "coqa", "quac", "drop", "record", "wsc", "none"]
"""How an answer is compared with the accepted ones (gpt3.evaluation.answers)."""
Whole = Literal["bleu", "macro_f1", "multirc"]
"""A figure of all answers together (gpt3.evaluation.whole)."""
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
    right: tuple[int, ...] | None = None
    """All right options, where that is not `gold` alone; (): none is, so that it is no demonstration (WSC)."""
    names: tuple[str, ...] = ()
    """What the options are called in results and by `measure`, where the completions say more (ReCoRD's entities)."""
    spans: tuple[tuple[str, ...], ...] = ()
    """The accepted answers, each of one or more spans (DROP)."""
    group: str = ""
    """What the contexts of several items in a row begin with, a passage: no item is a demonstration for another of its group."""
    solved: str = ""
    """The demonstration, where it is more than the context and the right completion (MultiRC)."""

    @property
    def demonstration(self) -> str:
        """The item solved."""
        return self.solved or self.context + self.completions[self.gold]

    @property
    def rights(self) -> tuple[int, ...]:
        """All right options."""
        return (self.gold,) if self.right is None else self.right


@dataclass(frozen=True)
class HubData:
    """Where the hub has a task's rows."""

    repository: str
    """owner/name."""
    fields: tuple[str, ...]
    """Columns that are read."""
    test: str = "validation"
    """The split that is scored: the test set where its answers are public, else the development set."""
    shots: str | None = "train"
    """The split of the demonstrations; None: the scored one."""
    config: str | None = None
    """Configuration, where there are several."""
    revision: str = "main"
    """Branch; the commit that was read is kept with the rows."""


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
    """Before everything, its line ends included; not before the items of `zero_shot`."""
    origin: Mapping[str, Any] = field(default_factory=dict)
    """Where the items come from, for results.json: a file, or a dataset's repository, splits and revision."""


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
    measure: Measure = "squad"
    """Of text; and of choices that have names."""
    whole: Whole | None = None
    """A figure of all answers together, beside the means."""
    fixed_draw: bool = False
    """One draw of demonstrations for all questions (WSC and MultiRC, section 3.7)."""
    hub: HubData | None = None
    """Where its rows are on the hub; None: in files alone, or generated."""
