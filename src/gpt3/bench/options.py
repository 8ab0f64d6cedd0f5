"""What `gpt3 bench train` can be told."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from gpt3.errors import InputError

CONTENDERS = ("gpt3", "nanogpt", "transformers", "litgpt")
DTYPES = ("auto", "fp32", "bf16")


@dataclass(frozen=True)
class Case:
    """A model and the tokens of one step."""

    model: str
    """A preset of `gpt3 ladder`."""
    batch: int
    """Sequences in a step."""
    context: int
    """Tokens in a sequence."""

    def __str__(self) -> str:
        return f"{self.model}:{self.batch}x{self.context}"


@dataclass(frozen=True)
class BenchTrainOptions:
    """Time whole training steps of this package and of its peers: same shapes, same tokens, alternating rounds."""

    cases: list[str] = field(default_factory=list)
    """MODEL:BATCHxCONTEXT, such as 17M:12x512. Default: 17M:12x512 125M:1x2048; on CUDA 125M:16x2048 350M:16x2048."""
    dtype: list[str] = field(default_factory=lambda: ["auto"])
    """auto, fp32, bf16, or several: what every contender computes its matrix products in. auto: as `gpt3 train` chooses."""
    nanogpt: str | None = None
    """A checkout of github.com/karpathy/nanoGPT to run beside."""
    transformers: bool = True
    """Run transformers' GPT2LMHeadModel beside."""
    litgpt: bool = False
    """Run litGPT beside: from the Python of --litgpt-python, or from this one."""
    litgpt_python: str | None = None
    """A Python executable that imports litgpt (it implies --litgpt)."""
    compile: list[str] | None = None
    """Contenders to run through torch.compile: gpt3, nanogpt, transformers, litgpt, or none. Default: on CUDA all, else litgpt,
    whose own trainer always compiles (a CPU needs a C++ compiler for it)."""
    rounds: int = 3
    """Times every contender is started anew; they take turns."""
    steps: int = 5
    """Timed steps a round."""
    warmup: int = 2
    """Steps before them that do not count: they compile, and make the optimizer's state."""
    data: str | None = None
    """A shard folder to draw tokens from. Default: random ids, which cost the same."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    seed: int = 1337
    """Seed of the tokens and of the weights."""
    json: bool = False
    """Print one JSON object with every step's time in place of the tables."""

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise InputError("; ".join(problems))

    def _problems(self):  # type: ignore[no-untyped-def]
        """Each thing wrong, with its value and the remedy."""
        for name in ("rounds", "steps", "warmup"):
            if getattr(self, name) < 1:
                yield f"--{name} {getattr(self, name)} must be at least 1"
        for text in self.cases:
            try:
                parse_case(text)
            except InputError as error:
                yield str(error)
        for name in self.dtype:
            if name not in DTYPES:
                yield f"--dtype {name!r} is unknown; choose from {', '.join(DTYPES)}"
        if not self.dtype:
            yield f"--dtype is empty; choose from {', '.join(DTYPES)}"
        for name in self.compile or []:
            if name not in (*CONTENDERS, "none"):
                yield f"--compile {name!r} is unknown; choose from {', '.join(CONTENDERS)}, none"
        if self.nanogpt is not None and not (Path(self.nanogpt) / "model.py").is_file():
            yield f"--nanogpt {self.nanogpt} holds no model.py; clone github.com/karpathy/nanoGPT and give its folder"
        if self.litgpt_python is not None and not Path(self.litgpt_python).is_file():
            yield f"--litgpt-python {self.litgpt_python} is no file; give the Python executable of an environment with litgpt"

    def contenders(self) -> list[str]:
        """Who runs, in order of turn."""
        wanted = {
            "gpt3": True,
            "nanogpt": self.nanogpt is not None,
            "transformers": self.transformers,
            "litgpt": self.litgpt or self.litgpt_python is not None,
        }
        return [name for name in CONTENDERS if wanted[name]]

    def compiled(self, device: str) -> set[str]:
        """Which of them go through torch.compile on a device of this type."""
        if self.compile is None:
            return set(CONTENDERS) if device == "cuda" else {"litgpt"}
        return set(self.compile) - {"none"}


def parse_case(text: str) -> Case:
    """A case from ``MODEL:BATCHxCONTEXT``.

    Raises:
        InputError: it is written otherwise, or the model is unknown or has fewer positions.
    """
    from gpt3.ladder.presets import preset

    found = re.fullmatch(r"(.+):([1-9][0-9]*)x([1-9][0-9]*)", text)
    if not found:
        raise InputError(f"--cases {text!r} is not MODEL:BATCHxCONTEXT; write for example 17M:12x512")
    shape, context = preset(found[1]), int(found[3])
    if context > shape.context:
        raise InputError(f"--cases {text}: {shape.name} has {shape.context:,} positions, fewer than {context:,}")
    return Case(shape.name, int(found[2]), context)
