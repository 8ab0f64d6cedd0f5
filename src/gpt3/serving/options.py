"""What a user may ask of `gpt3 serve`. Nothing heavy is imported here."""

from __future__ import annotations

import ipaddress
import math
import os
from dataclasses import dataclass, field

from gpt3.errors import InputError
from gpt3.inference.options import DTYPES, QUANTIZE, DType
from gpt3.options import Quantize

KEY_VARIABLE = "GPT3_API_KEY"


@dataclass(frozen=True)
class ServeOptions:
    """Serve a model over HTTP: OpenAI's completions API, chat, metrics, and the Playground at /."""

    model: list[str] = field(default_factory=list)
    """Model folders, run folders, names of runs in ./runs, or hub ids: one or several. Default: the newest run in ./runs."""
    host: str = "127.0.0.1"
    """Address to listen at. 0.0.0.0 is every network this machine is in, and needs a key."""
    port: int = 8000
    """Port to listen at; 0 takes a free one."""
    api_key: str | None = None
    """What clients must send as "Authorization: Bearer KEY". Default: GPT3_API_KEY of the environment, else none."""
    unprotected: bool = False
    """Listen beyond this machine without a key: whoever reaches the port may use the model."""
    name: list[str] = field(default_factory=list)
    """The models' ids in the API, in the order of --model. Default: the names of their runs or folders."""
    device: str = "auto"
    """auto (CUDA, then MPS, then CPU), cpu, cuda, cuda:N or mps."""
    dtype: DType = "auto"
    """Number format of weights and arithmetic. auto: bf16 on CUDA that has it, fp32 elsewhere."""
    quantize: Quantize = "none"
    """Weights as they are, or int8 with a scale for each channel (on a CPU)."""
    slots: int = 16
    """Texts written side by side, of each model; each has a cache of the model's whole context."""
    queue: int = 64
    """Requests to a model that may wait for a slot; the next one is answered 429."""
    prompt_tokens: int = 256
    """Tokens of prompts read in one step: fewer keep the texts being written more even, more read prompts faster."""
    timeout: float = 600.0
    """Seconds a request may take, waiting included."""
    grace: float = 30.0
    """Seconds that requests get to finish after Ctrl-C or SIGTERM."""
    max_body: int = 1_000_000
    """Bytes of a request's body."""
    max_samples: int = 128
    """Texts one request may ask for: prompts times best_of (or n)."""
    access_log: bool = False
    """A line on standard error for each request."""

    def __post_init__(self) -> None:
        if found := self.errors():
            raise InputError("; ".join(found))

    @property
    def key(self) -> str | None:
        """The key clients must send, if any."""
        return self.api_key if self.api_key is not None else (os.environ.get(KEY_VARIABLE) or None)

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def errors(self) -> list[str]:
        """Every value out of its range, one clause each: name, value, remedy."""
        found = []
        if not 0 <= self.port <= 65535:
            found.append(f"--port is {self.port}; give 1 to 65535, or 0 for a free one")
        if self.key is not None and not (self.key.isascii() and self.key.isprintable() and self.key):
            source = KEY_VARIABLE if self.api_key is None else "--api-key"
            found.append(f"{source} is empty or not plain text; give ASCII characters without line ends")
        if self.name and len(self.name) != max(1, len(self.model)):
            found.append(
                f"--name gives {len(self.name)} names for {max(1, len(self.model))} models; give as many, or none"
            )
        for name in ("slots", "prompt_tokens", "max_body", "max_samples"):
            if getattr(self, name) < 1:
                found.append(f"--{name.replace('_', '-')} is {getattr(self, name)}; give a whole number from 1")
        if self.queue < 0:
            found.append(f"--queue is {self.queue}; give a whole number from 0")
        if not (self.timeout > 0 and math.isfinite(self.timeout)):
            found.append(f"--timeout is {self.timeout}; give seconds above 0")
        if not (self.grace >= 0 and math.isfinite(self.grace)):
            found.append(f"--grace is {self.grace}; give seconds from 0")
        for name, allowed in (("dtype", DTYPES), ("quantize", QUANTIZE)):
            if getattr(self, name) not in allowed:
                found.append(f"--{name} is {getattr(self, name)!r}; give one of {', '.join(allowed)}")
        if not self.loopback and self.key is None and not self.unprotected:
            found.append(
                f"--host {self.host} is open to other machines and no key is set; give --api-key, or --unprotected"
            )
        return found
