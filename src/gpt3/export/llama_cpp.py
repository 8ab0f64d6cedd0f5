"""llama.cpp itself, through the `xllamacpp` package: what the program that will run a GGUF file makes of it."""

from __future__ import annotations

import json
import math
import os
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gpt3.errors import require


class LlamaCpp:
    """A GGUF file loaded in llama.cpp, on the CPU.

    Args:
        path: the file.
        context: tokens that a slot must hold; rounded up to a multiple of 256, as llama.cpp does.
        threads: for prompts and for generation.
        exact: keys and values cached in f32 instead of llama.cpp's f16.
        slots: sequences at a time.

    Raises:
        InputError: `xllamacpp` is not installed.
        RuntimeError: llama.cpp does not load the file.
    """

    def __init__(self, path: Path | str, *, context: int, threads: int = 1, exact: bool = True, slots: int = 1) -> None:
        llama = require("xllamacpp", extra="llama-cpp", purpose="running llama.cpp")
        parameters = llama.CommonParams()
        parameters.model.path = str(path)
        parameters.n_ctx = slots * 256 * math.ceil(context / 256)
        parameters.n_parallel = slots
        parameters.cache_ram_mib = 0
        parameters.n_gpu_layers = 0
        parameters.warmup = False
        parameters.fit_params = False
        parameters.verbosity = -1
        if exact:
            parameters.cache_type_k = parameters.cache_type_v = llama.ggml_type.GGML_TYPE_F32
            parameters.flash_attn_type = llama.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        parameters.cpuparams.n_threads = threads
        parameters.cpuparams_batch.n_threads = threads
        with silent():
            self.server = llama.Server(parameters)
        self._serves = False
        """Whether its loop is known to run: a server that is closed before that never ends."""

    def __enter__(self) -> LlamaCpp:
        return self

    def __exit__(self, *exception: object) -> None:
        if not self._serves:
            self.complete([0], n_predict=1)
        with silent():
            del self.server  # it closes the file, which some systems do not rename before

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """Ids of `text`; with `special`, what spells a special token is that token."""
        return self._post("/tokenize", {"content": text, "add_special": False, "parse_special": special})["tokens"]

    def log_probabilities(self, prompt: Sequence[int], rows: int) -> list[float]:
        """Natural logarithms of the next token's probabilities, by id, of the model's own logits."""
        # The server leaves out the probabilities of half a character and of the end: so it is made to say "a". They are
        # those before this bias.
        (plain,) = self.tokenize("a")
        answer = self.complete(prompt, n_predict=1, n_probs=rows, logit_bias=[[plain, 1000.0]])
        (entry,) = answer["completion_probabilities"]
        values = [-math.inf] * rows
        for other in entry["top_logprobs"]:
            values[other["id"]] = other["logprob"]
        return values

    def complete(self, prompt: Sequence[int], **options: Any) -> dict[str, Any]:
        """The answer of llama.cpp's server to a completion request with these options; greedy unless they say otherwise."""
        defaults = {"temperature": -1.0, "repeat_penalty": 1.0, "cache_prompt": True}  # below 0: greedy
        answer: dict[str, Any] = self._post("/completion", {"prompt": list(prompt), **defaults, **options})
        self._serves = True
        return answer

    def _post(self, place: str, content: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            self.server.listening_address + place, json.dumps(content).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as answer:
            return json.loads(answer.read())


@contextmanager
def silent() -> Iterator[None]:
    """Nothing that C code prints inside is seen."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        yield
    finally:
        for number, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number)
            os.close(copy)
        os.close(nowhere)
