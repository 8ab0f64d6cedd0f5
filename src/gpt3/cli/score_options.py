"""What a user may ask of ``gpt3 score``. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from gpt3.errors import InputError
from gpt3.inference.options import DTYPES, DType

Color = Literal["auto", "always", "never"]
Quantize = Literal["none", "int8"]
COLORS: tuple[str, ...] = get_args(Color)
FORMATS: tuple[str, ...] = get_args(Quantize)


@dataclass(frozen=True)
class ScoreOptions:
    """How well a model predicts texts: loss, perplexity and bits per byte, in all and token by token."""

    files: list[str] = field(default_factory=list)
    """UTF-8 text files, each a document of its own; "-" is standard input."""
    text: str | None = None
    """A text to score, beside or in place of files."""
    model: str | None = None
    """A model folder, a run folder, a run's name in ./runs, or a hub id. Default: the newest run in ./runs."""
    context: int | None = None
    """Tokens the model sees at a time, 1 and up. Default: all its positions."""
    stride: int | None = None
    """Tokens from one window to the next, 1 up to the context: smaller is slower and more exact. Default: half the context."""
    json: bool = False
    """Print one JSON object a line and text in place of a table, and one of the total where there are several."""
    tokens: bool = False
    """With --json: every token with its text, place, log-probability, rank and the five likeliest tokens there."""
    html: str | None = None
    """Write the texts, coloured by probability, into this HTML file, which needs no network."""
    color: Color = "auto"
    """Show the texts coloured in the terminal. auto: on a terminal, where they have up to 1,000 tokens together."""
    device: str = "auto"
    """auto (CUDA, then MPS, then CPU), cpu, cuda, cuda:N or mps."""
    dtype: DType = "auto"
    """Number format of weights and arithmetic. auto: bf16 on CUDA that has it, fp32 elsewhere."""
    quantize: Quantize = "none"
    """Weights as they are, or int8 with a scale for each channel."""

    def __post_init__(self) -> None:
        found: list[str] = []
        if not self.files and self.text is None:
            found.append("nothing to score; give text files, - for standard input, or --text")
        if self.files.count("-") > 1:
            found.append("standard input (-) is given twice; it can be read once")
        if self.context is not None and self.context < 1:
            found.append(f"--context is {self.context}; give a whole number from 1, or leave it out for all positions")
        if self.stride is not None and self.stride < 1:
            found.append(f"--stride is {self.stride}; give a whole number from 1 to the context")
        if self.context is not None and self.stride is not None and self.stride > self.context >= 1:
            found.append(
                f"--stride {self.stride} is more than --context {self.context}; tokens between would be left out"
            )
        if self.tokens and not self.json:
            found.append("--tokens is given without --json, which it belongs to; add --json, or --html FILE for a page")
        if self.json and self.color == "always":
            found.append("--json and --color always are both given; give one of them")
        if self.html is not None and (not self.html or Path(self.html).is_dir()):
            found.append(f"--html {self.html or repr(self.html)} is no file's name; give one such as score.html")
        for name, allowed in (("color", COLORS), ("dtype", DTYPES), ("quantize", FORMATS)):
            if getattr(self, name) not in allowed:
                found.append(f"--{name} is {getattr(self, name)!r}; give one of {', '.join(allowed)}")
        if found:
            raise InputError("; ".join(found))
