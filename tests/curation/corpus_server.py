"""Sessions of `gpt3 corpus` that fail at a chosen moment: a process that has imported everything forks a child for each.

    python corpus_server.py < jobs

A job is a line of JSON: ``words`` of the command line, ``folder`` to work in, ``who`` fails, ``event`` and ``count``. The answer
is a line of JSON: ``code``, the child's exit code or minus the signal that ended it, and ``said``, what it wrote. Workers are
forks of the child.

| event | what happens |
|---|---|
| kill | the driver or a worker kills itself just before its `count`-th change of the file system |
| later | the driver kills itself after `count` thousandths of a second, or a worker does so after its start |
| full | from its `count`-th change of the file system on, each is refused: the disk is full |
"""

from __future__ import annotations

import ctypes
import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

CHUNK_BYTES = 16_000
SUBREAPER, PARENT_DEATH = 36, 1
"""Of Linux's prctl."""
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}


class Server:
    """This file as a process, spoken to."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log.open("wb"), text=True,
        )  # fmt: skip

    def run(self, folder: Path, *words: str, who: str = "driver", event: str = "", count: int = 0) -> tuple[int, str]:
        """One session: its exit code, or minus the signal that ended it, and what it said."""
        job = {"folder": str(folder), "words": words, "who": who, "event": event, "count": count}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, self.log.read_text()
        found = json.loads(answer)
        return found["code"], found["said"]

    def close(self) -> None:
        self.process.communicate("", timeout=60)


def arm(who: str, event: str, count: int) -> None:
    """Make this process or its workers fail."""
    driver, seen = os.getpid(), 0

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def watch(name: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        writes = name == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        if (name in CHANGES or writes) and (os.getpid() == driver) == (who == "driver"):
            seen += 1
            if event == "kill" and seen == count:
                die()
            if event == "full" and seen >= count and name not in ("os.remove", "os.rmdir"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def time_out() -> None:
        timer = threading.Timer(count / 1000, die)
        timer.daemon = True
        timer.start()

    if event == "later":
        time_out() if who == "driver" else os.register_at_fork(after_in_child=time_out)
    elif event:
        sys.addaudithook(watch)


def prepare() -> None:
    """Import everything, compile what numba compiles, and make parts and chunks so small that there are many."""
    from gpt3.cli import main, prepare  # noqa: F401
    from gpt3.corpus import segments
    from gpt3.curation import chunks, classifier, clusters, corpus, features, language, statistics  # noqa: F401
    from gpt3.curation.near_duplicates import NearDuplicateOptions

    texts = ["The river of the hills.", "The river of the hills.", "A stone."]
    statistics.measure(texts)
    options = NearDuplicateOptions()
    signed = options.signatures(texts)
    block = clusters.Block(options.keys(signed), signed)
    import numpy as np

    parents = np.zeros(3, dtype=np.int64)
    clusters.join_buckets([block], parents, 1 << 20)
    clusters.judge([block], parents, 0.7, 1 << 20)
    classifier.learn(texts[:2] * 20, texts[2:] * 40)
    features.words_of(texts)
    language.languages(texts)
    chunks.read_sources.__defaults__ = (CHUNK_BYTES,)
    chunks.GROUP_BYTES = 5000
    segments.SEGMENT_BYTES, segments.BATCH_BYTES = 20_000, 5000


def session(job: dict[str, Any]) -> None:
    """What a child does."""
    from gpt3.cli.main import main

    os.chdir(job["folder"])
    os.dup2(os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
    os.dup2(1, 2)
    # A fork inherits the pipe by which a worker sees its driver's end, so that it never does: the system ends it instead.
    os.register_at_fork(after_in_child=lambda: ctypes.CDLL(None).prctl(PARENT_DEATH, signal.SIGKILL, 0, 0, 0))
    fork = multiprocessing.get_context("fork")
    multiprocessing.get_context = lambda method=None: fork  # type: ignore[assignment, return-value]
    code = 70
    try:
        arm(job["who"], job["event"], job["count"])
        code = main(job["words"])
    finally:
        os._exit(code)


def main() -> None:
    prepare()
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)  # workers whose driver died are waited for here
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            session(job)
        code = 0
        try:
            while True:
                pid, status = os.wait()
                code = os.waitstatus_to_exitcode(status) if pid == child else code
        except ChildProcessError:
            pass
        said = Path(job["folder"], "said.txt").read_text(encoding="utf-8")
        print(json.dumps({"code": code, "said": said}), flush=True)


if __name__ == "__main__":
    main()
