"""Text streamed past an N-gram index, in this process or in several; what was seen, counted by document."""

from __future__ import annotations

import dataclasses
import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

from gpt3.corpus.documents import Part
from gpt3.corpus.ngrams import NgramIndex
from gpt3.corpus.pool import POLL_SECONDS, die_with_parent
from gpt3.errors import RunError
from gpt3.progress import Progress

POOL_BYTES = 24 << 20
"""Text below this is read in this process: to start others takes longer."""
REPORT_BYTES = 1 << 20
SNIPPET = 300
"""Characters kept of a passage found."""


@dataclass(frozen=True)
class Sighting:
    """An N-gram that was found."""

    gram: int
    """Its number in the index."""
    documents: int
    """Documents that hold it."""
    document: str
    """The first of them: the part's name, "#", the document's number in the part from 0."""
    text: str
    """As it stands there."""


@dataclass(frozen=True)
class Found:
    """What a text holds of an index."""

    sightings: tuple[Sighting, ...]
    """By gram, rising."""
    documents: int
    text_bytes: int
    seconds: float = 0.0
    """That reading took."""


def scan_part(index: NgramIndex, part: Part, report: Callable[[int], None]) -> Found:
    """Read one part from beginning to end; `report` is told the bytes done now and then."""
    seen: dict[int, list[int | str]] = {}
    documents = total = pending = 0
    for text in part.read():
        numbers, starts, stops = index.find(text)
        if len(numbers):
            once: dict[int, tuple[int, int]] = {}
            for gram, start, stop in zip(numbers.tolist(), starts.tolist(), stops.tolist(), strict=True):
                once.setdefault(gram, (start, stop))
            for gram, (start, stop) in once.items():
                if gram in seen:
                    seen[gram][0] += 1  # type: ignore[operator]
                else:
                    seen[gram] = [1, f"{part.name}#{documents}", text[start:stop][:SNIPPET]]
        documents += 1
        size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        total += size
        pending += size
        if pending >= REPORT_BYTES:
            report(pending)
            pending = 0
    report(pending)
    return Found(tuple(Sighting(gram, *seen[gram]) for gram in sorted(seen)), documents, total)  # type: ignore[arg-type]


def scan_parts(index: NgramIndex, parts: Sequence[Part], folder: Path, workers: int, label: str = "reading") -> Found:
    """Read all parts once.

    Args:
        folder: an empty one, where the index is laid for the processes to share, unless it lies there.
        workers: processes, at most.
        label: what the progress is called.

    Raises:
        InputError: a part cannot be read.
        RunError: a process was killed.
    """
    sizes = [part.size for part in parts]
    total = sum(size for size in sizes if size is not None) if None not in sizes else None
    with Progress(label, total / 1e6 if total else None, "MB") as progress:
        began = time.monotonic()
        if min(workers, len(parts)) > 1 and (total is None or total > POOL_BYTES):
            if not (folder / "points.npy").exists():
                index.save(folder)
            found = _in_processes(parts, folder, min(workers, len(parts)), progress)
        else:
            found = [scan_part(index, part, lambda size: progress.advance(size / 1e6)) for part in parts]
        return dataclasses.replace(merge(found), seconds=time.monotonic() - began)


def merge(found: Sequence[Found]) -> Found:
    """What several parts hold together; of each gram the first sighting."""
    first: dict[int, Sighting] = {}
    counts: dict[int, int] = {}
    for part in found:
        for sighting in part.sightings:
            first.setdefault(sighting.gram, sighting)
            counts[sighting.gram] = counts.get(sighting.gram, 0) + sighting.documents
    sightings = tuple(Sighting(gram, counts[gram], first[gram].document, first[gram].text) for gram in sorted(first))
    return Found(sightings, sum(part.documents for part in found), sum(part.text_bytes for part in found))


def _in_processes(parts: Sequence[Part], folder: Path, workers: int, progress: Progress) -> list[Found]:
    context = multiprocessing.get_context("spawn")
    done = context.Value("q", 0)
    watched, held = context.Pipe(duplex=False)  # as in gpt3.corpus.pool: workers die with this process
    executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(folder, done, watched))
    try:
        futures = [executor.submit(_scan, part) for part in parts]
        pending = set(futures)
        while pending:
            finished, pending = wait(pending, timeout=POLL_SECONDS, return_when=FIRST_EXCEPTION)
            progress.update(done.value / 1e6)
            for future in finished:
                future.result()
        return [future.result() for future in futures]
    except BrokenProcessPool:
        raise RunError("a worker process was killed (often: out of memory); give fewer --workers") from None
    except BaseException:
        held.close()
        raise
    finally:
        executor.shutdown(cancel_futures=True)
        held.close()
        watched.close()


_index: NgramIndex  # of a worker process, set by `_start`
_report: Callable[[int], None]


def _start(folder: Path, done: Synchronized[int], watched: Connection) -> None:
    global _index, _report
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers for all
    threading.Thread(target=die_with_parent, args=(watched,), daemon=True).start()

    def report(size: int) -> None:
        with done.get_lock():
            done.value += size

    _index, _report = NgramIndex.load(folder), report


def _scan(part: Part) -> Found:
    return scan_part(_index, part, _report)
