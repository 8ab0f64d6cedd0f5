"""llama.cpp itself, through the `xllamacpp` package: what the program that will run a GGUF file makes of it."""

from __future__ import annotations

import importlib.util
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

HARD_TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "  two spaces,   three, and a trailing one ",
    "tabs\tand\t\ttabs\n\n\nlines\r\n\r\n  indented\n",
    "    def f(x):\n        return x ** 2  # code\n",
    " \n \n\t \n",
    "I'll we've they're don't 'tis o'clock 's 'S \u2019s",
    "3.14159 1,000,000 0x1F 2026-11-25 \u0661\u0662\u0663 \u00bd\u2167",
    "na\u00efve caf\u00e9 e\u0301\u0323 \u0130\u0131\u017f\u1e9e",
    "你好，世界。こんにちは 안녕하세요 \u3000 สวัสดี",
    "Привет Ἐν ἀρχῇ שלום مرحبا नमस्ते",
    "\U0001f389\U0001f389 \U0001f468\u200d\U0001f469\u200d\U0001f467\U0001f3fd \U0001f1e9\U0001f1ea \u2603\ufe0f",
    "\u00a0no-break\u00a0\u00a0spaces\u2003em\u2028line\u0085next",
    "\x01\x02\x1b[0m\x7f\u00ad\u200b\ufeff",
    "<|endoftext|> spelled <|im_start|>",
    "!!!???...---___***((([[[{{{<<<>>>}}}]]])))",
    "a" * 200 + " " * 100 + "\n" * 50,
)
"""Texts that byte-level tokenizers disagree on: spaces, line ends, scripts, emoji, marks, control characters, special tokens."""
SHOWN_CHARACTERS = 40  # of a text that llama.cpp splits differently
PROMPT_TOKENS = 64  # of the prompt whose next token's probabilities are compared


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

    def __enter__(self) -> LlamaCpp:
        return self

    def __exit__(self, *exception: object) -> None:
        with silent():
            del self.server  # it closes the file, which some systems do not rename before

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """Ids of `text`; with `special`, what spells a special token is that token."""
        return self._post("/tokenize", {"content": text, "add_special": False, "parse_special": special})["tokens"]

    def greedy(self, prompt: Sequence[int], count: int) -> list[int]:
        """The `count` likeliest next tokens, each after those before; fewer, end-of-text the last, where it ends."""
        return self.complete(prompt, n_predict=count, return_tokens=True)["tokens"]

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

    def log_probability(self, prompt: Sequence[int], token: int, rows: int) -> float:
        """That of one token being next, in nats; without the list of all, where it can be had so."""
        answer = self.complete(prompt, n_predict=1, n_probs=1, logit_bias=[[token, 1000.0]])
        if entries := answer.get("completion_probabilities"):
            return entries[0]["logprob"]
        return self.log_probabilities(prompt, rows)[token]

    def complete(self, prompt: Sequence[int], **options: Any) -> dict[str, Any]:
        """The answer of llama.cpp's server to a completion request with these options; greedy unless they say otherwise."""
        defaults = {"temperature": -1.0, "repeat_penalty": 1.0, "cache_prompt": True}  # below 0: greedy
        return self._post("/completion", {"prompt": list(prompt), **defaults, **options})

    def _post(self, place: str, content: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            self.server.listening_address + place, json.dumps(content).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as answer:
            return json.loads(answer.read())


@contextmanager
def silent() -> Iterator[None]:
    """Nothing that C code prints meanwhile is seen."""
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


def comparison_line(path: Path, model: Any, tokenizer: Any, ids: Any, rows: int, context: int) -> str:
    """How llama.cpp, where it is installed, differs from the model: the next token's probabilities, and token ids.

    Args:
        path: the exported GGUF file.
        ids: a prompt, (1, T).
        rows: ids that are compared.
    """
    if importlib.util.find_spec("xllamacpp") is None:
        return "llama.cpp itself was not asked: pip install 'gpt3[llama-cpp]' for that"
    import torch

    from gpt3.export.comparison import logits

    prompt = ids[:, : min(PROMPT_TOKENS, context - 1) or 1]
    ours = logits(model, prompt, rows)[0, -1].log_softmax(-1)
    with LlamaCpp(path, context=context) as llama:
        theirs = torch.tensor(llama.log_probabilities(prompt[0].tolist(), rows))
        other = [text for text in HARD_TEXTS if llama.tokenize(text) != tokenizer(text)["input_ids"]]
    largest = float((ours - theirs).abs().max())
    ids_line = f"the same token ids on {len(HARD_TEXTS)} hard texts"
    if other:
        shown = other[0][:SHOWN_CHARACTERS]
        ids_line = f"OTHER token ids on {len(other)} of {len(HARD_TEXTS)} hard texts, the first {shown!a}"
    return f"llama.cpp itself: largest difference of a token's log-probability {largest:.2g}; {ids_line}"
