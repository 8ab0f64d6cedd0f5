"""Sources to a shard folder, resuming work that was interrupted; and the cache of shard folders."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from gpt3 import __version__, durable
from gpt3.corpus import manifest, segments
from gpt3.corpus.benchmark_text import (
    CleanPart,
    find_tasks,
    fingerprint,
    index_benchmarks,
    prepare_folder,
    read_examples,
)
from gpt3.corpus.documents import Part, Source, total_size
from gpt3.corpus.ngrams import NgramIndex
from gpt3.corpus.options import PrepareOptions, parse_fold
from gpt3.corpus.pool import share
from gpt3.corpus.shards import TOKENIZER_FOLDER, ShardFolder, open_shards
from gpt3.corpus.slices import SlicedSource, link_segments, shared_segments
from gpt3.corpus.sources import open_sources
from gpt3.errors import InputError
from gpt3.progress import Progress, say
from gpt3.tokenizer.loading import load_tokenizer, tokenizer_hash
from gpt3.work_folder import differences, locked

POOL_BYTES = 256 << 20
"""Up to this much text one process does the work, with threads in the tokenizer: it is done before others have started."""
LEAST_BYTES_PER_TOKEN = 3.0
"""To foresee the space needed: English has 4.4 bytes per GPT-2 token, other languages and small vocabularies 2.5 to 4."""
BYTES_PER_ID = 100
"""Of a saved tokenizer, with some to spare: GPT-2's has 70."""
STATE = "preparation.json"
BENCHMARKS = "benchmarks"
"""The folder of `gpt3.corpus.benchmark_text` in the working folder."""
CACHE_VARIABLE = "GPT3_CACHE"


def prepare(options: PrepareOptions, sources: Sequence[Source] | None = None) -> Path:
    """Make the shard folder `options.out` and return its path.

    Args:
        sources: of the data, where they are open already.

    A killed preparation continues where it stopped when the same options are given again, and ends in the same bytes. A
    finished one is not repeated. When two processes prepare the same folder, the second waits for the first. Processes are
    spawned for inputs above `POOL_BYTES`, so a script that calls this needs the usual ``if __name__ == "__main__":``.

    Raises:
        InputError: no such data, unreadable or empty data, a folder that holds something else, no space on the disk.
    """
    return Preparation(options, sources=sources).run(Path(options.out))


def prepare_cached(
    data: str | Sequence[str],
    tokenizer: str | Path = "gpt2",
    *,
    sources: Sequence[Source] | None = None,
    **options: Any,
) -> Path:
    """The shard folder of `data` in the cache, prepared now if it is not there.

    The folder's name holds a hash of all that its bytes depend on: the sources' fingerprints, the tokenizer's, the options
    and the format's version.

    Args:
        data, tokenizer, options: as in `PrepareOptions`.
        sources: of `data`, where they are open already.

    Raises:
        InputError: as `prepare`.
    """
    names = [data] if isinstance(data, str) else [str(spec) for spec in data]
    elsewhere = f"a folder on another disk for the cache ({CACHE_VARIABLE})"
    preparation = Preparation(PrepareOptions(names, tokenizer=str(tokenizer), **options), elsewhere, sources)
    return preparation.run(cache_folder() / "shards" / preparation.cache_name())


def open_or_prepare(data: Sequence[str], tokenizer: str | Path, **options: Any) -> ShardFolder:
    """The shard folder that `data` names; else the one in the cache, made with `options` (`prepare_cached`)."""
    if len(data) == 1 and manifest.is_shard_folder(data[0]) and options.get("fold") is None:
        return open_shards(data[0])
    return open_shards(prepare_cached(data, tokenizer, **options))


def cache_folder() -> Path:
    """``$GPT3_CACHE``, else gpt3's place among the caches of this system. Asking for it does not make it."""
    if given := os.environ.get(CACHE_VARIABLE):
        return Path(given).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "gpt3"


