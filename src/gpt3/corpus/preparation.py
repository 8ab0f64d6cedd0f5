"""One preparation from beginning to end: what is asked for, what is there already, what is left to do."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from gpt3 import durable
from gpt3.corpus import manifest, segments
from gpt3.corpus.assembly import Assembly, count_by_source, held_out_keys
from gpt3.corpus.decontamination import CleanPart, fingerprint, index_benchmarks, prepare_folder
from gpt3.corpus.hash_folds import fold_keys, parse_fold
from gpt3.corpus.ngrams import NgramIndex
from gpt3.corpus.pool import encode_in_processes
from gpt3.corpus.prepare import PrepareOptions
from gpt3.corpus.segments import Segment, SegmentWriter, read_segments
from gpt3.corpus.shards import TOKENIZER_FOLDER, open_shards
from gpt3.corpus.sources import Part, open_sources
from gpt3.corpus.task_texts import find_tasks, read_examples
from gpt3.errors import InputError
from gpt3.progress import Progress, say
from gpt3.tokenizer.encoder import Encoder
from gpt3.tokenizer.loading import load_tokenizer, tokenizer_hash
from gpt3.version import __version__

POOL_BYTES = 256 << 20
"""Up to this much text one process does the work, with threads in the tokeniser: it is done before others have started."""
LEAST_BYTES_PER_TOKEN = 3.0
"""To foresee the room needed: English has 4.4 bytes a GPT-2 token, other languages and small vocabularies 2.5 to 4."""
BYTES_PER_ID = 100
"""Of a saved tokenizer, with room to spare: GPT-2's has 70."""
STATE = "preparation.json"
BENCHMARKS = "benchmarks"
"""The folder of what `gpt3.corpus.decontamination` lays beside the segments."""


