"""`gpt3 generate --input`: many prompts continued, one line of JSON per sample, in their order.

Prompts are taken in groups of GROUP_BATCHES x --batch samples, each group a request of its own. After a kill, a group of which
lines are missing is computed again from its beginning, and the lines that are there are not written twice: every sample is
computed together with the same others as without the kill, so that the file is the same to the last byte.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gpt3.inference.decoding import Draft
from gpt3.inference.generation import Generation, GenerationRequest
from gpt3.inference.language_model import LanguageModel
from gpt3.inference.options import SamplingOptions
from gpt3.inference.prompt_list import Prompt
from gpt3.progress import Progress

GROUP_BATCHES = 8
"""More of them: fewer moments at which the last samples of a group are generated with empty slots."""
TIMES = ("seconds", "first_token_seconds", "tokens_per_second")
"""Fields of a sample that a second run would not repeat; they are not in the lines."""


@dataclass
class Tally:
    """What was done, for the closing message."""

    samples: int = 0
    tokens: int = 0
    seconds: float = 0.0
    at_limit: int = 0
    """Samples that --max-new-tokens ended."""
    dropped: int = 0
    """Prompts longer than the context."""
    restarted: int = 0
    """Samples that outgrew the context."""
    drafted: int = 0
    accepted: int = 0
    first_token: float | None = None
    """Seconds from the start of the first group to its first token."""


def continue_all(
    model: LanguageModel,
    prompts: Sequence[Prompt],
    options: SamplingOptions,
    *,
    batch: int,
    write: Callable[[list[dict[str, Any]]], None],
    done: int = 0,
    new_draft: Callable[[], Draft | None] = lambda: None,
    new_request: Callable[[], None] = lambda: None,
    first_token: Callable[[], None] = lambda: None,
) -> Tally:
    """Continue prompts and write each sample when it and those before it are complete.

    Args:
        options: with a seed.
        batch: samples in parallel.
        write: takes records in order, one per sample.
        done: samples from the beginning that are written already.
        new_draft: makes the draft of a group's request.
        new_request, first_token: called before each group, and as soon as there is a token.
    """
    count = options.num_samples
    group = max(1, GROUP_BATCHES * batch // count)
    tally = Tally()
    began = time.perf_counter()
    with Progress("generate", len(prompts), "prompts", start=done // count) as progress:
        for start in range(done // (group * count) * group, len(prompts), group):
            part = prompts[start : start + group]
            new_request()
            texts = [prompt.text for prompt in part]
            request = GenerationRequest(model, texts, options, batch, new_draft(), first=start)
            for samples in _in_order(request, max(0, done - start * count), len(part) * count, first_token):
                write([record(sample, part[sample.prompt_index - start].id) for sample in samples])
                tally.samples += len(samples)
                tally.tokens += sum(sample.token_count for sample in samples)
                tally.at_limit += sum(sample.finish_reason == "length" for sample in samples)
                tally.restarted += sum(sample.restarts > 0 for sample in samples)
                tally.seconds = time.perf_counter() - began
                speed = f"{tally.tokens / tally.seconds:,.0f} tokens/s"
                progress.update((samples[-1].prompt_index * count + samples[-1].index + 1) // count, speed)
            drafted, accepted = request.accepted()
            tally.drafted, tally.accepted = tally.drafted + drafted, tally.accepted + accepted
            tally.dropped += sum(dropped > 0 for dropped in request.dropped)
            if tally.first_token is None:
                tally.first_token = min(sample.first_token_seconds for sample in request.results())
    return tally


def record(sample: Generation, name: str | int | None) -> dict[str, Any]:
    """A sample as a line holds it: the prompt's id first, where it has one, and no times."""
    values = {key: value for key, value in sample.as_dict().items() if key not in TIMES}
    return values if name is None else {"id": name, **values}


def _in_order(
    request: GenerationRequest, first: int, total: int, first_token: Callable[[], None]
) -> Iterator[list[Generation]]:
    """Samples from `first` on as they become complete, by number; several at a time where they waited for one before them."""
    for _ in request:
        first_token()
        complete = []
        while first < total and request.finished(first):
            complete.append(request.result(first))
            first += 1
        if complete:
            yield complete
        if first == total:
            return
    if first < total:  # the last ones ended without text
        yield [request.result(number) for number in range(first, total)]
