"""What a model makes of questions: a `Result` for each, by the rule of the task's kind."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpt3.errors import InputError
from gpt3.evaluation.answers import MEASURES
from gpt3.evaluation.items import Task
from gpt3.evaluation.protocol import Question, encode_pair, texts_of
from gpt3.inference.beam import beam_search
from gpt3.inference.continuations import ContinuationScore, Request, score_requests
from gpt3.inference.decoding import common
from gpt3.inference.generation import GenerationRequest
from gpt3.inference.options import SamplingOptions

if TYPE_CHECKING:
    from gpt3.inference.language_model import LanguageModel

BEAM_WIDTH, LENGTH_PENALTY = 4, 0.6
"""Section 2.4."""
GROUP = 64
"""Greedy answers that are made in one job."""
SCORED_GROUP = 32
"""Questions whose answers are scored in one call: of a killed evaluation so many are lost at most."""


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
    """What the model said or chose."""
    gold: str = ""
    """The right answer."""
    detail: dict[str, Any] = field(default_factory=dict)
    """For choices: log-probabilities and tokens of each option."""

    def as_dict(self) -> dict[str, Any]:
        """For a line of JSON."""
        return dataclasses.asdict(self)


def score(model: LanguageModel, task: Task, asked: Sequence[Question], *, batch: int = 8) -> Iterator[Result]:
    """Results in the order of the questions, each as soon as it is known.

    Args:
        batch: answers written, or contexts read, side by side; no score depends on it.

    Raises:
        InputError: an answer with more tokens than the model has positions.
    """
    if task.kind == "greedy":
        yield from _greedy(model, task, asked, batch)
        return
    if task.kind == "text":
        for question in asked:
            yield _text(model, task, question)
        return
    rule = _choice if task.kind == "choice" else _word
    for begin in range(0, len(asked), SCORED_GROUP):
        group = asked[begin : begin + SCORED_GROUP]
        wanted = [requests_of(model, task, question) for question in group]
        for question, some in zip(group, wanted, strict=True):
            longest = max(len(answer) for request in some for answer in request.continuations)
            if longest > model.engine.context:
                raise InputError(
                    f"{task.name}, question {question.number + 1}: an answer has {longest:,} tokens, the model "
                    f"{model.engine.context:,} positions, so it would be cut; leave the question out, or take a longer model"
                )
        scores = iter(score_requests(model.engine, [one for some in wanted for one in some], batch=batch))
        for question, some in zip(group, wanted, strict=True):
            yield rule(task, question, [score for _ in some for score in next(scores)])


def requests_of(model: LanguageModel, task: Task, question: Question) -> list[Request]:
    """The ids of `texts_of`; one context, with all that is asked after it, a request."""
    shots = model.encode_prompt(question.before) if question.before else []
    texts = texts_of(task, question)
    if question.item.contexts:
        return _partial([encode_pair(model, *pair) for pair in texts], shots)
    found = []
    for _, some in itertools.groupby(texts, key=lambda pair: pair[0]):
        pairs = [encode_pair(model, *pair) for pair in some]  # of one context's ids
        found.append(Request(pairs[0][0], [answer for _, answer in pairs], common(pairs[0][0], shots)))
    return found


def _partial(pairs: list[tuple[list[int], list[int]]], shots: list[int]) -> list[Request]:
    """One request where the contexts begin alike: what is different of them stands, unscored, before the answer."""
    alike = min(common(pairs[0][0], before[:-1]) for before, _ in pairs)
    if not alike:
        return [Request(before, [answer], common(before, shots)) for before, answer in pairs]
    rests = [[*before[alike:], *answer] for before, answer in pairs]
    scored = [len(answer) for _, answer in pairs]
    return [Request(pairs[0][0][:alike], rests, common(pairs[0][0][:alike], shots), scored)]


def _choice(task: Task, question: Question, scores: list[ContinuationScore]) -> Result:
    lengths = [len(one.logprobs) for one in scores]
    return judge_choice(task, question, [one.total for one in scores], lengths, max(one.dropped for one in scores))


def judge_choice(
    task: Task, question: Question, totals: Sequence[float], lengths: Sequence[int], dropped: int = 0
) -> Result:
    """Which option is taken, by each rule.

    Args:
        totals: log-probability of each of `texts_of`.
        lengths: their tokens.
        dropped: of the context.
    """
    item = question.item
    count = len(item.contexts or item.completions)
    alone, totals, lengths = totals[count:], list(totals[:count]), list(lengths[:count])
    rules = {
        "sum": totals,
        "token": [total / length for total, length in zip(totals, lengths, strict=True)],
    }
    bare = [completion.removeprefix(" ") for completion in item.completions]
    for name, sizes in (("byte", [len(option.encode()) for option in bare]), ("char", [*map(len, bare)])):
        rules[name] = [total / max(1, size) for total, size in zip(totals, sizes, strict=True)]
    if task.normalization == "unconditional":
        rules["unconditional"] = [total - other for total, other in zip(totals, alone, strict=True)]
    chosen = {name: _largest(values) for name, values in rules.items()}
    metrics = {"acc": float(chosen[task.normalization] in item.rights)}
    metrics |= {f"acc_{name}": float(place in item.rights) for name, place in chosen.items()}
    if "acc_norm" in task.metrics:
        metrics["acc_norm"] = metrics["acc_char"]
    options = item.names or item.contexts or item.completions
    if item.names:
        metrics |= MEASURES[task.measure](item.names[chosen[task.normalization]], item)
    return Result(
        question.number,
        item.id,
        metrics,
        dropped,
        options[chosen[task.normalization]].strip(),
        options[item.gold].strip(),
        {"logprobs": totals, "tokens": lengths, "chosen": chosen[task.normalization], "right": item.gold},
    )


def _largest(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)  # of equals the first, as numpy's argmax


def _word(task: Task, question: Question, scores: list[ContinuationScore]) -> Result:
    [found] = scores
    return judge_word(question, found.total, found.is_greedy, found.dropped)


def judge_word(question: Question, total: float, is_greedy: bool, dropped: int = 0) -> Result:
    """Whether each token of the answer, whose log-probability is `total`, is the likeliest."""
    gold = question.item.completions[0].strip()
    metrics = {"acc": float(is_greedy), "nll": -total}
    return Result(question.number, question.item.id, metrics, dropped, gold if is_greedy else "", gold)


def judge_text(task: Task, question: Question, text: str, dropped: int = 0) -> Result:
    """What is written, up to the end of the line, against the right answer or all accepted ones."""
    gold, answer = question.item.completions[0].strip(), text.split("\n")[0].strip()
    exact = task.kind == "greedy"
    metrics = {"acc": float(answer == gold)} if exact else MEASURES[task.measure](answer, question.item)
    return Result(question.number, question.item.id, metrics, dropped, answer, gold)


def _fitting(model: LanguageModel, context: str, new_tokens: int) -> tuple[list[int], int]:
    """Ids of a context that leave room for the answer, and how many of the oldest are left out."""
    ids = model.encode_prompt(context.rstrip(" "))
    room = model.engine.context - new_tokens + 1
    if room < 1:
        raise InputError(
            f"an answer of up to {new_tokens} tokens does not fit the model's {model.engine.context} positions; "
            "take a model with more"
        )
    dropped = max(0, len(ids) - room)
    return ids[dropped:], dropped


def _greedy(model: LanguageModel, task: Task, asked: Sequence[Question], batch: int) -> Iterator[Result]:
    options = SamplingOptions(temperature=0, max_new_tokens=task.max_new_tokens, stop=["\n"], seed=0)
    for begin in range(0, len(asked), GROUP):
        group = asked[begin : begin + GROUP]
        prompts = [_fitting(model, question.context, task.max_new_tokens) for question in group]
        done = GenerationRequest(model, [ids for ids, _ in prompts], options, batch).complete()
        for question, (_, dropped), made in zip(group, prompts, done, strict=True):
            yield judge_text(task, question, made.text, dropped)


def _text(model: LanguageModel, task: Task, question: Question) -> Result:
    ids, dropped = _fitting(model, question.context, task.max_new_tokens)
    best, _ = beam_search(
        model.engine,
        ids,
        width=BEAM_WIDTH,
        length_penalty=LENGTH_PENALTY,
        max_new_tokens=task.max_new_tokens,
        ends=model.ends,
        stop=lambda made: b"\n" in model.token_bytes[made[-1]],
    )[0]
    return judge_text(task, question, model.text_of(best), dropped)
