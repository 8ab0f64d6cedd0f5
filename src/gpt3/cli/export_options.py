"""What a user may ask of ``gpt3 export``. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gpt3.errors import InputError

DTYPES = {
    "gguf": ("f32", "f16", "bf16", "q8_0"),
    "gpt2": ("f32", "f16", "bf16"),
    "gpt-neo": ("f32", "f16", "bf16"),
}


@dataclass(frozen=True)
class ExportOptions:
    """Write a model in the form other programs run: GGUF for llama.cpp and LM Studio, stock GPT-2 or GPT-Neo for the rest."""

    format: Literal["gguf", "gpt2", "gpt-neo"]
    """gguf: one file for llama.cpp; gpt2, gpt-neo: a folder for transformers' own classes, no remote code (docs/export.md)."""
    out: str
    """The file (gguf) or folder (gpt2, gpt-neo) to write; an earlier export there is replaced."""
    model: str | None = None
    """A model folder, a run folder, a run's name in ./runs, or a hub id. Default: the newest run in ./runs."""
    dtype: Literal["f32", "f16", "bf16", "q8_0"] = "f32"
    """Number format of the weights; q8_0 (8 bits, a scale for each 32) in gguf only, where norms, biases, positions stay f32."""
    context: int | None = None
    """Longest context in tokens. Default: the model's; for gguf of a model with banded layers, no more than their window."""
    verify: Literal["yes", "no"] = "yes"
    """Reload what was written in the target's own class and compare logits before it counts as done."""

    def __post_init__(self) -> None:
        errors = []
        if self.dtype not in DTYPES[self.format]:
            others = ", ".join(DTYPES[self.format])
            errors.append(f"--dtype {self.dtype} is not for --format {self.format}; give one of {others}")
        if self.context is not None and self.context < 1:
            errors.append(f"--context is {self.context}; give a whole number from 1")
        if self.format == "gguf" and not self.out.endswith(".gguf"):
            errors.append(f"--out {self.out} is no name of a GGUF file; end it in .gguf")
        if self.format == "gguf" and Path(self.out).is_dir():
            errors.append(f"--out {self.out} is a folder; name a file")
        if errors:
            raise InputError("; ".join(errors))