class Preparation:
    """What `options` ask for, with sources and tokenizer opened.

    Args:
        elsewhere: what the user may choose where there is no room, in place of the folder.

    Attributes:
        identity: everything the shards' bytes depend on, ready for JSON.
    """

    def __init__(self, options: PrepareOptions, elsewhere: str = "another --out") -> None:
        self.options, self.elsewhere = options, elsewhere
        self.sources = open_sources(options.data)
        self.tokenizer = load_tokenizer(options.tokenizer)
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
        self.vocab_size = len(self.tokenizer)
        self.dtype = manifest.token_dtype(self.vocab_size)

    def run(self, out: Path) -> Path:
        """Make the shard folder `out`, or find it made; see `gpt3.corpus.prepare.prepare`."""
        work = out.with_name(out.name + ".preparing")
        lock = out.with_name(work.name + ".lock")
        finished = self._finished(out)
        if not finished:
            need = BYTES_PER_ID * self.vocab_size
            durable.check_room(out, need, purpose="the tokenizer", elsewhere=self.elsewhere)
        if not finished or work.exists() or lock.exists():
            with _locked(lock, out):
                finished = self._finished(out)  # perhaps while we waited
                if not finished:
                    self._begin(work)
                    try:
                        self._make(work, out)
                    except KeyboardInterrupt:
                        say(f"{work} keeps what is done: the same command goes on from there")
                        raise
                durable.discard(work)
        if finished:
            say(f"{out} is prepared already")
        return out

    def _finished(self, out: Path) -> bool:
        """Whether `out` holds this preparation, complete.

        Raises:
            InputError: it holds something else.
        """
        if not out.exists() or (out.is_dir() and not any(out.iterdir())):
            return False
        if not (out / manifest.FILE_NAME).exists():
            raise InputError(f"--out {out} exists and is not a shard folder; choose another --out")
        try:
            there = open_shards(out).manifest.preparation
        except InputError as error:
            raise InputError(f"--out {out} cannot be used: {error}; delete it first, or choose another --out") from None
        if difference := self._difference(there):
            raise InputError(f"--out {out} holds another preparation ({difference}); choose another --out or delete it")
        return True

    def _begin(self, work: Path) -> None:
        """Make the working folder, or find one of an interrupted preparation and tidy it."""
        if self.options.resume == "never":
            durable.discard(work)
        state = work / STATE
        if state.exists():
            there = json.loads(state.read_text(encoding="utf-8"))
            if difference := self._difference(there):
                raise InputError(
                    f"{work} holds another preparation, unfinished ({difference}); "
                    "choose another --out, or give --resume never to discard it and begin again"
                )
        for folder in (work, work / "segments", work / "shards"):
            folder.mkdir(parents=True, exist_ok=True)
            segments.clean(folder)
        if not state.exists():
            with durable.replacing(work / "shards" / TOKENIZER_FOLDER) as temporary:
                self.tokenizer.save_pretrained(temporary)
            durable.write_text(state, json.dumps(self.identity))

    def _make(self, work: Path, out: Path) -> None:
        owned = [(owner, part) for owner, source in enumerate(self.sources) for part in source.parts()]
        parts: list[tuple[int, Part]]
        owners = [owner for owner, _ in owned]
        parts = list(enumerate(part for _, part in owned))
        if self.benchmarks is not None:
            folder = work / BENCHMARKS
            prepare_folder(folder, self.benchmarks, [part for _, part in parts], self.options.worker_count())
            parts = [(number, CleanPart.of(part, folder)) for number, part in parts]
        done = read_segments(work / "segments")
        sizes = [part.size for _, part in parts]
        total = sum(size for size in sizes if size is not None) if None not in sizes else None
        self._check_room(work, done, total)
        self._encode(work, parts, done, total)
        splits, held_out, per_source = self._assemble(work, owners)
        if not splits["train"].documents or (self.fold and not splits["validation"].documents):
            durable.discard(work)
            what = " ".join(self.options.data)
            if self.fold is None or not any(split.documents for split in splits.values()):
                raise InputError(f"--data {what} holds no documents")
            empty = "hold out" if splits["train"].documents else "train on"
            raise InputError(
                f"fold {self.identity['fold']} has no document to {empty}: --data {what} has too few different texts for "
                f"{self.fold[1]} folds; use fewer folds, or more data"
            )
        manifest.Manifest(
            dtype=self.dtype,
            vocab_size=self.vocab_size,
            end_of_text=int(self.tokenizer.eos_token_id),
            tokenizer_sha256=self.identity["tokenizer_sha256"],
            validation_fraction=self.identity["validation_fraction"],
            validation_below=f"{held_out.stop:016x}",
            validation_from=f"{held_out.start:016x}",
            splits={name: splits[name] for name in manifest.SPLITS},
            sources=[
                {**source.describe(), "name": source.name, **counts}
                for source, counts in zip(self.sources, per_source, strict=True)
            ],
            preparation=self.identity,
            created_by=f"gpt3 {__version__}",
        ).write(work / "shards")
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.exists():
            out.rmdir()  # empty, as was checked
        os.replace(work / "shards", out)
        durable.fsync_folder(out.parent)

    def _check_room(self, work: Path, done: list[Segment], total: int | None) -> None:
        """Refuse ahead when the tokens will not fit: each lies on the disk once, but for those of one shard."""
        if total is None:
            return
        item = manifest.ITEM_BYTES[self.dtype]
        left = max(0, total - sum(segment.text_bytes for segment in done))
        tokens = left / LEAST_BYTES_PER_TOKEN
        need = int(item * (tokens + min(tokens, self.options.shard_tokens)))
        durable.check_room(work, need, purpose="the token shards", elsewhere=self.elsewhere)

    def _encode(self, work: Path, parts: list[tuple[int, Part]], done: list[Segment], total: int | None) -> None:
        """Turn every part into segments, in this process or in several."""
        complete = {segment.part for segment in done if segment.last}
        left = [(number, part) for number, part in parts if number not in complete]
        start = sum(segment.text_bytes for segment in done)
        if done:
            say(f"going on behind {start / 1e6:,.0f} MB done before")
        if not left:
            return
        workers = min(self.options.worker_count(), len(left))
        with Progress("tokenising", total / 1e6 if total else None, "MB", start=start / 1e6) as progress:
            end_of_text = int(self.tokenizer.eos_token_id)
            if workers > 1 and (total is None or total - start > POOL_BYTES):
                threads = max(1, self.options.worker_count() // workers)
                encode_in_processes(left, work, self.dtype, end_of_text, workers, threads, progress)
            else:
                encoder = Encoder(self.tokenizer, threads=self.options.worker_count())
                writer = SegmentWriter(
                    work / "segments", encoder, self.dtype, end_of_text, lambda size: progress.advance(size / 1e6)
                )
                for number, part in left:
                    writer.write_part(part, number)

    def _assemble(self, work: Path, owners: list[int]) -> tuple[dict[str, manifest.Split], range, list[dict[str, Any]]]:
        """Turn all segments into shards; also the keys of the documents held out and the counts by source."""
        folder = work / "segments"
        found = read_segments(folder)
        held_out = (
            fold_keys(*self.fold) if self.fold else held_out_keys(folder, found, self.options.validation_fraction)
        )
        with Progress("writing shards", sum(segment.tokens for segment in found) / 1e6, "M tokens") as progress:
            splits = Assembly(
                folder, work / "shards", work / "records", found, held_out, self.dtype, self.options.shard_tokens,
                lambda tokens: progress.advance(tokens / 1e6),
            ).run()  # fmt: skip
        return splits, held_out, count_by_source(folder, found, owners, len(self.sources), held_out)

    def _difference(self, there: dict[str, Any]) -> str:
        """How another preparation differs from this one, in words; empty when it does not."""
        here = self.identity
        words = []
        if _of_each(there, "fingerprint") != _of_each(here, "fingerprint"):
            theirs, ours = ", ".join(_of_each(there, "name")), ", ".join(_of_each(here, "name"))
            words.append(f"data {theirs} there, {ours} here" if theirs != ours else f"data {ours} has changed since")
        if there["tokenizer_sha256"] != here["tokenizer_sha256"]:
            theirs, ours = there["tokenizer_sha256"][:12], here["tokenizer_sha256"][:12]
            words.append(f"tokenizer {theirs} there, {ours} ({self.options.tokenizer}) here")
        if there.get("decontaminated") != here.get("decontaminated"):
            words.append("decontaminated of other benchmarks, or of none")
        for name in ("fold", "validation_fraction", "shard_tokens"):
            before, now = there.get(name), here.get(name)
            if before != now:
                shown = (value if value is not None else "none" for value in (before, now))
                words.append("{} {} there, {} here".format(name.replace("_", "-"), *shown))
                if name == "fold":  # the fraction follows from it
                    break
        return "; ".join(words)


def _of_each(identity: dict[str, Any], key: str) -> list[str]:
    return [source[key] for source in identity["sources"]]


@contextmanager
def _locked(path: Path, out: Path) -> Iterator[None]:
    """Hold the lock file at `path`; say so when another process has it. A killed process lets go of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"another process is preparing {out}; waiting for it")
        lock.acquire()
    try:
        yield
        path.unlink(missing_ok=True)  # a process still waiting on it finds `out` finished, so nobody writes any more
    finally:
        lock.release()
