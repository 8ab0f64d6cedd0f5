"""``gpt3 tokenizer train``: open the data, train a byte-level BPE on it, write it as a tokenizer folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpt3.corpus.sources import open_sources
from gpt3.durable import check_room, replacing
from gpt3.model_folder.locate import TOKENIZER_FOLDER
from gpt3.options import Options
from gpt3.progress import Progress
from gpt3.tokenizer.gpt2 import gpt2_tokenizer, repaired
from gpt3.tokenizer.train import SMALLEST_VOCABULARY, train_tokenizer
from gpt3.work_folder import check_out

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SAMPLE_CHARACTERS = 4_000_000
BYTES_PER_ID = 100  # of a tokenizer.json: GPT-2's has 30
TOKENIZER_FILES = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"}


@dataclass(frozen=True)
class TokenizerTrainOptions(Options):
    """Train a byte-level BPE on your own text and save it as a tokenizer folder."""

    data: list[str]
    """Text to train on: the same sources as `gpt3 prepare --data`."""
    vocab_size: int
    """Ids in all: 256 bytes, merges, end-of-text. GPT-3 has 50257; small models and data need 2000 to 8000."""
    out: str
    """Folder to write; an existing tokenizer in it is replaced."""
    overwrite: bool = False
    """Replace a tokenizer folder of another program, too."""


def run(options: TokenizerTrainOptions) -> Path:
    """Read the data, train, write the folder whole or not at all, and print what came out.

    Raises:
        InputError: the vocabulary is too small, `out` holds other files, or the data is missing or empty.
    """

    out = Path(options.out)
    check_out(out, TOKENIZER_FILES, overwrite=options.overwrite, kind=TOKENIZER_FOLDER)
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
            progress.say("tokenizer: merging")

        tokenizer = train_tokenizer(texts(), options.vocab_size)
    with replacing(out) as folder:
        tokenizer.save_pretrained(folder)
    print("\n".join(_report(tokenizer, options, sample)))
    return out


def _report(tokenizer: PreTrainedTokenizerFast, options: TokenizerTrainOptions, sample: list[str]) -> list[str]:
    """Lines to print: size, compression compared with GPT-2's tokenizer, an example."""
    from gpt3.tokenizer.encoder import Encoder

    size = len(tokenizer)
    size_line = f"{size:,} ids: 256 bytes, {size - SMALLEST_VOCABULARY:,} merges, end-of-text {tokenizer.eos_token_id}"
    if size < options.vocab_size:
        size_line += f" (fewer than the requested {options.vocab_size:,}: no other pair of tokens occurs twice)"
    sample = [repaired(text) for text in sample]
    count = sum(len(text.encode("utf-8")) for text in sample)
    ours, gpt2 = (count / max(1, len(Encoder(each).encode_batch(sample)[0])) for each in (tokenizer, gpt2_tokenizer()))
    words = next((" ".join(text.split()) for text in sample if text.strip()), "")[:80]
    pieces = [str(tokenizer.decode([i])) for i in tokenizer(words)["input_ids"]]
    return [
        f"tokenizer saved to {options.out}",
        size_line,
        f"{ours:.2f} bytes per token on the first {count / 1e6:.1f} MB of the data (GPT-2's tokenizer: {gpt2:.2f})",
        f"example: {'|'.join(pieces)}",
    ]
