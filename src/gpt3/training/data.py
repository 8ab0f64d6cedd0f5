"""The data of a run: a shard folder as given, or one prepared from sources into the cache."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from gpt3.corpus.cache import cache_folder, prepare_cached
from gpt3.corpus.shards import ShardFolder, open_shards
from gpt3.corpus.sources import open_sources
from gpt3.durable import replacing
from gpt3.errors import InputError
from gpt3.ladder import GPT2_VOCABULARY, Preset
from gpt3.tokenizer import load_tokenizer, train_tokenizer
from gpt3.training.options import TrainOptions

OWN = "own:"
TOKENIZER_VERSION = 1
"""Counts changes of how a tokenizer is trained, so that a cached one is not taken for a new one."""


def tokenizer_name(options: TrainOptions, preset: Preset) -> str:
    """What --tokenizer means when it is not given: GPT-2's, or for a preset of another vocabulary a BPE of that size."""
    if options.tokenizer is not None:
        return options.tokenizer
    return "gpt2" if preset.vocab_size == GPT2_VOCABULARY else f"{OWN}{preset.vocab_size}"


def own_vocabulary(name: str) -> int | None:
    """N of ``own:N``, None for other tokenizers.

    Raises:
        InputError: N is no number.
    """
    if not name.startswith(OWN):
        return None
    if not name.removeprefix(OWN).isdigit():
        raise InputError(f"--tokenizer {name!r}: write own:N with N entries, such as own:4096")
    return int(name.removeprefix(OWN))


def open_data(options: TrainOptions, preset: Preset) -> ShardFolder:
    """The shard folder of a run, prepared first where the data is not one yet.

    Raises:
        InputError: see gpt3.corpus; or a --tokenizer that is not the one the shards were made with.
    """
    if len(options.data) == 1 and (Path(options.data[0]) / "manifest.json").is_file():
        shards = open_shards(options.data[0])
        if options.tokenizer is not None and own_vocabulary(options.tokenizer) is None:
            shards.check_tokenizer(load_tokenizer(options.tokenizer), f"--tokenizer {options.tokenizer}")
        return shards
    name = tokenizer_name(options, preset)
    vocabulary = own_vocabulary(name)
    tokenizer = name if vocabulary is None else str(cached_tokenizer(options.data, vocabulary))
    return open_shards(
        prepare_cached(
            options.data, tokenizer, validation_fraction=options.validation_fraction, workers=options.workers
        )
    )


def cached_tokenizer(data: list[str], vocab_size: int) -> Path:
    """A byte-level BPE of `vocab_size` entries trained on `data`, from the cache when it was made before."""
    sources = open_sources(data)
    identity = [TOKENIZER_VERSION, vocab_size, *(source.fingerprint() for source in sources)]
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    folder = cache_folder() / "tokenizers" / f"{vocab_size}-{key}"
    if not (folder / "tokenizer.json").is_file():
        texts = (text for source in sources for part in source.parts() for text in part.read())
        tokenizer = train_tokenizer(texts, vocab_size)
        with replacing(folder) as temporary:
            tokenizer.save_pretrained(temporary)
    return folder
