"""The paper's protocol (section 2.4): K few-shot examples, drawn at random for each question, before it.

    instruction · example 1 · separator · … · example K · separator · question → answer

The draw depends only on the seed, the task, K and the question's number, so it is the same for every model, batch and limit.
Texts become ids as in lm-eval: context and answer are encoded together, and the answer is the ids after those of the context;
a space at the end of the context belongs to the answer.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, overload

from gpt3.errors import InputError
from gpt3.evaluation.items import Item, Split, Task

if TYPE_CHECKING:
    from gpt3.inference.language_model import LanguageModel


@dataclass(frozen=True)
class Question:
    """An item with the text before it."""

    number: int
    """Its index among the test items."""
    item: Item
    before: str
    """Instruction and few-shot examples, the last separator included."""
    shots: int
    """Few-shot examples in `before`."""

    @property
    def context(self) -> str:
        """All the model reads before the answer."""
        return self.before + self.item.context


class Encoder(Protocol):
    """A `LanguageModel`, or a tokenizer alone."""

    def encode_prompt(self, prompt: str) -> list[int]:
        """Ids of the beginning of a text."""

    def encode_word(self, word: str) -> list[int]:
        """Ids of a part of a text."""


class Questions(Sequence[Question]):
    """The first `limit` test items, or all, each with `shots` few-shot examples of its own, drawn when it is accessed.

    Raises:
        InputError: fewer examples than requested.
    """

    def __init__(self, task: Task, split: Split, shots: int, seed: int, limit: int | None = None) -> None:
        self.task, self.split, self.shots, self.seed = task, split, shots, seed
        self.items, self.instruction = split.test, split.instruction
        if shots == 0 and split.zero_shot is not None:
            self.items, self.instruction = split.zero_shot, ""
        self.items = self.items[:limit]
        self._pool = split.test if split.shots is None else split.shots
        self._own = groups(self._pool) if split.shots is None else [range(0)] * len(self.items)
        if shots > (most := most_shots(split)):
            raise InputError(f"--shots {shots} of {task.name} exceeds the {most} examples to draw from")

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, place: int) -> Question: ...
    @overload
    def __getitem__(self, place: slice) -> list[Question]: ...
    def __getitem__(self, place: int | slice) -> Question | list[Question]:
        return self._question(place) if isinstance(place, int) else [self[n] for n in range(len(self))[place]]

    def _question(self, number: int) -> Question:
        item, own = self.items[number], self._own[number]
        rng = random.Random(f"{self.seed}/{self.task.name}/{self.shots}/{'all' if self.task.fixed_draw else number}")
        drawn = rng.sample(range(len(self._pool) - len(own)), self.shots)
        # never the question itself, nor another of its passage
        drawn = [place + len(own) * (place >= own.start) for place in drawn]
        shown = "".join(self._pool[place].demonstration + self.task.separator for place in drawn)
        return Question(number, item, self.instruction + shown, self.shots)


def most_shots(split: Split) -> int:
    """Few-shot examples available for every question."""
    return len(split.test) - max(map(len, groups(split.test))) if split.shots is None else len(split.shots)


def groups(items: Sequence[Item]) -> list[range]:
    """The indexes of each item's own group; for an item without one, its own index."""
    found: list[range] = []
    for _, members in itertools.groupby(enumerate(items), lambda pair: pair[1].group or pair[0]):
        span = range(len(found), len(found) + sum(1 for _ in members))
        found += [span] * len(span)
    return found


def texts_of(task: Task, question: Question) -> list[tuple[str, str]]:
    """The texts to score for a question, as (context, completion): its options after its context; then, for the unconditional
    normalization, the same options after the answer context. Partial scoring has one answer after each of several contexts."""
    item = question.item
    if item.contexts:
        return [(question.before + context, item.completions[0]) for context in item.contexts]
    completions = item.completions if task.kind == "choice" else item.completions[:1]
    contexts = (question.context, task.answer_context)[: 1 + (task.normalization == "unconditional")]
    return [(context, completion) for context in contexts for completion in completions]


def encode_pair(model: Encoder, context: str, completion: str) -> tuple[list[int], list[int]]:
    """Ids of a context and of the completion that follows it.

    An empty context is the beginning of a document: the EOS token.

    Raises:
        InputError: the completion is empty.
    """
    spaces = len(context) - len(context.rstrip())
    if spaces:
        context, completion = context[:-spaces], context[-spaces:] + completion
    if not context:
        return model.encode_prompt(""), model.encode_word(completion)
    before = model.encode_prompt(context)
    answer = model.encode_prompt(context + completion)[len(before) :]
    if not answer:
        raise InputError(f"the answer {completion!r} has no tokens after its context. Give one that is not empty.")
    return before, answer


def with_room(model: Encoder, task: Task, split: Split) -> Task:
    """The task, its answers given the tokens that the longest accepted one and its line's end take with this tokenizer.

    A tokenizer of bytes needs more of them than the task was made for; an answer that is cut could not be right.
    """
    if task.kind != "greedy":
        return task
    accepted = (text for item in split.test for text in item.completions)
    # no text has more tokens than bytes
    long = [text for text in accepted if len(text.encode()) >= task.max_new_tokens]
    longest = max((len(model.encode_word(text)) for text in long), default=0)
    return dataclasses.replace(task, max_new_tokens=max(task.max_new_tokens, longest + 1))


def fitting_shots(model: LanguageModel, task: Task, asked: Sequence[Question]) -> int:
    """About how many few-shot examples fit the model with a question and its answer; those requested if they do.

    They do if at least half of the first 20 questions keep all of theirs; the others lose the oldest tokens.
    """
    some = asked[:20]
    shots = some[0].shots
    if shots == 0:
        return 0
    answer = task.max_new_tokens
    if task.kind not in ("greedy", "text"):
        answer = max(len(model.encode_word(text)) for question in some for text in question.item.completions)
    room = model.engine.context - answer + 1
    lengths = [len(model.encode_prompt(question.context)) for question in some]
    if sum(length > room for length in lengths) <= len(some) / 2:
        return shots
    alone = [len(model.encode_prompt(question.item.context)) for question in some]
    each = (sum(lengths) - sum(alone)) / len(some) / shots
    return max(0, min(shots - 1, int((room - max(alone)) / each)))


def check_fit(model: LanguageModel, task: Task, asked: Sequence[Question]) -> None:
    """Refuse more few-shot examples than the model's positions hold.

    Raises:
        InputError: with the number that fits.
    """
    fits = fitting_shots(model, task, asked)
    if fits < asked[0].shots:
        raise InputError(
            f"--shots {asked[0].shots} of {task.name} exceeds the model's {model.engine.context:,} positions. "
            f"About {fits} fit."
        )
