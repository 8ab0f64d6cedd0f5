"""Work shared among processes that die at once when the parent stops or dies; or among those of another executor.

Tasks read and write files, and may be done again or twice: what they write is the same, and is renamed into place.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import secrets
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from gpt3 import __version__
from gpt3.errors import InputError, RunError
from gpt3.progress import Progress

POLL_SECONDS = 0.2

Report = Callable[[float], None]
"""Told the MB of text done, every now and then."""


def share(
    make: Callable[..., Callable[[Any], Any]],
    arguments: tuple[Any, ...],
    items: Sequence[Any],
    workers: int | Executor,
    progress: Progress,
    remedy: str,
) -> list[Any]:
    """``[make(*arguments, report)(item) for item in items]``, by several processes or in this one.

    Args:
        make: called once in each process, with a `Report` as its last argument; picklable, as `arguments` and `items` are. The
            arguments should be small: until they have arrived, Ctrl-C still ends a worker with a traceback.
        workers: processes; 1: this one; or an executor, whose workers share this machine's files (see `Task`).
        progress: of the work, in MB.
        remedy: what to do if a process is killed.

    Raises:
        InputError: as the work does.
        RunError: a process was killed.
    """
    if isinstance(workers, Executor):
        return _share_over(workers, make, arguments, items, progress)
    if workers == 1:
        work = make(*arguments, progress.advance)
        return [work(item) for item in items]
    context = multiprocessing.get_context("spawn")  # alike on every system, and safe whatever threads this process has
    done = context.Value("d", 0.0)
    # Only this process holds the pipe's writing end: when it closes it, or dies, the workers see the end of the pipe.
    watched, held = context.Pipe(duplex=False)
    executor = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start, initargs=(make, arguments, done, watched)
    )
    start = progress.done
    try:
        futures = [executor.submit(_work_on, item) for item in items]
        pending: set[Future[Any]] = set(futures)
        while pending:
            finished, pending = wait(pending, timeout=POLL_SECONDS, return_when=FIRST_EXCEPTION)
            progress.update(start + done.value)
            for future in finished:
                future.result()
        return [future.result() for future in futures]
    except BrokenProcessPool:
        raise RunError(f"a worker process was killed (often: out of memory); {remedy}") from None
    except BaseException:
        held.close()  # an error or Ctrl-C: the workers die in the middle of whatever they do
        raise
    finally:
        executor.shutdown(cancel_futures=True)
        held.close()
        watched.close()


_work: Callable[[Any], Any]  # of a worker process, set by `_start`


def _start(
    make: Callable[..., Callable[[Any], Any]],
    arguments: tuple[Any, ...],
    done: Synchronized[float],
    watched: Connection,
) -> None:
    """Set a worker process up."""
    global _work
    follow_parent(watched)

    def report(size: float) -> None:
        with done.get_lock():
            done.value += size

    _work = make(*arguments, report)


def follow_parent(watched: Connection) -> None:
    """Leave Ctrl-C, which reaches every process, to the parent; die at once when it closes its end of the pipe, or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, args=(watched,), daemon=True).start()


def _die_with_parent(watched: Connection) -> None:
    watched.poll(None)  # nothing is ever sent: this returns when the writing end is closed
    os._exit(1)


def _work_on(item: Any) -> Any:
    return _work(item)


@dataclass(frozen=True)
class Task:
    """What an executor's workers do with each item, wherever they are: they need the same version and the same folder.

    Args:
        token: of this work; a worker calls `make` once for it.
        folder: the working folder of the command, from which paths count.
        version: of this package, which the files depend on.
    """

    token: str
    make: Callable[..., Callable[[Any], Any]]
    arguments: tuple[Any, ...]
    folder: str
    version: str

    def __call__(self, item: Any) -> tuple[Any, float]:
        """The result, and the MB of text done.

        Raises:
            InputError: as the work does; or this worker's version or folder is another.
        """
        if _here.token != self.token:
            if self.version != __version__:
                raise InputError(
                    f"the worker on {platform.node()} is gpt3 {__version__}, the command {self.version}; install one version"
                )
            try:
                os.chdir(self.folder)
            except OSError as error:
                raise InputError(
                    f"{self.folder} is not a folder of {platform.node()} ({error.strerror}). Run the command in a folder, "
                    "with sources and --out, that all machines share."
                ) from None
            _here.work, _here.token = self.make(*self.arguments, _here.report), self.token
        _here.size = 0.0
        return _here.work(item), _here.size


class _Here(threading.local):
    """What a thread of an executor's worker works on."""

    token, size = "", 0.0
    work: Callable[[Any], Any]

    def report(self, size: float) -> None:
        self.size += size


_here = _Here()


def _share_over(
    executor: Executor,
    make: Callable[..., Callable[[Any], Any]],
    arguments: tuple[Any, ...],
    items: Sequence[Any],
    progress: Progress,
) -> list[Any]:
    """`share` by an executor. What its own errors mean is its opener's to say (`gpt3.curation.engines`)."""
    task = Task(secrets.token_hex(8), make, arguments, str(Path.cwd()), __version__)
    finished: SimpleQueue[Future[Any]] = SimpleQueue()
    futures = [executor.submit(task, item) for item in items]
    try:
        for future in futures:
            future.add_done_callback(finished.put)
        for _ in futures:
            progress.advance(finished.get().result()[1])
        return [future.result()[0] for future in futures]
    finally:
        for future in futures:
            future.cancel()