class Preparation:
    """What `options` ask for, with sources and tokenizer opened.

    Args:
        elsewhere: what the user may choose instead of the folder if there is no space.
        sources: of the data, where they are open already.
        executor: what the parts are tokenized by in place of processes; see `gpt3.corpus.pool.share`.

    Attributes:
        identity: everything the shards' bytes depend on, ready for JSON.
    """

    def __init__(
        self,
        options: PrepareOptions,
        elsewhere: str = "another --out",
        sources: Sequence[Source] | None = None,
        executor: Executor | None = None,
    ) -> None:
        self.options, self.elsewhere, self.executor = options, elsewhere, executor
        self.sources = list(sources or open_sources(options.data, tokenizer=options.tokenizer))
        self.tokenizer = load_tokenizer(options.tokenizer)
        self.vocab_size = len(self.tokenizer)
        self.dtype = manifest.token_dtype(self.vocab_size)
        self.identity: dict[str, Any] = {
            "sources": [{"name": source.name, "fingerprint": source.fingerprint()} for source in self.sources],
            "tokenizer_sha256": tokenizer_hash(self.tokenizer),
            "validation_fraction": options.validation_fraction,
            "shard_tokens": options.shard_tokens,
        }
        self.fold = None if options.fold is None else parse_fold(options.fold)
        if self.fold is not None:  # in place of the fraction
            self.identity |= {"validation_fraction": 1 / self.fold[1], "fold": "{}/{}".format(*self.fold)}
        self.benchmarks: NgramIndex | None = None
        if options.decontaminate:
            files = find_tasks(options.decontaminate, None)
            examples = (example for name, path in files.items() for example in read_examples(name, path))
            self.benchmarks = index_benchmarks(example.text for example in examples)
            self.identity["decontaminated"] = {"of": sorted(files), "fingerprint": fingerprint(self.benchmarks)}

    def cache_name(self) -> str:
        """A readable beginning and the hash of the identity, e.g. ``wiki-1f0c…``."""
        identity = {**self.identity, "version": manifest.VERSION}
        identity["sources"] = [source["fingerprint"] for source in identity["sources"]]
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        first = self.sources[0]
        label = first.label if isinstance(first, SlicedSource) else Path(first.name).stem
        words = re.findall(r"[A-Za-z0-9]+", label) or ["data"]
        return f"{'-'.join(words)[:40]}-{key[:16]}"

    def run(self, out: Path) -> Path:
        """Make the shard folder `out`, or find it made; see `prepare`."""
        work = out.with_name(out.name + ".preparing")
        lock = out.with_name(work.name + ".lock")
        finished = self._finished(out)
        if not finished:
            need = BYTES_PER_ID * self.vocab_size
            durable.check_room(out, need, purpose="the tokenizer", elsewhere=self.elsewhere)
        if not finished or work.exists() or lock.exists():
            with locked(lock, f"another process is preparing {out}; waiting for it", wait=True):
                finished = self._finished(out)  # perhaps while we waited
                if not finished:
                    self._begin(work)
                    try:
                        self._make(work, out)
                    except KeyboardInterrupt:
                        say(f"Saved to {work}. Run the same command to resume.")
                        raise
                durable.discard(work)
                # a process that still waits for the lock finds `out` finished and writes nothing
                lock.unlink(missing_ok=True)
        if finished:
            say(f"Using prepared data: {out}")
        return out

    def _finished(self, out: Path) -> bool:
        """Whether `out` holds this preparation, complete.

        Raises:
            InputError: it holds something else.
        """
        if not out.exists() or (out.is_dir() and not any(out.iterdir())):
            return False
        remedy = "Choose another --out, or delete it."
        if not (out / manifest.FILE_NAME).exists():
            raise InputError(f"--out {out} exists and is not a shard folder. Choose another --out.")
        try:
            before = open_shards(out).manifest.preparation
        except InputError as error:
            raise InputError(f"--out {out} cannot be used: {error}. {remedy}") from None
        self._check_same(f"--out {out}", before, remedy)
        return True

    def _begin(self, work: Path) -> None:
        """Make the working folder, or find one of an interrupted preparation and tidy it."""
        if self.options.resume == "never":
            durable.discard(work)
        state = work / STATE
        if state.exists():
            remedy = "Choose another --out, or --resume never to discard it and start again."
            self._check_same(f"{work}, unfinished,", json.loads(state.read_text(encoding="utf-8")), remedy)
        for folder in (work, work / segments.SEGMENTS, work / segments.SHARDS):
            folder.mkdir(parents=True, exist_ok=True)
            for path in folder.glob(f"*{durable.TEMPORARY_SUFFIX}"):  # what a killed run left half-written
                durable.discard(path)
        if not state.exists():
            with durable.replacing(work / segments.SHARDS / TOKENIZER_FOLDER) as temporary:
                self.tokenizer.save_pretrained(temporary)
            durable.write_text(state, json.dumps(self.identity))

    def _check_same(self, what: str, before: dict[str, Any], remedy: str) -> None:
        """Refuse to use what another preparation made.

        Raises:
            InputError: telling what differs.
        """
        found = []
        there, here = ([source["fingerprint"] for source in each["sources"]] for each in (before, self.identity))
        if there != here:
            was, now = (" ".join(source["name"] for source in each["sources"]) for each in (before, self.identity))
            found.append(f"--data {now} has changed since" if was == now else f"--data was {was}, now {now}")
        found += differences(_settings(before), _settings(self.identity))
        if found:
            raise InputError(f"{what} was prepared with other options: {'; '.join(found)}. {remedy}")

    def _make(self, work: Path, out: Path) -> None:
        numbered = [(number, part) for number, source in enumerate(self.sources) for part in source.parts()]
        owners, parts = [number for number, _ in numbered], [part for _, part in numbered]
        if self.benchmarks is not None:
            folder = work / BENCHMARKS
            prepare_folder(folder, self.benchmarks, parts, self.options.worker_count())
            parts = [CleanPart(part.name, part.size, part, folder) for part in parts]
        shared = (
            None
            if self.benchmarks is not None or len(self.sources) > 1
            else shared_segments(self.sources[0], self.identity["tokenizer_sha256"])
        )
        if shared is not None:
            link_segments(cache_folder() / "segments" / shared, work / segments.SEGMENTS)
        self._encode(work, parts)
        if shared is not None:
            link_segments(work / segments.SEGMENTS, cache_folder() / "segments" / shared)
        found = segments.read_segments(work)
        fraction = self.options.validation_fraction
        held_out = segments.fold_keys(*self.fold) if self.fold else segments.held_out_keys(work, found, fraction)
        with Progress("writing shards", sum(segment.tokens for segment in found) / 1e6, "M tokens") as progress:
            shard_tokens = self.options.shard_tokens
            splits = segments.Assembly(work, found, held_out, self.dtype, shard_tokens, progress.advance).run()
        if not splits["train"].documents or (self.fold and not splits["validation"].documents):
            durable.discard(work)
            data = " ".join(self.options.data)
            if self.fold is None or not any(split.documents for split in splits.values()):
                raise InputError(f"--data {data} holds no documents")
            raise InputError(
                f"--data {data} has too few different texts for {self.fold[1]} folds: fold {self.fold[0]} has none to hold "
                "out, or leaves none to train on. Use fewer folds, or more data."
            )
        counts = segments.count_by_source(work, found, owners, len(self.sources), held_out)
        counted = zip(self.sources, counts, strict=True)
        manifest.Manifest(
            dtype=self.dtype,
            vocab_size=self.vocab_size,
            end_of_text=int(self.tokenizer.eos_token_id),
            tokenizer_sha256=self.identity["tokenizer_sha256"],
            validation_fraction=self.identity["validation_fraction"],
            validation_below=f"{held_out.stop:016x}",
            validation_from=f"{held_out.start:016x}",
            splits={name: splits[name] for name in manifest.SPLITS},
            sources=[source.describe() | {"name": source.name} | mine for source, mine in counted],
            preparation=self.identity,
            created_by=f"gpt3 {__version__}",
        ).write(work / segments.SHARDS)
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.exists():
            out.rmdir()  # empty, as was checked
        os.replace(work / segments.SHARDS, out)
        durable.fsync_folder(out.parent)

    def _encode(self, work: Path, parts: Sequence[Part]) -> None:
        """Turn every part into segments, in this process or in several.

        Raises:
            InputError: the tokens will not fit: each is on the disk once, but for those of one shard.
        """
        done = segments.read_segments(work)
        total, start = total_size(parts), sum(segment.text_bytes for segment in done)
        if total is not None:
            tokens = max(0, total - start) / LEAST_BYTES_PER_TOKEN
            need = int(manifest.ITEM_BYTES[self.dtype] * (tokens + min(tokens, self.options.shard_tokens)))
            durable.check_room(work, need, purpose="the token shards", elsewhere=self.elsewhere)
        if done:
            say(f"Resuming after {start / 1e6:,.0f} MB")
        complete = {segment.part for segment in done if segment.last}
        left = [(number, part) for number, part in enumerate(parts) if number not in complete]
        if not left:
            return
        cores = self.options.worker_count()
        workers = min(cores, len(left)) if total is None or total - start > POOL_BYTES else 1
        here = workers == 1 and self.executor is None
        tokenizer = self.tokenizer if here else work / segments.SHARDS / TOKENIZER_FOLDER
        arguments = (work, tokenizer, 1 if self.executor else max(1, cores // workers), self.dtype)
        with Progress("tokenizing", total / 1e6 if total else None, "MB", start=start / 1e6) as progress:
            remedy = "what is done is kept: run the same command again, with fewer --workers"
            share(segments.SegmentWriter, arguments, left, self.executor or workers, progress, remedy)


def _settings(identity: dict[str, Any]) -> dict[str, Any]:
    """What an identity says besides the data, by the options' names."""
    cleaned = identity.get("decontaminated")
    return {
        "tokenizer": identity["tokenizer_sha256"][:12],
        "decontaminate": cleaned and f"{' '.join(cleaned['of'])} ({cleaned['fingerprint'][:8]})",
        **{name: identity.get(name) for name in ("fold", "validation_fraction", "shard_tokens")},
    }
