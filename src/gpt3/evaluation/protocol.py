"""The paper's protocol (section 2.4): K solved examples, drawn at random for each question, before it.

    instruction · example 1 · separator · … · example K · separator · question → answer

The draw depends on the seed, the task, K and the question's number only, so it is the same for every model, batch and limit.
Texts become ids as lm-eval makes them: context and answer are encoded together, and the answer is what follows the context's
ids; a space at the context's end belongs to the answer.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from gpt3.errors import InputError
from gpt3.evaluation.items import Item, Split, Task

if TYPE_CHECKING:
    from gpt3.inference.language_model import LanguageModel


@dataclass(frozen=True)
class Question:
    """An item with what stands before it."""

    number: int
    """Its place among the test items."""
    item: Item
    before: str
    """Instruction and demonstrations, the last separator included."""
    shots: int
    """Demonstrations in `before`."""

    @property
    def context(self) -> str:
        """All the model reads before the answer."""
        return self.before + self.item.context


class Encoder(Protocol):
    """What makes ids of texts: a `LanguageModel`, or a tokenizer alone."""

    def encode_prompt(self, prompt: str) -> list[int]:
        """Ids of what a text begins with."""

    def encode_word(self, word: str) -> list[int]:
        """Ids of what stands inside a text."""


class Questions:
    """The test items, each with `shots` demonstrations of its own, which are drawn when it is looked at.

    Raises:
        InputError: fewer demonstrations than asked for.
    """

    def __init__(self, task: Task, split: Split, shots: int, seed: int) -> None:
        self.task, self.split, self.shots, self.seed = task, split, shots, seed
        self.items, self.instruction = split.test, split.instruction
        if shots == 0 and split.zero_shot is not None:
            self.items, self.instruction = split.zero_shot, ""
        self._pool = split.test if split.shots is None else split.shots
        self._own = groups(self._pool) if split.shots is None else [range(0)] * len(self.items)
        most = most_shots(split)
        if shots > most:
            raise InputError(
                f"--shots {shots} of {task.name}: there are {most} examples to draw from; give at most so many"
            )

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, number: int) -> Question:
        own = self._own[number]
        rng = random.Random(f"{self.seed}/{self.task.name}/{self.shots}/{'all' if self.task.fixed_draw else number}")
        drawn = rng.sample(range(len(self._pool) - len(own)), self.shots)
        # never the question itself, nor another of its passage
        drawn = [place + len(own) * (place >= own.start) for place in drawn]
        shown = "".join(self._pool[place].demonstration + self.task.separator for place in drawn)
        return Question(number, self.items[number], self.instruction + shown, self.shots)


def most_shots(split: Split) -> int:
    """Demonstrations that there are for every question."""
    return len(split.test) - max(map(len, groups(split.test))) if split.shots is None else len(split.shots)


def questions(task: Task, split: Split, shots: int, seed: int, limit: int | None = None) -> list[Question]:
    """The first `limit` questions, or all.

    Raises:
        InputError: fewer demonstrations than asked for.
    """
    asked = Questions(task, split, shots, seed)
    return [asked[number] for number in range(len(asked))[:limit]]


def texts_of(task: Task, question: Question) -> list[tuple[str, str]]:
    """What is to be scored for a question, as (context, completion): its options after its context; then, for the unconditional
    normalisation, the same options after the answer context. A partial scoring has one answer after each of several contexts."""
    item = question.item
    if item.contexts:
        return [(question.before + context, item.completions[0]) for context in item.contexts]
    completions = item.completions if task.kind == "choice" else item.completions[:1]
    contexts = (question.context, task.answer_context)[: 1 + (task.normalization == "unconditional")]
    return [(context, completion) for context in contexts for completion in completions]


def groups(items: Sequence[Item]) -> list[range]:
    """The places of each item's own group; of an item without one, its own place."""
    found: list[range] = []
    for _, members in itertools.groupby(enumerate(items), lambda pair: pair[1].group or pair[0]):
        span = range(len(found), len(found) + sum(1 for _ in members))
        found += [span] * len(span)
    return found


def encode_pair(model: Encoder, context: str, completion: str) -> tuple[list[int], list[int]]:
    """Ids of a context and of the completion that follows it.

    An empty context is the begin of a document: end-of-text.

    Raises:
        InputError: the completion is empty.
    """
    spaces = len(context) - len(context.rstrip())
    if spaces:
        context, completion = context[:-spaces], context[-spaces:] + completion
    if not context:
        ids = model.encode_prompt("")
        return ids, model.encode_word(completion)
    before = model.encode_prompt(context)
    whole = model.encode_prompt(context + completion)
    answer = whole[len(before) :]
    if not answer:
        raise InputError(f"the answer {completion!r} has no tokens after its context; give one that is not empty")
    return before, answer


def with_room(model: Encoder, task: Task, split: Split) -> Task:
    """The task, its answers given the tokens that the longest accepted one and its line's end take with this tokenizer.

    A tokenizer of bytes needs more of them than the task was made for; an answer that is cut could not be right.
    """
    if task.kind != "greedy":
        return task
    accepted = (text for item in split.test for text in item.completions)
    long = [
        text for text in accepted if len(text.encode()) >= task.max_new_tokens
    ]  # no text has more tokens than bytes
    longest = max((len(model.encode_word(text)) for text in long), default=0)
    return dataclasses.replace(task, max_new_tokens=max(task.max_new_tokens, longest + 1))


def fitting_shots(model: LanguageModel, task: Task, asked: Sequence[Question]) -> int:
    """About how many demonstrations fit the model beside a question and its answer; those asked for where they do.

    They do when at least half of the first 20 questions keep all of theirs; of the rest the oldest tokens are left out.
    """
    some = asked[:20]
    shots = some[0].shots
    if shots == 0:
        return 0
    answer = task.max_new_tokens
    if task.kind not in ("greedy", "text"):
        answer = max(
            len(model.encode_word(completion)) for question in some for completion in question.item.completions
        )
    room = model.engine.context - answer + 1
    lengths = sorted(len(model.encode_prompt(question.context)) for question in some)
    if sum(length > room for length in lengths) <= len(some) / 2:
        return shots
    alone = sorted(len(model.encode_prompt(question.item.context)) for question in some)
    each = sum(lengths) / len(some) / shots - sum(alone) / len(some) / shots
    return max(0, min(shots - 1, int((room - alone[-1]) / each)))


def check_fit(model: LanguageModel, task: Task, asked: Sequence[Question]) -> None:
    """Refuse more demonstrations than the model's positions hold.

    Raises:
        InputError: naming how many fit.
    """
    fits = fitting_shots(model, task, asked)
    if fits < asked[0].shots:
        raise InputError(
            f"--shots {asked[0].shots} of {task.name} does not fit the model's {model.engine.context:,} positions; "
            f"about {fits} fit"
        )
