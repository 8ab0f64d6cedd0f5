"""Evaluation as the paper did it. An `Item` is one question with its answers, a `Task` a set of them and how it is scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["choice", "greedy", "word", "text"]
"""How a task is scored.

choice   the likeliest of several completions; accuracy
greedy   greedy decoding up to the end of the line equals the answer; accuracy (the paper's synthetic tasks)
word     every token of the answer is the likeliest in its position; accuracy, and perplexity of the answer (LAMBADA)
text     beam search up to the end of the line, compared with all accepted answers by the task's `measure`
"""
Normalization = Literal["token", "sum", "byte", "unconditional"]
"""How log-probabilities of completions are compared (section 2.4).

token          divided by the number of tokens, the paper's default
sum            as they are
byte           divided by the number of UTF-8 bytes
unconditional  P(completion | context) / P(completion | answer context): ARC, OpenBookQA, RACE
"""


@dataclass(frozen=True)
class Item:
    """One example of a task.

    A completion begins with the space between it and its context.
    """

    context: str
    """The text before the answer. With partial scoring: before the right answer, for few-shot examples."""
    completions: tuple[str, ...]
    """choice: the options. Otherwise: the accepted answers, the first of which is shown in few-shot examples."""
    gold: int = 0
    """The right option."""
    contexts: tuple[str, ...] = ()
    """Partial scoring (Winograd, Winogrande): one context per option; the completions are all the same."""
    id: str = ""
    """Its origin, for the list of examples."""
    right: tuple[int, ...] | None = None
    """All right options, if there are more than `gold`; (): none, so it is never a few-shot example (WSC)."""
    names: tuple[str, ...] = ()
    """The options as results and `measure` see them, where the completions say more (ReCoRD's entities)."""
    spans: tuple[tuple[str, ...], ...] = ()
    """The accepted answers, each of one or more spans (DROP)."""
    group: str = ""
    """The passage with which the contexts of several consecutive items begin: none is an example for another of its group."""
    solved: str = ""
    """The few-shot example, where it is more than the context and the right completion (MultiRC)."""

    @property
    def demonstration(self) -> str:
        """The item as a few-shot example, with its answer."""
        return self.solved or self.context + self.completions[self.gold]

    @property
    def rights(self) -> tuple[int, ...]:
        """All right options."""
        return (self.gold,) if self.right is None else self.right


@dataclass(frozen=True)
class Result:
    """One question's outcome."""

    number: int
    """Of the question."""
    id: str
    """Of the item."""
    metrics: dict[str, float]
    """Figures of this question by name; acc is 0 or 1."""
    dropped: int = 0
    """Tokens of the context, the oldest, that did not fit the model."""
    answer: str = ""
    """The model's answer or choice."""
    gold: str = ""
    """The right answer."""
    detail: dict[str, Any] = field(default_factory=dict)
    """For choices: log-probabilities and tokens of each option."""


Measure = Callable[[str, Item], dict[str, float]]
"""Compares an answer with the accepted ones: figures by name, 0 to 1 (gpt3.evaluation.answers)."""
Whole = Callable[[Sequence[Result]], tuple[float, float] | None]
"""A figure of all answers together, and its standard error, 0 to 1 (gpt3.evaluation.answers); None: no answer that it is of."""


@dataclass(frozen=True)
class HubData:
    """A task's dataset on the hub."""

    repository: str
    """owner/name."""
    fields: tuple[str, ...]
    """Columns to read."""
    test: str = "validation"
    """The split to score: the test set where its answers are public, otherwise the development set."""
    shots: str | None = "train"
    """The split of the few-shot examples; None: the scored one."""
    config: str | None = None
    """Configuration, where there are several."""
    revision: str = "main"
    """Branch; the commit that was read is kept with the rows."""


@dataclass(frozen=True)
class Source:
    """Where a task's items come from."""

    data_dir: str | None = None
    """Folder of files, or ``FOLDER@500``: the first 500 rows of each; None: the hub."""
    format: str = "paper"
    """paper or released, for generated tasks."""
    seed: int = 0
    """Of generated tasks."""


@dataclass(frozen=True)
class Split:
    """A task's items."""

    test: Sequence[Item]
    """The questions."""
    shots: Sequence[Item] | None = None
    """The few-shot examples to draw from; None: the other questions."""
    zero_shot: Sequence[Item] | None = None
    """The questions as they are asked without examples, where that differs (LAMBADA)."""
    instruction: str = ""
    """Text before everything, with its line ends; not before the items of `zero_shot`."""
    origin: Mapping[str, Any] = field(default_factory=dict)
    """Where the items come from, for results.json: a file, or a dataset's repository, splits and revision."""


@dataclass(frozen=True)
class Task:
    """A set of questions and how answers to them are scored."""

    name: str
    """As in --tasks."""
    summary: str
    """What is asked, in a few words."""
    kind: Kind
    """How it is scored."""
    split: Callable[[Source], Split]
    """Reads or generates its items."""
    shots: int
    """The paper's K."""
    separator: str = "\n\n"
    """Between few-shot examples, and before the question."""
    normalization: Normalization = "token"
    """Of choices."""
    answer_context: str = ""
    """What precedes the completion in the denominator of the unconditional normalization; "": that is not computed."""
    chance: float = 0.0
    """Accuracy of guessing, 0 to 1."""
    paper: str | None = None
    """Its name in Table H.1."""
    max_new_tokens: int = 16
    """Tokens an answer may have, for greedy and text."""
    metrics: tuple[str, ...] = ("acc",)
    """The figures to show; the first is the paper's."""
    measure: Measure | None = None
    """Of kind text, and of choices that have names."""
    whole: Mapping[str, Whole] = field(default_factory=dict)
    """Figures of all answers together, in addition to the means or in place of them."""
    fixed_draw: bool = False
    """One draw of few-shot examples for all questions (WSC and MultiRC, section 3.7)."""
    hub: HubData | None = None
    """Its dataset on the hub; None: files only, or generated."""
    styles: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By --style: the fields of this class that differ there (gpt3.evaluation.styles)."""
    window: int | None = None
    """The text of each option is cut or filled up to this many tokens, all of them scored (--style seed); None: as it is."""
