"""What `gpt3 bench generate` can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from gpt3.bench.options import parse_case
from gpt3.errors import InputError

FORMATS = ("fp32", "fp16", "bf16", "int8")
DECODINGS = ("greedy", "sampled")


class Contender(NamedTuple):
    """Who writes, with weights in which format."""

    who: str
    """gpt3, transformers, transformers-static, llama.cpp or nanogpt."""
    weights: str
    """fp32, fp16, bf16 or int8; llama.cpp's int8 is its q8_0."""


@dataclass(frozen=True)
class BenchGenerateOptions:
    """Time the writing of texts by this package and by its peers: same weights, same prompts, alternating rounds."""

    cases: list[str] = field(default_factory=list)
    """MODEL:BATCHxPROMPT, such as 125M:8x64: texts side by side, tokens of each prompt. Default: 125M and 17M at 1x64, 8x64 and
    32x64, 125M at 1x1536."""
    decode: list[str] = field(default_factory=lambda: ["greedy", "sampled"])
    """greedy, sampled (temperature 0.8, top-k 50), or both."""
    formats: list[str] = field(default_factory=lambda: list(FORMATS))
    """Of this package's weights, and of llama.cpp's: fp32, fp16, bf16, int8 (llama.cpp: q8_0). The other peers are in fp32."""
    transformers: bool = True
    """Run transformers' generate beside, with a dynamic and with a static cache."""
    llama_cpp: bool = False
    """Run llama.cpp beside, through the xllamacpp package: same shape and weights, but dense layers and tanh GELU."""
    nanogpt: str | None = None
    """A checkout of github.com/karpathy/nanoGPT to run beside: dense layers, no cache."""
    new_tokens: int = 256
    """Tokens that are written to each text."""
    rounds: int = 3
    """Times every contender is started anew; they take turns."""
    threads: int | None = None
    """Of every contender. Default: as many as torch takes, the physical cores."""
    seed: int = 1337
    """Of the weights, the prompts and the draws."""
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
            if case.context + self.new_tokens > positions:
                total = f"a prompt of {case.context:,} and {self.new_tokens:,} new tokens"
                yield f"--cases {text}: {total} are more than the {positions:,} positions of {case.model}"
        for name, values, known in (("decode", self.decode, DECODINGS), ("formats", self.formats, FORMATS)):
            for value in values or [""]:
                if value not in known:
                    yield f"--{name} {value!r} is unknown; choose from {', '.join(known)}"
        if self.nanogpt is not None and not (Path(self.nanogpt) / "model.py").is_file():
            yield f"--nanogpt {self.nanogpt} holds no model.py; clone github.com/karpathy/nanoGPT and give its folder"

    def contenders(self) -> list[Contender]:
        """Who runs, in order of turn: those of one format next to each other."""
        found = []
        for weights in self.formats:
            found.append(Contender("gpt3", weights))
            if self.llama_cpp:
                found.append(Contender("llama.cpp", weights))
        if self.transformers:
            found += [Contender("transformers", "fp32"), Contender("transformers-static", "fp32")]
        if self.nanogpt is not None:
            found.append(Contender("nanogpt", "fp32"))
        return found
