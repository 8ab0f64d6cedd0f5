"""What `gpt3 bench formats` can be told."""

from __future__ import annotations

from dataclasses import dataclass, field

from gpt3.bench.generate_options import FORMATS
from gpt3.errors import InputError


@dataclass(frozen=True)
class BenchFormatsOptions:
    """What each format of the weights changes on texts the model has not seen: bits per byte, greedy continuations, bytes."""

    text: list[str] = field(default_factory=list)
    """UTF-8 text files, each a document the model was not trained on."""
    model: str | None = None
    """A trained model folder, a run folder, a run's name in ./runs, or a hub id. Default: the newest run in ./runs."""
    formats: list[str] = field(default_factory=lambda: list(FORMATS[1:]))
    """Formats set against fp32: fp16, bf16, int8."""
    prompts: int = 100
    """Pieces of the texts that are continued greedily."""
    prompt_tokens: int = 32
    """Tokens of each."""
    new_tokens: int = 64
    """Tokens written to each."""
    seed: int = 1337
    """Of the places where prompts are cut out."""
    json: bool = False
    """Print one JSON object in place of the table."""

    def __post_init__(self) -> None:
        problems = []
        if not self.text:
            problems.append("no text to measure on; give files of held-out text")
        for name in ("prompts", "prompt_tokens", "new_tokens"):
            if getattr(self, name) < 1:
                problems.append(f"--{name.replace('_', '-')} {getattr(self, name)} must be at least 1")
        for value in self.formats or [""]:
            if value not in FORMATS[1:]:
                problems.append(f"--formats {value!r} is unknown; choose from {', '.join(FORMATS[1:])}")
        if problems:
            raise InputError("; ".join(problems))
