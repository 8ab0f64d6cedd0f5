"""A byte-level BPE of one's own: `train_tokenizer` in Python, ``gpt3 tokenizer train`` on the command line."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpt3.durable import check_room, replacing
from gpt3.errors import InputError
from gpt3.progress import Progress
from gpt3.tokenizer.bytelevel import alphabet, build, repaired, wrap

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

log = logging.getLogger(__name__)

SMALLEST_VOCABULARY = 257  # 256 bytes and end-of-text
MIN_PAIR_COUNT = 2  # a pair seen once makes a token that nothing trains
SAMPLE_CHARACTERS = 4_000_000
BYTES_PER_ID = 100  # of a tokenizer.json: GPT-2's has 30
TOKENIZER_FILES = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"}


@dataclass(frozen=True)
class TokenizerTrainOptions:
    """Train a byte-level BPE on your own text and save it as a tokenizer folder."""

    data: list[str]
    """What to learn from: wiki, fineweb, hf:owner/name, files, folders or globs; may be repeated."""
    vocab_size: int
    """Ids in all: 256 bytes, merges, end-of-text. GPT-3 has 50257; a small model on small data wants 2000 to 8000."""
    out: str
    """The folder to write; a tokenizer that is there already is replaced."""


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE laid out as GPT-2's: 256 bytes, merges by rank, end-of-text last; GPT-2's split regex.

    Deterministic: the same texts give the same tokenizer. Merging ends early where no pair of tokens occurs twice any
    more; the tokenizer is then smaller than asked for, with a warning in the log: read its size with `len`.

    Args:
        texts: documents; read once, never held together in memory.
        vocab_size: ids in all, end-of-text included; at least 257.

    Raises:
        InputError: `vocab_size` is below 257, or the texts hold no text.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    if vocab_size < SMALLEST_VOCABULARY:
        raise InputError(
            f"--vocab-size {vocab_size} is too small: 256 bytes and end-of-text need {SMALLEST_VOCABULARY}; give at least that"
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
        raise InputError("no text to train a tokenizer on: the data is empty; give other --data")
    # Built anew from the merges, so that the layout is GPT-2's whatever the library's trainer does with ids.
    merges = [(left, right) for left, right in json.loads(learner.to_str())["model"]["merges"]]
    tokenizer = wrap(build(merges))
    if len(tokenizer) < vocab_size:
        log.warning("%d ids of the %d asked for: no further pair of tokens occurs twice", len(tokenizer), vocab_size)
    return tokenizer


def run(options: TokenizerTrainOptions) -> Path:
    """``gpt3 tokenizer train``: read the data, train, write the folder whole or not at all, say what came out.

    Raises:
        InputError: a vocabulary too small, an `out` that holds something else, data that is missing or empty.
    """
    from gpt3.corpus.sources import open_sources

    out = Path(options.out)
    _check_out(out)
    check_room(out, BYTES_PER_ID * options.vocab_size, purpose="the tokenizer")
    parts = [part for source in open_sources(options.data) for part in source.parts()]
    sizes = [part.size for part in parts]
    total = None if None in sizes else sum(size for size in sizes if size is not None) / 1e6
    sample: list[str] = []  # the beginning of the data, to show what the tokenizer does

    with Progress("tokenizer: reading", total, "MB") as progress:

        def texts() -> Iterator[str]:
            missing = SAMPLE_CHARACTERS
            for part in parts:
                for text in part.read():
                    if missing > 0:
                        sample.append(text[:missing])
                        missing -= len(text)
                    yield text
                progress.advance((part.size or 0) / 1e6)
            progress.say("tokenizer: all read, merging")

        tokenizer = train_tokenizer(texts(), options.vocab_size)
    with replacing(out) as folder:
        tokenizer.save_pretrained(folder)
    print("\n".join(_report(tokenizer, options, sample)))
    return out


def _check_out(out: Path) -> None:
    """Refuse to replace anything but a tokenizer."""
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; name a folder")
    if out.is_dir() and (others := sorted({entry.name for entry in out.iterdir()} - TOKENIZER_FILES)):
        raise InputError(f"--out {out} holds other things ({', '.join(others[:3])}); name a new folder")


def _report(tokenizer: PreTrainedTokenizerFast, options: TokenizerTrainOptions, sample: list[str]) -> list[str]:
    """What the command prints: size, compression beside GPT-2's, an example."""
    from gpt3.tokenizer.encoder import Encoder
    from gpt3.tokenizer.gpt2 import gpt2_tokenizer

    size = len(tokenizer)
    size_line = f"{size:,} ids: 256 bytes, {size - SMALLEST_VOCABULARY:,} merges, end-of-text {tokenizer.eos_token_id}"
    if size < options.vocab_size:
        size_line += f" (fewer than the {options.vocab_size:,} asked for: no further pair of tokens occurs twice)"
    sample = [repaired(text) for text in sample]
    count = sum(len(text.encode("utf-8")) for text in sample)
    ours, gpt2 = (count / max(1, len(Encoder(each).encode_batch(sample)[0])) for each in (tokenizer, gpt2_tokenizer()))
    words = next((" ".join(text.split()) for text in sample if text.strip()), "")[:80]
    pieces = [str(tokenizer.decode([i])) for i in tokenizer(words)["input_ids"]]
    return [
        f"tokenizer saved in {options.out}",
        size_line,
        f"{ours:.2f} bytes per token on the first {count / 1e6:.1f} MB of the data (GPT-2's tokenizer: {gpt2:.2f})",
        f"example: {'|'.join(pieces)}",
    ]
