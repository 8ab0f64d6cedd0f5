"""Parts shared among processes. Workers die at once when the parent stops or dies: what they have finished is on the disk."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import TYPE_CHECKING

from gpt3.corpus.segments import SegmentWriter
from gpt3.errors import RunError

if TYPE_CHECKING:
    from gpt3.corpus.documents import Part
    from gpt3.progress import Progress

POLL_SECONDS = 0.2


def encode_in_processes(
    parts: list[tuple[int, Part]],
    work: Path,
    dtype: str,
    end_of_text: int,
    workers: int,
    threads: int,
    progress: Progress,
) -> None:
    """Write the segments of `parts` into ``work/segments`` with `workers` processes of `threads` threads each.

    Args:
        parts: with their numbers through all sources.
        work: the working folder; the tokenizer lies in ``work/shards/tokenizer``.

    Raises:
        InputError: a part cannot be read.
        RunError: a worker was killed.
    """
    context = multiprocessing.get_context("spawn")  # alike on every system, and safe whatever threads this process has
    done = context.Value("q", 0)
    # Only this process holds the pipe's writing end: when it closes it, or dies, the workers see the end of the pipe.
    watched, held = context.Pipe(duplex=False)
    executor = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start, initargs=(work, dtype, end_of_text, threads, done, watched)
    )
    start = progress.done
    try:
        futures = [executor.submit(_encode, number, part) for number, part in parts]
        pending: set[Future[None]] = set(futures)
        while pending:
            finished, pending = wait(pending, timeout=POLL_SECONDS, return_when=FIRST_EXCEPTION)
            progress.update(start + done.value / 1e6)
            for future in finished:
                future.result()
    except BrokenProcessPool:
        raise RunError(
            "a worker process was killed (often: out of memory); what is done is kept: "
            "run the same command again, with fewer --workers"
        ) from None
    except BaseException:
        held.close()  # an error or Ctrl-C: the workers die in the middle of whatever they do
        raise
    finally:
        executor.shutdown(cancel_futures=True)
        held.close()
        watched.close()


_writer: SegmentWriter  # of a worker process, set by `_start`


def _start(
    work: Path, dtype: str, end_of_text: int, threads: int, done: Synchronized[int], watched: Connection
) -> None:
    """Set a worker process up."""
    global _writer
    # Ctrl-C reaches every process of the terminal; the parent answers for all of them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=die_with_parent, args=(watched,), daemon=True).start()
    from gpt3.tokenizer.encoder import Encoder
    from gpt3.tokenizer.loading import load_tokenizer

    def report(size: int) -> None:
        with done.get_lock():
            done.value += size

    encoder = Encoder(load_tokenizer(work / "shards" / "tokenizer"), threads=threads)
    _writer = SegmentWriter(work / "segments", encoder, dtype, end_of_text, report)


def die_with_parent(watched: Connection) -> None:
    """End this process when the other end of the pipe is closed; for a thread of its own."""
    watched.poll(None)  # nothing is ever sent: this returns when the writing end is closed
    os._exit(1)


def _encode(number: int, part: Part) -> None:
    _writer.write_part(part, number)
