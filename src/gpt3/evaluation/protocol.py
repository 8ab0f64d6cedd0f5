"""The paper's protocol (section 2.4): K few-shot examples, drawn at random for each question, before it; answers and scores.

    instruction · example 1 · separator · … · example K · separator · question → answer

The draw depends only on the seed, the task, K and the question's number, so it is the same for every model, batch and limit.
Texts become ids as in lm-eval: context and answer are encoded together, and the answer is the ids after those of the context;
a space at the end of the context belongs to the answer.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, overload

from gpt3.errors import InputError
from gpt3.evaluation import Item, Result, Split, Task
from gpt3.evaluation.windows import window_totals
from gpt3.inference.beam import beam_search
from gpt3.inference.continuations import Request, score_requests
from gpt3.inference.decoding import common
from gpt3.inference.generation import GenerationRequest
from gpt3.inference.options import SamplingOptions
from gpt3.options import flag
from gpt3.tables import counted

if TYPE_CHECKING:
    from gpt3.inference.language_model import LanguageModel

BEAM_WIDTH, LENGTH_PENALTY = 4, 0.6
"""Section 2.4."""
GROUPS = {"greedy": 64, "text": 1, "choice": 32, "word": 32}
"""Questions answered in one job, by the task's kind; a killed evaluation loses at most this many."""
WRITTEN = ("greedy", "text")
"""Kinds whose answers are generated."""


class Encoder(Protocol):
    """A `LanguageModel`, or a tokenizer alone."""

    def encode_prompt(self, prompt: str) -> list[int]:
        """Ids of the beginning of a text."""

    def encode_word(self, word: str) -> list[int]:
        """Ids of a part of a text."""


# ---- questions


@dataclass(frozen=True)
class Question:
    """An item with the text before it."""

    number: int
    """Its index among the test items."""
    item: Item
    before: str
    """Instruction and few-shot examples, the last separator included."""

    @property
    def context(self) -> str:
        """All the model reads before the answer."""
        return self.before + self.item.context


@dataclass(eq=False, repr=False)
class Questions(Sequence[Question]):
    """Test items, each with few-shot examples of its own, drawn when it is accessed.

    Raises:
        InputError: fewer examples than requested.
    """

    task: Task
    split: Split
    shots: int
    """Few-shot examples before each question."""
    seed: int
    limit: int | None = None
    """Only this many items, the first."""
    is_k: bool = False
    """Whether `shots` is the paper's K, which means at most as many: there may be fewer to draw from, and fewer may fit."""

    def __post_init__(self) -> None:
        split = self.split
        self._pool = split.test if split.shots is None else split.shots
        # the places of the question itself and of others of its passage, which are not drawn
        self._own = groups(split.test) if split.shots is None else [range(0)] * len(split.test)
        most = len(self._pool) - max(map(len, self._own))
        if self.is_k:
            self.shots = min(self.shots, most)
        if self.shots > most:
            raise InputError(
                f"--shots {self.shots} of {self.task.name} exceeds the {counted(most, 'example')} to draw from"
            )
        plain = self.shots == 0 and split.zero_shot is not None
        self._instruction = "" if plain else split.instruction
        self.items = ((split.zero_shot if plain else None) or split.test)[: self.limit]

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, place: int) -> Question: ...
    @overload
    def __getitem__(self, place: slice) -> list[Question]: ...
    def __getitem__(self, place: int | slice) -> Question | list[Question]:
        if isinstance(place, slice):
            return [self[number] for number in range(len(self))[place]]
        item, own = self.items[place], self._own[place]
        rng = random.Random(f"{self.seed}/{self.task.name}/{self.shots}/{'all' if self.task.fixed_draw else place}")
        drawn = rng.sample(range(len(self._pool) - len(own)), self.shots)
        examples = [self._pool[number + len(own) * (number >= own.start)] for number in drawn]
        shown = "".join(example.demonstration + self.task.separator for example in examples)
        return Question(place, item, self._instruction + shown)


def groups(items: Sequence[Item]) -> list[range]:
    """The indexes of each item's own group; for an item without one, its own index."""
    found: list[range] = []
    for _, members in itertools.groupby(enumerate(items), lambda pair: pair[1].group or pair[0]):
        span = range(len(found), len(found) + sum(1 for _ in members))
        found += [span] * len(span)
    return found


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


