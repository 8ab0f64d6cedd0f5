"""A model's answers to questions: a `Result` for each, by the rule of the task's kind."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from gpt3.errors import InputError
from gpt3.evaluation.items import Result, Task
from gpt3.evaluation.protocol import Question, encode_pair, texts_of
from gpt3.inference.beam import beam_search
from gpt3.inference.continuations import Request, score_requests
from gpt3.inference.decoding import common
from gpt3.inference.generation import GenerationRequest
from gpt3.inference.options import SamplingOptions

if TYPE_CHECKING:
    from gpt3.inference.language_model import LanguageModel

BEAM_WIDTH, LENGTH_PENALTY = 4, 0.6
"""Section 2.4."""
GROUP = 64
"""Greedy answers generated in one job."""
SCORED_GROUP = 32
"""Questions whose answers are scored in one call; a killed evaluation loses at most this many."""


def score(model: LanguageModel, task: Task, asked: Sequence[Question], *, batch: int = 8) -> Iterator[Result]:
    """Results in the order of the questions, each as soon as it is known.

    Args:
        batch: answers generated, or contexts read, in parallel; no score depends on it.

    Raises:
        InputError: an answer with more tokens than the model has positions.
    """
    written = task.kind in ("greedy", "text")
    size = {"greedy": GROUP, "text": 1}.get(task.kind, SCORED_GROUP)
    for begin in range(0, len(asked), size):
        group = asked[begin : begin + size]
        yield from _write(model, task, group, batch) if written else _score(model, task, group, batch)


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


def requests_of(model: LanguageModel, task: Task, question: Question) -> list[Request]:
    """The ids of `texts_of`: a request for each context, with all its continuations."""
    shots = model.encode_prompt(question.before) if question.before else []
    texts = texts_of(task, question)
    if question.item.contexts:
        return _partial([encode_pair(model, *pair) for pair in texts], shots)
    found = []
    for _, some in itertools.groupby(texts, key=lambda pair: pair[0]):
        pairs = [encode_pair(model, *pair) for pair in some]
        found.append(Request(pairs[0][0], [answer for _, answer in pairs], common(pairs[0][0], shots)))
    return found


def _partial(pairs: list[tuple[list[int], list[int]]], shots: list[int]) -> list[Request]:
    """One request if the contexts begin alike: where they differ becomes, unscored, part of the continuation."""
    alike = min(common(pairs[0][0], before[:-1]) for before, _ in pairs)
    if not alike:
        return [Request(before, [answer], common(before, shots)) for before, answer in pairs]
    rests = [[*before[alike:], *answer] for before, answer in pairs]
    scored = [len(answer) for _, answer in pairs]
    return [Request(pairs[0][0][:alike], rests, common(pairs[0][0][:alike], shots), scored)]


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
    count = len(item.contexts or item.completions)
    alone, totals, lengths = totals[count:], list(totals[:count]), list(lengths[:count])
    bare = [completion.removeprefix(" ") for completion in item.completions]
    sizes = {"token": lengths, "byte": [len(option.encode()) for option in bare], "char": [*map(len, bare)]}
    rules = {"sum": totals} | {
        name: [total / max(1, size) for total, size in zip(totals, some, strict=True)] for name, some in sizes.items()
    }
    if task.normalization == "unconditional":
        rules["unconditional"] = [total - other for total, other in zip(totals, alone, strict=True)]
    # of equals the first, as numpy's argmax
    chosen = {name: max(range(count), key=values.__getitem__) for name, values in rules.items()}
    choice = chosen[task.normalization]
    metrics = {"acc": float(choice in item.rights)}
    metrics |= {f"acc_{name}": float(place in item.rights) for name, place in chosen.items()}
    if "acc_norm" in task.metrics:
        metrics["acc_norm"] = metrics["acc_char"]
    options = item.names or item.contexts or item.completions
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
    if task.kind == "greedy":
        metrics = {"acc": float(answer == gold)}
    else:
        metrics = task.measure(answer, question.item) if task.measure else {}
    return Result(question.number, question.item.id, metrics, dropped, answer, gold)


def _write(model: LanguageModel, task: Task, group: Sequence[Question], batch: int) -> Iterator[Result]:
    """Results of questions whose answers are generated."""
    room = model.engine.context - task.max_new_tokens + 1
    if room < 1:
        raise InputError(
            f"an answer of up to {task.max_new_tokens} tokens exceeds the model's {model.engine.context} positions. "
            "Use a model with more positions."
        )
    prompts = [model.encode_prompt(question.context.rstrip(" ")) for question in group]
    kept = [ids[-room:] for ids in prompts]
    if task.kind == "text":
        texts = [search(model, ids, BEAM_WIDTH, LENGTH_PENALTY, task.max_new_tokens, ["\n"]) for ids in kept]
    else:
        options = SamplingOptions(temperature=0, max_new_tokens=task.max_new_tokens, stop=["\n"], seed=0)
        texts = [made.text for made in GenerationRequest(model, kept, options, batch).complete()]
    for question, ids, text in zip(group, prompts, texts, strict=True):
        yield judge_text(task, question, text, max(0, len(ids) - room))


def search(
    model: LanguageModel,
    ids: Sequence[int],
    width: int,
    length_penalty: float,
    max_new_tokens: int,
    stop: Sequence[str],
) -> str:
    """The best continuation by beam search, up to the first of the texts in `stop`."""
    best, _ = beam_search(
        model.engine,
        ids,
        width=width,
        length_penalty=length_penalty,
        max_new_tokens=max_new_tokens,
        ends=model.ends,
        stop=lambda made: any(end in model.text_of(made) for end in stop),
    )[0]
    text = model.text_of(best)
    return text[: min((text.find(end) for end in stop if end in text), default=len(text))]
