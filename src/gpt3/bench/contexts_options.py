"""What `gpt3 bench contexts` can be told."""

from __future__ import annotations

from dataclasses import dataclass, field

from gpt3.bench.generate_options import FORMATS
from gpt3.errors import InputError

MOST_STEPS = 64
"""A cache gives back so many tokens at least (gpt3.inference.engine.ROLLBACK)."""


@dataclass(frozen=True)
class BenchContextsOptions:
    """Time a token, and weigh its cache, as the context grows: the paper's banded layers against all-dense ones."""

    model: str = "125M"
    """A preset of `gpt3 ladder`; random weights, positions enlarged to the longest context."""
    contexts: list[int] = field(default_factory=lambda: [256, 512, 1024, 2048, 4096, 8192])
    """Tokens held when the timed ones are written."""
    weights: str = "fp32"
    """Their format: fp32, fp16, bf16, int8."""
    steps: int = 16
    """Timed tokens a round at each context."""
    rounds: int = 3
    """Rounds; banded and dense take turns in each."""
    threads: int | None = None
    """Default: as many as torch takes, the physical cores."""
    out: str | None = None
    """Draw the curves into this SVG file."""
    seed: int = 1337
    """Of the weights and the tokens."""
    json: bool = False
    """Print one JSON object in place of the table."""

    def __post_init__(self) -> None:
        from gpt3.ladder.presets import preset

        problems = []
        try:
            preset(self.model)
        except InputError as error:
            problems.append(f"--model: {error}")
        if not 1 <= self.steps <= MOST_STEPS:
            problems.append(f"--steps {self.steps} must be from 1 to {MOST_STEPS}")
        for name in ("rounds", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                problems.append(f"--{name} {value} must be at least 1")
        for context in self.contexts or [0]:
            if context <= self.steps:
                problems.append(f"--contexts {context} must be more than --steps {self.steps}")
        if self.weights not in FORMATS:
            problems.append(f"--weights {self.weights!r} is unknown; choose from {', '.join(FORMATS)}")
        if problems:
            raise InputError("; ".join(problems))