def fitting_shots(model: LanguageModel, asked: Questions) -> int:
    """About how many few-shot examples fit the model with a question and its answer; those requested if they do.

    They do if at least half of the first 20 questions keep all of theirs; the others lose the oldest tokens.
    """
    if asked.shots == 0:
        return 0
    some, answer = asked[:20], asked.task.max_new_tokens
    if asked.task.kind not in WRITTEN:
        answer = max(len(model.encode_word(text)) for question in some for text in question.item.completions)
    room = model.engine.context - answer + 1
    lengths = [len(model.encode_prompt(question.context)) for question in some]
    if sum(length > room for length in lengths) <= len(some) / 2:
        return asked.shots
    alone = [len(model.encode_prompt(question.item.context)) for question in some]
    each = (sum(lengths) - sum(alone)) / len(some) / asked.shots
    return max(0, min(asked.shots - 1, int((room - max(alone)) / each)))


# ---- texts and ids


def texts_of(task: Task, question: Question) -> list[tuple[str, str]]:
    """The texts to score for a question, as (context, completion): its options after its context; then, if the task has an
    answer context, the same options after that. Partial scoring has one answer after each of several contexts."""
    item = question.item
    if item.contexts:
        return [(question.before + context, item.completions[0]) for context in item.contexts]
    completions = item.completions if task.kind == "choice" else item.completions[:1]
    contexts = (question.context, task.answer_context)[: 1 + bool(task.answer_context)]
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


def requests_of(model: LanguageModel, task: Task, question: Question) -> list[Request]:
    """The ids of `texts_of`: a request for each context, with all its continuations.

    Partial scoring has one request if its contexts begin alike: where they differ becomes, unscored, part of the continuation.
    """
    shots = model.encode_prompt(question.before) if question.before else []
    pairs = [encode_pair(model, *pair) for pair in texts_of(task, question)]
    alike = min(common(pairs[0][0], before[:-1]) for before, _ in pairs) if question.item.contexts else 0
    if alike:
        before = pairs[0][0][:alike]
        rests = [[*context[alike:], *answer] for context, answer in pairs]
        return [Request(before, rests, common(before, shots), [len(answer) for _, answer in pairs])]
    return [
        Request(before, [answer for _, answer in some], common(before, shots))
        for before, some in itertools.groupby(pairs, key=lambda pair: pair[0])
    ]


# ---- answers


def score(model: LanguageModel, task: Task, asked: Sequence[Question], *, batch: int = 8) -> Iterator[Result]:
    """Results in the order of the questions, each as soon as it is known.

    Args:
        batch: answers generated, or contexts read, in parallel; no score depends on it.

    Raises:
        InputError: an answer with more tokens than the model has positions.
    """
    for begin in range(0, len(asked), GROUPS[task.kind]):
        group = asked[begin : begin + GROUPS[task.kind]]
        if task.window is not None:
            texts = [[context + option for context, option in texts_of(task, question)] for question in group]
            totals = window_totals(model, task.window, texts, batch)
            for question, some in zip(group, totals, strict=True):
                yield judge_choice(task, question, some, [task.window - 1] * len(some))
        else:
            yield from (_write if task.kind in WRITTEN else _score)(model, task, group, batch)


def _score(model: LanguageModel, task: Task, group: Sequence[Question], batch: int) -> Iterator[Result]:
    """Results of questions whose answers are given."""
    wanted = [requests_of(model, task, question) for question in group]
    for question, some in zip(group, wanted, strict=True):
        longest = max(len(answer) for request in some for answer in request.continuations)
        if longest > model.engine.context:
            raise InputError(
                f"{task.name}, question {question.number + 1}: an answer of {longest:,} tokens exceeds the model's "
                f"{model.engine.context:,} positions. Leave the question out, or use a model with more positions."
            )
    scores = iter(score_requests(model.engine, [one for some in wanted for one in some], batch=batch))
    for question, some in zip(group, wanted, strict=True):
        found = [score for _ in some for score in next(scores)]
        dropped = max(one.dropped for one in found)
        if task.kind == "word":
            yield judge_word(question, found[0].total, found[0].is_greedy, dropped)
        else:
            lengths = [len(one.logprobs) for one in found]
            yield judge_choice(task, question, [one.total for one in found], lengths, dropped)


def _write(model: LanguageModel, task: Task, group: Sequence[Question], batch: int) -> Iterator[Result]:
    """Results of questions whose answers are generated."""
    if task.max_new_tokens > model.engine.context:
        raise InputError(
            f"an answer of up to {task.max_new_tokens} tokens exceeds the model's {model.engine.context} positions. "
            "Use a model with more positions."
        )
    prompts = [model.encode_prompt(question.context.rstrip(" ")) for question in group]
    options = SamplingOptions(temperature=0, max_new_tokens=task.max_new_tokens, stop=["\n"], seed=0)
    texts = write(model, prompts, options, BEAM_WIDTH if task.kind == "text" else 1, LENGTH_PENALTY, batch)
    for question, (text, dropped) in zip(group, texts, strict=True):
        yield judge_text(task, question, text, dropped)


