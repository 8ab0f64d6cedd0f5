"""Options of `gpt3 serve`. Nothing heavy is imported here."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from gpt3.options import DType, Options, Quantize, is_loopback, option
from gpt3.tables import counted

KEY_VARIABLE = "GPT3_API_KEY"
ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://[^\s/?#@,]+", re.IGNORECASE)
"""What a browser sends as Origin, or * for all."""


@dataclass(frozen=True)
class ServeOptions(Options):
    """Serve a model over HTTP: OpenAI's completions API, chat, metrics, and the Playground at /."""

    model: list[str] = option([], group="Model", common=True)
    """Model or run folders, names of runs in ./runs, hub ids, or starter; one or several. Default: newest run, else starter."""
    name: list[str] = option([])
    """The models' ids in the API, in the order of --model. Default: the names of their runs or folders."""
    host: str = option("127.0.0.1", group="Address and access", common=True)
    """Address to listen on. 0.0.0.0 is every network of this machine, and needs a key."""
    port: int = option(8000, least=0, most=65535, common=True)
    """Port to listen on; 0 takes a free one."""
    api_key: str | None = option(None, common=True)
    """Key that clients must send as "Authorization: Bearer KEY". Default: GPT3_API_KEY of the environment, else none."""
    unprotected: bool = option(False)
    """Listen beyond this machine without a key: anyone who reaches the port can use the model."""
    allow_origin: list[str] = option([])
    """Origins whose web pages may use the server, such as https://example.org; "*" is all. Default: none."""
    slots: int = option(16, least=1, group="Limits", common=True)
    """Texts generated in parallel for each model; each has a cache of the model's whole context."""
    queue: int = option(64, least=0)
    """Requests to a model that may wait for a slot; the next one gets status 429."""
    prompt_tokens: int = option(256, least=1)
    """Tokens of prompts read per step: fewer keep running texts more even, more read prompts faster."""
    timeout: float = option(600.0, above=0)
    """Seconds a request may take, waiting included."""
    grace: float = option(30.0, least=0)
    """Seconds that running requests get to finish after Ctrl-C or SIGTERM."""
    max_body: int = option(1_000_000, least=1)
    """Bytes in a request's body at most."""
    max_samples: int = option(128, least=1)
    """Texts one request may ask for: prompts times best_of (or n)."""
    access_log: bool = option(False)
    """Print a line on standard error for each request."""
    device: str = option("auto", group="Hardware", common=True)
    """auto (CUDA, then MPS, then CPU), cpu, cuda, cuda:N or mps."""
    dtype: DType = option("auto")
    """Number format of the weights; auto: on CUDA bf16, or fp16 where it lacks that; else fp32. A CPU computes in fp32."""
    quantize: Quantize = option("none")
    """none; int8 or int4: 8- or 4-bit weights, made at load; int4 for CPUs."""
    threads: str = option("auto")
    """CPU threads: auto adapts to what else the machine does; a number is fixed."""

    @property
    def key(self) -> str | None:
        """The key clients must send, if any."""
        return self.api_key if self.api_key is not None else (os.environ.get(KEY_VARIABLE) or None)

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches the server."""
        return is_loopback(self.host)

    @property
    def extensible(self) -> bool:
        """Whether models can be loaded while it serves: it is not bound to some, and not open to strangers."""
        return not self.model and (self.loopback or self.key is not None)

    def errors(self) -> Iterator[str]:
        """As Options'."""
        if self.key is not None and not (self.key.isascii() and self.key.isprintable() and self.key):
            source = KEY_VARIABLE if self.api_key is None else "--api-key"
            yield f"{source} is empty or has other than printable ASCII characters. Use letters, digits and signs"
        count = max(1, len(self.model))
        if self.name and len(self.name) != count:
            yield f"--name gives {counted(len(self.name), 'name')} for {counted(count, 'model')}. Give one for each, or none"
        for origin in self.allow_origin:
            if not ORIGIN.fullmatch(origin):
                yield f"--allow-origin {origin} is not an origin. Use one such as https://example.org, without a path"
        if not self.loopback and self.key is None and not self.unprotected:
            yield f"--host {self.host} is open to other machines, but there is no key. Use --api-key, or --unprotected"
