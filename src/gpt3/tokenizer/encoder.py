"""Many documents to ids at once, for preparing data: the fastest library that gives the tokenizer's own ids.

`fastokens` encodes our byte-level BPEs some thirty times faster than `tokenizers` and returns flat buffers, no Python
integer per token. Where it is not installed, does not fit the tokenizer, or gives other ids on the probes below,
`tokenizers` does the work; the ids are the same.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer

from gpt3.tokenizer.gpt2 import repaired

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

log = logging.getLogger(__name__)

Flat = tuple[np.ndarray, np.ndarray]
# Each library reads its variable when its thread pool starts, once per process.
THREAD_VARIABLES = ("FASTOKENS_BPE_THREADS", "RAYON_NUM_THREADS")
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
PROBES = (
    "",
    *HARD_TEXTS,
    "they'LL \u1e9e\u017f\u212a \x00\ufffd \U0001d518\U0001d52b\U0001d526 \U00020000\U000e0001\U0010fffd",
    # letters that came with Unicode 15.1, 16 and 17, which tables of another year take for no letters
    "\U0002ebf0's \u1c89's \ua7cb's \U00010d50's \ua7ce's \U00032901's \U0003347a's",
)


class Encoder:
    """Turns lists of documents into flat arrays of ids, the tokenizer's own.

    Documents are text only: nothing is added, and what spells a special token is encoded letter by letter. Unpaired
    surrogates, which no UTF-8 file can hold, become U+FFFD. An Encoder can be pickled: it is rebuilt on arrival.

    Args:
        tokenizer: any; the fast path takes byte-level BPEs with GPT-2's split, `tokenizers` takes the rest.
        threads: None leaves it to the library (all cores). The libraries fix their number of threads once per process,
            so that the first Encoder of a process decides; worker processes should say 1.

    Attributes:
        library: what does the work, ``"fastokens"`` or ``"tokenizers"``.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, threads: int | None = None) -> None:
        self.tokenizer, self.threads = tokenizer, threads
        description, fits = _described(tokenizer.backend_tokenizer.to_str())
        with _thread_limit(threads):
            fast = _fastokens(tokenizer, description) if fits else None
            self.library = "fastokens" if fast else "tokenizers"
            self._encode = fast or _tokenizers(description)

    def __reduce__(self) -> tuple[type[Encoder], tuple[PreTrainedTokenizerFast, int | None]]:
        return Encoder, (self.tokenizer, self.threads)

    def encode_batch(self, texts: list[str]) -> Flat:
        """Encode `texts` in order.

        Returns:
            ids: (tokens,) uint32, all texts one after the other; read-only.
            lengths: (texts,) int64, how many of the ids each text has.
        """
        try:
            return self._encode(texts)
        except (TypeError, UnicodeEncodeError):
            if not all(isinstance(text, str) for text in texts):
                raise
            whole = [repaired(text) for text in texts]
            if whole == texts:  # no surrogate was the reason
                raise
            return self._encode(whole)


def _fastokens(tokenizer: PreTrainedTokenizerFast, description: str) -> Callable[[list[str]], Flat] | None:
    """The fast path, if it is installed and proves itself on the probes."""
    try:
        import fastokens
    except ImportError as error:
        _say_once(logging.INFO, f"fastokens is not available ({error}): tokenizing with tokenizers, slower, same ids")
        return None
    try:
        engine = _engine(fastokens.Tokenizer.from_json_str, description)
    except ValueError as error:
        _say_once(logging.WARNING, f"fastokens does not read this tokenizer ({error}): using tokenizers")
        return None

    def encode(texts: list[str]) -> Flat:
        ids, offsets = engine.encode_batch_flat(texts, split_special_tokens=True)
        return np.frombuffer(ids, "<u4"), np.diff(np.frombuffer(offsets, "<u8").astype(np.int64))

    # `split_special_tokens` is also what our tokenizers have for their own; a call with it leaves the default alone.
    alone = {"add_special_tokens": False, "split_special_tokens": True, "return_attention_mask": False}
    expected = tokenizer(list(PROBES), **alone)["input_ids"]
    ids, lengths = encode(list(PROBES))
    if ids.tolist() != list(chain.from_iterable(expected)) or lengths.tolist() != [len(each) for each in expected]:
        _say_once(logging.WARNING, "fastokens gives other ids than tokenizers for this tokenizer: using tokenizers")
        return None
    return encode


@lru_cache(maxsize=1)
def _engine(read: Callable[[str], Any], description: str) -> Any:
    """The last one is kept: GPT-2's takes 0.5 s to read, and a command may make several encoders."""
    return read(description)


@lru_cache(maxsize=1)
def _described(written: str) -> tuple[str, bool]:
    """A ``tokenizer.json`` without what an earlier call left set, which would cut documents; and whether the fast path takes it.

    The last one is kept, as its engine is.
    """
    settings = json.loads(written)
    settings["truncation"] = settings["padding"] = None
    return json.dumps(settings), _fits(settings)


def _fits(settings: dict[str, Any]) -> bool:
    """Whether a ``tokenizer.json`` is what the fast path is tested on: byte-level BPE, GPT-2's split, special tokens only."""
    model, split = settings["model"], settings.get("pre_tokenizer") or {}
    return (
        model.get("type") == "BPE"
        and not any(model.get(key) for key in ("dropout", "unk_token", "byte_fallback", "ignore_merges"))
        and not any(model.get(key) for key in ("continuing_subword_prefix", "end_of_word_suffix"))
        and settings.get("normalizer") is None
        and split.get("type") == "ByteLevel"
        and split.get("use_regex", True)
        and not split.get("add_prefix_space", True)
        and all(token["special"] for token in settings.get("added_tokens", []))
    )


def _tokenizers(description: str) -> Callable[[list[str]], Flat]:
    """The reference path, over a copy, so that nobody else's settings reach it."""
    backend = Tokenizer.from_str(description)
    backend.encode_special_tokens = True

    def encode(texts: list[str]) -> Flat:
        each = [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]
        lengths = np.fromiter(map(len, each), np.int64, len(each))
        return np.fromiter(chain.from_iterable(each), np.uint32, int(lengths.sum())), lengths

    encode(list(PROBES))  # starts the thread pool while the limit holds
    return encode


@contextmanager
def _thread_limit(threads: int | None) -> Iterator[None]:
    """Let thread pools that start inside have `threads` threads; the environment is as before afterwards."""
    before = {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES if threads else (), str(threads)))
    try:
        yield
    finally:
        for name in THREAD_VARIABLES:
            os.environ.pop(name, None)
        os.environ.update(before)


@cache
def _say_once(level: int, message: str) -> None:
    log.log(level, message)
