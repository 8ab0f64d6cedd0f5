"""How far what was written is from the model: the largest difference of logits, on inputs that reach beyond every window."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.activations import ACT2FN

from gpt3.errors import RunError, install_command
from gpt3.export.llama_cpp import LlamaCpp
from gpt3.model import GPT3Config
from gpt3.tokenizer.encoder import HARD_TEXTS

LARGEST = 1e-3  # difference of a logit that rounding may make in float32
PROBE_TOKENS = 512  # of a model without banded layers
PROMPT_TOKENS = 64  # of the prompt whose next token's probabilities llama.cpp is asked for
SHOWN_CHARACTERS = 40  # of a text that llama.cpp splits differently


@dataclass(frozen=True)
class Difference:
    """Logits of the export compared with those of the model, on the same tokens."""

    largest: float
    """The largest difference of two logits."""
    spread: float
    """Standard deviation of the model's logits, for measure."""
    same: float
    """Share of positions where both hold the same token likeliest."""
    positions: int
    """How many positions were compared."""

    def __str__(self) -> str:
        return (
            f"largest logit difference {self.largest:.2g} (their spread: {self.spread:.2g}), "
            f"the same likeliest token at {self.same:.1%} of {self.positions:,} positions"
        )


def probe(config: GPT3Config, context: int, rows: int) -> Tensor:
    """Random ids, (1, T): T reaches over two windows where the context does."""
    length = min(context, max(PROBE_TOKENS, 2 * config.sliding_window + 32))
    return torch.randint(rows, (1, length), generator=torch.Generator().manual_seed(3))


def logits(model: Any, ids: Tensor, rows: int) -> Tensor:
    """(1, T, rows), float32, computed without a gradient."""
    with torch.no_grad():
        return model(ids).logits[..., :rows].float()


@contextmanager
def tanh_gelu(model: Any) -> Iterator[None]:
    """The model with GELU by tanh (Hendrycks and Gimpel 2016), as GPT-2's code and llama.cpp have it, in place of its own."""
    kept = [block.mlp.act for block in model.transformer.h]
    try:
        for block in model.transformer.h:
            block.mlp.act = ACT2FN["gelu_new"]
        yield
    finally:
        for block, act in zip(model.transformer.h, kept, strict=True):
            block.mlp.act = act


def difference(ours: Tensor, theirs: Tensor) -> Difference:
    """Measure `theirs` against `ours`, both (1, T, rows)."""
    same = (ours.argmax(-1) == theirs.argmax(-1)).float().mean()
    largest = float((ours - theirs).abs().max())
    return Difference(largest, float(ours.std()), float(same), ours.shape[1])


def check(found: Difference, dtype: str, what: str) -> None:
    """Refuse an export in the number format `dtype` that is too far from the model.

    Raises:
        RunError: beyond what rounding makes, or not a number.
    """
    bound = LARGEST if dtype == "f32" else max(found.spread, LARGEST)
    if not found.largest <= bound:
        raise RunError(
            f"{what} differs from the model: {found}. At most {bound:g} is rounding, so nothing was written. "
            "Use the model folder itself, which loads in Transformers with trust_remote_code=True"
        )


def comparison_line(path: Path, model: Any, tokenizer: Any, ids: Any, rows: int, context: int) -> str:
    """How llama.cpp, where it is installed, differs from the model: the next token's probabilities, and token ids.

    Args:
        path: the exported GGUF file.
        ids: a prompt, (1, T).
        rows: ids that are compared.
    """
    if importlib.util.find_spec("xllamacpp") is None:
        return f"llama.cpp itself was not asked; for that: {install_command('llama-cpp')}"
    prompt = ids[:, : min(PROMPT_TOKENS, context - 1) or 1]
    ours = logits(model, prompt, rows)[0, -1].log_softmax(-1)
    with LlamaCpp(path, context=context) as llama:
        theirs = torch.tensor(llama.log_probabilities(prompt[0].tolist(), rows))
        other = [text for text in HARD_TEXTS if llama.tokenize(text) != tokenizer(text)["input_ids"]]
    largest = float((ours - theirs).abs().max())
    ids_line = f"the same token ids on {len(HARD_TEXTS)} hard texts"
    if other:
        shown = other[0][:SHOWN_CHARACTERS]
        ids_line = f"OTHER token ids on {len(other)} of {len(HARD_TEXTS)} hard texts, the first {shown!a}"
    return f"llama.cpp itself: largest difference of a token's log-probability {largest:.2g}; {ids_line}"
