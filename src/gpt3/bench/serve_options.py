"""What `gpt3 bench serve` can be told."""

from __future__ import annotations

from dataclasses import dataclass, field

from gpt3.bench.generate_options import Contender
from gpt3.bench.options import parse_case
from gpt3.errors import InputError

FORMATS = ("fp32", "int8")
BACKGROUND_TOKENS = 512
"""Tokens that the texts which keep a server busy would become, so that none ends while a first token is timed."""


@dataclass(frozen=True)
class BenchServeOptions:
    """Time a server under clients that ask all at once: this package's over HTTP, its bare engine, and its peers."""

    cases: list[str] = field(default_factory=list)
    """MODEL:CLIENTSxPROMPT, such as 125M:32x32: clients that ask at the same moment, tokens of each prompt. Default: 125M and 17M
    at 1x32, 8x32 and 32x32."""
    formats: list[str] = field(default_factory=lambda: list(FORMATS))
    """Of this package's weights, and of llama.cpp's: fp32, int8 (llama.cpp: q8_0), or both. transformers is in fp32."""
    transformers: bool = True
    """Run transformers' continuous batching beside, in process."""
    llama_cpp: bool = False
    """Run llama.cpp's server beside, through the xllamacpp package: same shape and weights, but dense layers and tanh GELU."""
    new_tokens: int = 64
    """Tokens that are written to each client."""
    rounds: int = 3
    """Times every contender is started anew; they take turns."""
    threads: int | None = None
    """Of every contender; the clients' process shares these cores. Default: as many as torch takes, the physical cores."""
    seed: int = 1337
    """Of the weights and the prompts."""
    json: bool = False
    """Print one JSON object with every round's times in place of the table."""

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise InputError("; ".join(problems))

    def _problems(self):  # type: ignore[no-untyped-def]
        """Each thing wrong, with its value and the remedy."""
        from gpt3.ladder.presets import preset

        for name, least in (("rounds", 1), ("new_tokens", 2), ("threads", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                yield f"--{name.replace('_', '-')} {value} must be at least {least}"
        for text in self.cases:
            try:
                case = parse_case(text)
            except InputError as error:
                yield str(error)
                continue
            positions = preset(case.model).context
            longest = max(self.new_tokens, BACKGROUND_TOKENS if case.batch > 1 else 0)
            if case.context + longest > positions:
                total = f"a prompt of {case.context:,} and {longest:,} new tokens"
                yield f"--cases {text}: {total} are more than the {positions:,} positions of {case.model}"
        for value in self.formats or [""]:
            if value not in FORMATS:
                yield f"--formats {value!r} is unknown; choose from {', '.join(FORMATS)}"

    def contenders(self) -> list[Contender]:
        """Who runs, in order of turn: those of one format next to each other."""
        found = []
        for weights in self.formats:
            found += [Contender(who, weights) for who in ("server", "engine", "one-at-a-time")]
            if self.llama_cpp:
                found.append(Contender("llama.cpp", weights))
        if self.transformers:
            found.append(Contender("transformers", "fp32"))
        return found
