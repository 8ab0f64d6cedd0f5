"""The data of a run: a shard folder as given, one prepared from sources into the cache, or a mixture of such."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt3.corpus.manifest import is_shard_folder
from gpt3.corpus.mixture import Mixture, SourceSpec, read_mixture
from gpt3.corpus.order import WindowOrder
from gpt3.corpus.prepare import cache_folder, prepare_cached
from gpt3.corpus.shards import TOKENIZER_FOLDER, ShardFolder, TokenSplit, open_shards
from gpt3.corpus.sources import open_sources
from gpt3.durable import replacing
from gpt3.errors import InputError
from gpt3.ladder.presets import GPT2_VOCABULARY, Preset
from gpt3.tokenizer.loading import load_tokenizer
from gpt3.tokenizer.train import train_tokenizer
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
    """The shard folder of a run, prepared first where the data is not one yet, or where a fold of it is asked for.

    Raises:
        InputError: see gpt3.corpus; or a --tokenizer that is not the one the shards were made with.
    """
    return open_source(options.data, run_tokenizer(options, preset, options.data), options)


def run_tokenizer(options: TrainOptions, preset: Preset, data: Sequence[str]) -> str:
    """The tokenizer, by name or folder: the one of the shard folders in `data`, else what --tokenizer or the preset says.

    Raises:
        InputError: shard folders of different tokenizers, or of another than --tokenizer names.
    """
    folders = [open_shards(name) for name in data if is_shard_folder(name)]
    if not folders:
        name = tokenizer_name(options, preset)
        vocabulary = own_vocabulary(name)
        return name if vocabulary is None else str(cached_tokenizer(list(data), vocabulary))
    own = str(folders[0].path / TOKENIZER_FOLDER)
    if options.tokenizer is not None and own_vocabulary(options.tokenizer) is None:
        for folder in folders:
            folder.check_tokenizer(load_tokenizer(options.tokenizer), f"--tokenizer {options.tokenizer}")
    for folder in folders[1:]:
        folder.check_tokenizer(folders[0].tokenizer(), own)
    return own


def open_source(data: Sequence[str], tokenizer: str, options: TrainOptions) -> ShardFolder:
    """One shard folder as it is, or anything else prepared into the cache, with the run's fraction or fold held out."""
    fold = options.fold
    if len(data) == 1 and is_shard_folder(data[0]) and fold is None:
        return open_shards(data[0])
    return open_shards(
        prepare_cached(
            data, tokenizer, validation_fraction=options.validation_fraction, fold=fold, workers=options.workers
        )
    )


@dataclass(frozen=True)
class MixtureData:
    """The opened sources of a mixture, all of one tokenizer."""

    specs: tuple[SourceSpec, ...]
    shards: tuple[ShardFolder, ...]

    @property
    def first(self) -> ShardFolder:
        """A folder that speaks for all: vocabulary, end-of-text, tokenizer."""
        return self.shards[0]

    @property
    def tokens(self) -> int:
        """Training tokens of all sources together."""
        return sum(len(folder.split("train")) for folder in self.shards)

    def sampler(self, context: int, seed: int) -> Mixture:
        """What the loop reads.

        Raises:
            InputError: a source is shorter than a window.
        """
        samplers = []
        for spec, folder in zip(self.specs, self.shards, strict=True):
            try:
                samplers.append(WindowOrder(folder.split("train"), context, seed))
            except InputError as error:
                raise InputError(f"source {spec.name} of the mixture: {error}") from None
        return Mixture(samplers, [spec.weight for spec in self.specs], seed)

    def held_out(self) -> TokenSplit:
        """The validation splits of all sources as one."""
        return TokenSplit.joined([folder.split("validation") for folder in self.shards])

    def named(self) -> dict[str, TokenSplit]:
        """The validation split of each source that has one, by the source's name."""
        splits = {s.name: folder.split("validation") for s, folder in zip(self.specs, self.shards, strict=True)}
        return {name: split for name, split in splits.items() if len(split) > 1}

    def describe(self, mixture: Mixture, windows: int) -> dict[str, Any]:
        """What data.json holds: each source's name, tokens and documents to train on, weight, and in a run of `windows`
        windows its share of the tokens and its epochs."""
        rows = zip(self.specs, self.shards, mixture.weights, mixture.shares(windows), strict=True)
        return {
            "sources": [
                {
                    "name": spec.name,
                    "tokens": len(folder.split("train")),
                    "documents": folder.split("train").documents,
                    "weight": float(weight),
                    "share": share.share,
                    "epochs": share.epochs,
                }
                for spec, folder, weight, share in rows
            ]
        }


def open_mixture(path: str | Path, options: TrainOptions, preset: Preset) -> MixtureData:
    """The sources of a mixture file: shard folders as they are, others prepared into the cache with the run's tokenizer.

    A tokenizer own:N is trained on all of them together; one that comes with a shard folder holds for all.

    Raises:
        InputError: see `read_mixture`, `run_tokenizer` and gpt3.corpus; the source is named.
    """
    specs = read_mixture(path)
    tokenizer = run_tokenizer(options, preset, [name for spec in specs for name in spec.data])
    return MixtureData(tuple(specs), tuple(open_source(spec.data, tokenizer, options) for spec in specs))


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
