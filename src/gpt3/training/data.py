"""What a run reads: one source or more, each a shard folder, with weights; held-out documents and further validation sets.

Sources that are no shard folder yet are prepared into the cache. All have one tokenizer.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt3.corpus.blocks import open_growing
from gpt3.corpus.documents import Source
from gpt3.corpus.manifest import is_shard_folder
from gpt3.corpus.mixture import Mixture, SourceSpec
from gpt3.corpus.prepare import cache_folder, open_or_prepare
from gpt3.corpus.shards import TOKENIZER_FOLDER, ShardFolder, TokenSplit, open_shards
from gpt3.corpus.sources import open_sources
from gpt3.curation.options import curated
from gpt3.device import usable_cores
from gpt3.durable import replacing
from gpt3.errors import InputError
from gpt3.ladder.presets import GPT2_VOCABULARY, Preset
from gpt3.tokenizer.loading import load_tokenizer
from gpt3.tokenizer.train import train_tokenizer
from gpt3.training.named_sets import parse_val, set_rows, val_sets
from gpt3.training.options import AUTO, TrainOptions
from gpt3.training.replay import run_sources

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

OWN = "own:"
TOKENIZER_VERSION = 1
"""Counts changes in how a tokenizer is trained, so that a cached one is not taken for a new one."""
STREAM_BYTES = 256 << 20
"""Sources of more text than this are prepared while training, unless ``--stream`` says otherwise: half a minute's work."""
TOKENIZER_BYTES = 32 << 20
"""Text that a tokenizer own:N is trained on where the data is prepared while training."""
SAMPLE_BYTES = 16 << 20
"""Text that it is trained on with ``--model auto``, a part of each document: of 79 MB 5 s of work instead of 18."""


