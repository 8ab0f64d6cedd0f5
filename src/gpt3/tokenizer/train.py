"""Train a byte-level BPE on your own text."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from gpt3.errors import InputError
from gpt3.tokenizer.gpt2 import alphabet, build, repaired, wrap

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

log = logging.getLogger(__name__)

SMALLEST_VOCABULARY = 257  # 256 bytes and end-of-text
MIN_PAIR_COUNT = 2  # a pair seen once makes a token that nothing trains


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE laid out as GPT-2's: 256 bytes, merges by rank, end-of-text last; GPT-2's split regex.

    Deterministic: the same texts give the same tokenizer. Training stops early when no pair of tokens occurs twice. The
    tokenizer is then smaller than requested, with a warning in the log; read its size with `len`.

    Args:
        texts: documents; each is read once, and they are never in memory together.
        vocab_size: ids in all, end-of-text included; at least 257.

    Raises:
        InputError: `vocab_size` is below 257, or the texts hold no text.
    """

    if vocab_size < SMALLEST_VOCABULARY:
        raise InputError(
            f"--vocab-size {vocab_size} is too small: 256 bytes and end-of-text need {SMALLEST_VOCABULARY}. Use at least that."
        )
    characters = 0

    def counted() -> Iterator[str]:
        nonlocal characters
        for text in texts:
            characters += len(text)
            yield text if text.isascii() else repaired(text)

    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,  # end-of-text comes on top
        min_frequency=MIN_PAIR_COUNT,
        initial_alphabet=[character for _, character in alphabet()],
        show_progress=False,
    )
    learner.train_from_iterator(counted(), trainer)
    if not characters:
        raise InputError("there is no text to train a tokenizer on: the data is empty. Use other --data.")
    # Rebuilt from the merges, so that the layout is GPT-2's whatever ids the library's trainer assigns.
    merges = [(left, right) for left, right in json.loads(learner.to_str())["model"]["merges"]]
    tokenizer = wrap(build(merges))
    if len(tokenizer) < vocab_size:
        log.warning("%d ids instead of %d: no other pair of tokens occurs twice", len(tokenizer), vocab_size)
    return tokenizer
