"""How well a model predicts held-out documents: loss, perplexity, bits per byte."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from gpt3.corpus.sampler import validation_windows
from gpt3.corpus.shards import TokenSplit
from gpt3.model import GPT3ForCausalLM
from gpt3.training.device import Compute

IGNORED = -100


@dataclass(frozen=True)
class Score:
    """Means over the predicted tokens of held-out text."""

    loss: float
    """Nats a token, end-of-text tokens included."""
    perplexity: float
    """exp(loss)."""
    bits_per_byte: float
    """All nats over ln 2 and over the UTF-8 bytes of the text, which makes tokenizers comparable. End-of-text tokens cost
    bits and count no bytes."""
    tokens: int
    """Tokens predicted."""


@torch.no_grad()
def validate(
    model: GPT3ForCausalLM,
    split: TokenSplit,
    compute: Compute,
    context: int,
    micro_batch: int,
    most_tokens: int | None = None,
) -> Score:
    """Score `model` on `split`, every token predicted once, in windows of `context` that follow one another.

    Args:
        most_tokens: stop after about this many tokens; None reads the whole split.
    """
    was_training = model.training
    model.eval()
    nats = torch.zeros((), dtype=torch.float64)
    seen = 0
    try:
        for inputs, targets in _batches(split, context, micro_batch):
            valid = int((targets != IGNORED).sum())
            with compute.autocast():
                output = model(
                    input_ids=inputs.to(compute.device),
                    shift_labels=targets.to(compute.device),
                    skip_logits=True,
                    use_cache=False,
                )
            nats += output.loss.double().cpu() * valid
            seen += valid
            if most_tokens is not None and seen >= most_tokens:
                break
    finally:
        model.train(was_training)
    loss = float(nats) / seen
    # text bytes of the part that was read, by the split's mean bytes per token when it was not read whole
    text_bytes = split.text_bytes * (seen / max(1, len(split) - 1))
    return Score(loss, math.exp(min(loss, 700.0)), float(nats) / math.log(2) / text_bytes, seen)


def _batches(split: TokenSplit, context: int, micro_batch: int):  # type: ignore[no-untyped-def]
    """Pairs of (inputs, targets), each (B, context) int64; what is beyond the split's end is ignored."""
    inputs: list[torch.Tensor] = []
    targets: list[torch.Tensor] = []
    for window, valid in validation_windows(split, context):
        tokens = torch.from_numpy(window)  # (context + 1,)
        target = tokens[1:].clone()
        target[valid:] = IGNORED
        inputs.append(tokens[:-1])
        targets.append(target)
        if len(inputs) == micro_batch:
            yield torch.stack(inputs), torch.stack(targets)
            inputs, targets = [], []
    if inputs:
        yield torch.stack(inputs), torch.stack(targets)