def write(
    model: LanguageModel, prompts: Sequence[list[int]], options: SamplingOptions, beams: int, penalty: float, batch: int
) -> list[tuple[str, int]]:
    """The continuation of each prompt, up to the first text of `stop`; and how many of its tokens, the oldest, do not fit.

    Args:
        beams: more than 1: beam search with this width and length penalty, in place of sampling.

    Raises:
        InputError: beams with a constraint.
    """
    if beams > 1 and options.constraint is not None:
        raise InputError(f"beam search cannot follow {flag(options.constraint[0])}. Use one beam.")
    room = max(1, model.engine.context - options.max_new_tokens + 1)
    kept = [ids[-room:] for ids in prompts]
    if beams > 1:
        texts = [_search(model, ids, options, beams, penalty) for ids in kept]
    else:
        texts = [made.text for made in GenerationRequest(model, kept, options, batch).complete()]
    return [(text, len(ids) - len(read)) for text, ids, read in zip(texts, prompts, kept, strict=True)]


def _search(model: LanguageModel, ids: list[int], options: SamplingOptions, beams: int, penalty: float) -> str:
    best, _ = beam_search(
        model.engine,
        ids,
        width=beams,
        length_penalty=penalty,
        max_new_tokens=options.max_new_tokens,
        ends=model.ends,
        stop=lambda made: any(end in model.text_of(made) for end in options.stop),
    )[0]
    text = model.text_of(best)
    return text[: min((text.find(end) for end in options.stop if end in text), default=len(text))]


# ---- judgements


def judge_choice(
    task: Task, question: Question, totals: Sequence[float], lengths: Sequence[int], dropped: int = 0
) -> Result:
    """The option chosen, by each rule.

    Args:
        totals: log-probability of each of `texts_of`.
        lengths: their tokens.
        dropped: tokens of the context.
    """
    item = question.item
    options = item.names or item.contexts or item.completions
    count = len(item.contexts or item.completions)
    alone, totals, lengths = totals[count:], list(totals[:count]), list(lengths[:count])
    bare = [completion.removeprefix(" ") for completion in item.completions]
    sizes = {"token": lengths, "byte": [len(option.encode()) for option in bare], "char": [*map(len, bare)]}
    rules = {"sum": totals}
    for name, some in sizes.items():
        rules[name] = [total / max(1, size) for total, size in zip(totals, some, strict=True)]
    if alone:
        rules["unconditional"] = [total - other for total, other in zip(totals, alone, strict=True)]
    # of equals the first, as numpy's argmax
    chosen = {name: max(range(count), key=values.__getitem__) for name, values in rules.items()}
    choice = chosen[task.normalization]
    metrics = {"acc": float(choice in item.rights)}
    if task.window is None:
        metrics |= {f"acc_{name}": float(place in item.rights) for name, place in chosen.items()}
    if "acc_norm" in task.metrics:
        metrics["acc_norm"] = metrics["acc_char"]
    if item.names and task.measure:
        metrics |= task.measure(item.names[choice], item)
    detail = {"logprobs": totals, "tokens": lengths, "chosen": choice, "right": item.gold}
    answer, gold = options[choice].strip(), options[item.gold].strip()
    return Result(question.number, item.id, metrics, dropped, answer, gold, detail)


def judge_word(question: Question, total: float, is_greedy: bool, dropped: int = 0) -> Result:
    """Whether each token of the answer, whose log-probability is `total`, is the likeliest."""
    gold = question.item.completions[0].strip()
    metrics = {"acc": float(is_greedy), "nll": -total}
    return Result(question.number, question.item.id, metrics, dropped, gold if is_greedy else "", gold)


def judge_text(task: Task, question: Question, text: str, dropped: int = 0) -> Result:
    """The generated text, up to the end of the line, compared with the right answer or all accepted ones."""
    gold, answer = question.item.completions[0].strip(), text.split("\n")[0].strip()
    metrics = {"acc": float(answer == gold)} if task.kind == "greedy" else {}
    if task.measure:
        metrics = task.measure(answer, question.item)
    return Result(question.number, question.item.id, metrics, dropped, answer, gold)