@dataclass(frozen=True)
class TrainingData:
    """The opened data of a run."""

    specs: tuple[SourceSpec, ...]
    """The sources: those of the mixture file, or one without a name for ``--data``."""
    shards: tuple[ShardFolder, ...]
    """The shard folder of each source."""
    given: Mapping[str, TokenSplit]
    """The validation sets of ``--val`` by name."""

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer of all sources."""
        return self.shards[0].tokenizer()

    @property
    def training(self) -> list[TokenSplit]:
        """The training split of each source, as far as it is prepared."""
        return [folder.split("train") for folder in self.shards]

    @property
    def ended(self) -> bool:
        """Whether all sources are here to their ends."""
        return all(folder.ended for folder in self.shards)

    @property
    def tokens(self) -> int:
        """Training tokens of all sources together, as far as they are prepared."""
        return sum(map(len, self.training))

    @property
    def known_tokens(self) -> int | None:
        """`tokens`; None where a source is prepared while training (`ShardFolder.known_tokens`)."""
        return None if any(folder.known_tokens is None for folder in self.shards) else self.tokens

    @cached_property
    def held_out(self) -> TokenSplit:
        """The held-out documents of all sources as one split; it may be empty."""
        return TokenSplit.joined([folder.split("validation") for folder in self.shards])

    @property
    def validation(self) -> dict[str, TokenSplit]:
        """What is scored, by name: the held-out documents (``""``), those of each source of a mixture, the sets of ``--val``."""
        names = (spec.name for spec in self.specs)
        named = {name: folder.split("validation") for name, folder in zip(names, self.shards, strict=True) if name}
        sets: dict[str, TokenSplit] = {"": self.held_out, **named, **self.given}
        return {name: split for name, split in sets.items() if len(split) > 1}

    def mixture(self, context: int, seed: int) -> Mixture:
        """The training sequences: of one source, exactly its own in its own order.

        Raises:
            InputError: a source is shorter than a sequence.
        """
        orders = []
        for spec, folder in zip(self.specs, self.shards, strict=True):
            try:
                orders.append(folder.order(context, seed))
            except InputError as error:
                raise InputError(f"source {spec.name} of the mixture: {error}" if spec.name else str(error)) from None
        return Mixture(orders, [spec.weight for spec in self.specs], seed)

    def sources(self, mixture: Mixture, sequences: int) -> list[dict[str, Any]]:
        """What data.json holds of each source: name, training tokens and documents, weight, share of the tokens and epochs.

        Args:
            mixture: of this data.
            sequences: sequences of the run, or of the part of it so far.
        """
        rows: list[dict[str, Any]] = []
        each_source = zip(self.specs, self.shards, mixture.weights, mixture.shares(sequences), strict=True)
        for spec, folder, weight, share in each_source:
            known = folder.known_tokens
            for row in folder.rows(spec.name):
                part = row["tokens"] / known if known and not spec.name else 1.0  # drawn from evenly
                epochs = share.epochs if known else None
                rows.append(row | {"weight": part * float(weight), "share": part * share.share, "epochs": epochs})
        return rows

    def set_rows(self) -> list[dict[str, Any]]:
        """What data.json holds of the sets of ``--val``; see `set_rows`. Data that is prepared while training is not searched."""
        return set_rows(self.given, self.training if self.ended else None)

    def close(self) -> None:
        """End the processes that prepare data."""
        for folder in self.shards:
            folder.close()


def open_data(options: TrainOptions, shape: Preset, *, prepare: bool = True) -> TrainingData:
    """Open a run's data, prepared first where it is not yet.

    Args:
        prepare: False where another process prepares what is prepared while training.

    Raises:
        InputError: see gpt3.corpus; a --tokenizer that is not the one of the shards; a --val without a name or of a taken one.
    """
    pairs = open_shard_folders(options, shape, prepare=prepare)
    names = {spec.name for spec, folder in pairs if len(folder.split("validation")) > 1}
    for name in parse_val(options.val):
        if name in names:
            raise InputError(f"--val {name}=…: the run has a source called {name}; choose another name")
    given = val_sets(options.val, pairs[0][1], options.workers)
    return TrainingData(tuple(spec for spec, _ in pairs), tuple(folder for _, folder in pairs), given)


def open_on_every_rank(options: TrainOptions, shape: Preset, agree: Callable[[Callable[[], Any]], Any]) -> TrainingData:
    """`open_data` on every rank: rank 0 prepares what is not prepared yet, the others then find it in the cache.

    Args:
        agree: `World.agree`.
    """
    opened: list[TrainingData] = []
    agree(lambda: opened.append(open_data(options, shape)))
    if not opened:
        with contextlib.redirect_stderr(io.StringIO()):  # rank 0 has said it all
            opened.append(open_data(options, shape, prepare=False))
    return opened[0]


def open_shard_folders(
    options: TrainOptions, shape: Preset, *, prepare: bool = True
) -> list[tuple[SourceSpec, ShardFolder]]:
    """The sources of a run, each with its shard folder: as given, or prepared into the cache with the run's tokenizer.

    A tokenizer own:N is trained on all of them together; one that comes with a shard folder is used for all.

    Raises:
        InputError: see gpt3.corpus and `run_tokenizer`.
    """
    specs = run_sources(options)
    data = [name for spec in specs for name in spec.data]
    tokenizer = run_tokenizer(options, shape, data)
    own = tokenizer.startswith(OWN)
    opened: list[list[Source]] = []
    """Of each source where its size decides."""
    for spec in specs:
        decides = is_filtered(options) or may_stream(options, spec.data) is None
        opened.append(open_sources(spec.data, tokenizer=None if own else tokenizer) if decides else [])
    if is_filtered(options):
        every = [source for sources in opened for source in sources]
        workers = options.workers or usable_cores()
        rest = iter(curated(every, options.filter, options.near_duplicates, workers))
        opened = [list(itertools.islice(rest, len(sources))) for sources in opened]
    if own:
        every = [source for sources in opened for source in sources]
        most = TOKENIZER_BYTES if is_streamed(options, data, every) else None
        # other runs read all, as they did when those that now resume began
        sample = SAMPLE_BYTES if most is None and options.model == AUTO else None
        tokenizer = str(cached_tokenizer(every or open_sources(data), int(tokenizer.removeprefix(OWN)), most, sample))
    prepared = {name: getattr(options, name) for name in ("validation_fraction", "fold", "workers")}
    pairs: list[tuple[SourceSpec, ShardFolder]] = []
    for spec, sources in zip(specs, opened, strict=True):
        folder: ShardFolder
        if is_streamed(options, spec.data, sources):
            threads, fraction = max(1, (options.workers or usable_cores()) // 2), options.validation_fraction
            folder = open_growing(spec.data, tokenizer, fraction, sources=sources, threads=threads, produce=prepare)
        else:
            folder = open_or_prepare(spec.data, tokenizer, sources=sources, **prepared)
        pairs.append((spec, folder))
    return pairs


def is_filtered(options: TrainOptions) -> bool:
    """Whether documents are left out."""
    return options.filter != "none" or options.near_duplicates


def may_stream(options: TrainOptions, data: Sequence[str]) -> bool | None:
    """Whether training begins before `data` is prepared, as the options alone say; None: the data's size decides.

    Raises:
        InputError: ``--stream on`` for what cannot be streamed.
    """
    length = options.tokens or options.steps or options.minutes
    fixed = options.fold is not None or is_filtered(options) or any(map(is_shard_folder, data))
    if options.stream == "on" and fixed:
        what = "--fold, --filter, --near-duplicates or shard folders"
        raise InputError(f"--stream on does not go with {what}; leave it out")
    if options.stream == "on" and length is None:
        raise InputError("--stream on needs the run's length: give --tokens, --steps or --minutes")
    return True if options.stream == "on" else False if options.stream == "off" or length is None or fixed else None


def is_streamed(options: TrainOptions, data: Sequence[str], sources: Sequence[Source]) -> bool:
    """Whether training begins before `data`, opened as `sources`, is prepared. Nothing else decides it."""
    if (known := may_stream(options, data)) is not None:
        return known
    sizes = [source.size_bytes() for source in sources]
    return None in sizes or sum(size or 0 for size in sizes) > STREAM_BYTES


# -------------------------------------------------------------------------------------------------------------- tokenizer


def run_tokenizer(options: TrainOptions, shape: Preset, data: Sequence[str]) -> str:
    """The tokenizer, by name or folder, or own:N: of the shard folders in `data`, else what --tokenizer or the preset says.

    Raises:
        InputError: shard folders of different tokenizers, or of another than --tokenizer names or asks for.
    """
    name = options.tokenizer
    if name is None:
        name = "gpt2" if shape.vocab_size == GPT2_VOCABULARY else f"{OWN}{shape.vocab_size}"
    size = name.removeprefix(OWN) if name.startswith(OWN) else None
    if size is not None and not size.isdigit():
        raise InputError(f"--tokenizer {name!r}: write own:N with N entries, such as own:4096")
    folders = [open_shards(source) for source in data if is_shard_folder(source)]
    if not folders:
        return name
    own = str(folders[0].path / TOKENIZER_FOLDER)
    if options.tokenizer is not None and size is not None:
        raise InputError(f"--tokenizer {name} is for text: the shards in {folders[0].path} have one. Leave it out")
    if options.tokenizer is not None:
        for folder in folders:
            folder.check_tokenizer(load_tokenizer(name), f"--tokenizer {name}")
    for folder in folders[1:]:
        folder.check_tokenizer(folders[0].tokenizer(), own)
    return own


def cached_tokenizer(
    sources: Sequence[Source], vocab_size: int, most: int | None = None, sample: int | None = None
) -> Path:
    """A byte-level BPE of `vocab_size` entries trained on all of `sources`, from the cache when it was made before.

    Args:
        most: characters of the sources to read, from their beginning; None: all.
        sample: bytes, about, to read instead of all: the beginning of every document, the same share of each.
    """
    identity = [TOKENIZER_VERSION, vocab_size, *(source.fingerprint() for source in sources)]
    if most is not None:
        identity.append(most)
    share = 1.0
    if sample is not None and (size := sum(source.size_bytes() or 0 for source in sources)) > sample:
        share = sample / size
        identity.append(f"{share:.6f} of each")
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    folder = cache_folder() / "tokenizers" / f"{vocab_size}-{key}"
    if not (folder / "tokenizer.json").is_file():
        texts = (text for source in sources for part in source.parts() for text in part.read())
        texts = (text[: math.ceil(share * len(text))] for text in texts) if share < 1 else texts
        tokenizer = train_tokenizer(texts if most is None else first_texts(texts, most), vocab_size)
        with replacing(folder) as temporary:
            tokenizer.save_pretrained(temporary)
    return folder


def first_texts(texts: Iterable[str], most: int) -> Iterator[str]:
    """The texts up to the one with which they hold `most` characters."""
    for text in texts:
        yield text
        most -= len(text)
        if most <= 0:
            return
