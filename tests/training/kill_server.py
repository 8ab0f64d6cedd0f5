"""Sessions of a run that die at a chosen moment: a process that has imported everything forks a child for each.

    python kill_server.py < jobs

A job is a line of JSON: ``options`` of TrainOptions, ``cache`` (the cache folder), ``moment`` and ``count``: the child kills
itself with SIGKILL at the `count`-th time that it comes to `moment`. Its answer is a line: the child's exit code, or minus the
signal that ended it.

| moment | where |
|---|---|
| step | in a training step, gradients there, weights not yet changed |
| stepped | after an optimizer step, before it is logged |
| record | half a line of metrics.jsonl is written |
| fsync | a file is written and not yet on the disk: in a checkpoint, a shard, a configuration |
| rename | on the disk under its temporary name |
| renamed | just after it has its name |
| remove | an old checkpoint is about to be removed |
| later | `count` thousandths of a second after the start, whatever happens then |
| signal-N | signal N arrives in the `count`-th step |
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def counted(count: int, strike: Callable[[], None]) -> Callable[[], None]:
    """A function that calls `strike` the `count`-th time it is called, from whatever thread."""
    lock, seen = threading.Lock(), [0]

    def come() -> None:
        with lock:
            seen[0] += 1
            now = seen[0] == count
        if now:
            strike()

    return come


def before(owner: Any, name: str, come: Callable[[], None], after: bool = False) -> None:
    """Let `come` be called before (or after) each call of `owner.name`."""
    original = getattr(owner, name)

    def wrapped(*arguments: Any, **keywords: Any) -> Any:
        if not after:
            come()
        result = original(*arguments, **keywords)
        if after:
            come()
        return result

    setattr(owner, name, wrapped)


def arm(moment: str, count: int) -> None:
    """Make this process die at `moment`."""
    from gpt3.training import run, tracking
    from gpt3.training.trainer import Trainer

    come = counted(count, die)
    if moment == "step":
        before(Trainer, "accumulate", come, after=True)
    elif moment == "stepped":
        before(Trainer, "one_step", come, after=True)
    elif moment == "record":

        def half(path: Path, resume_step: int) -> tracking.Tracker:
            def log(record: Any) -> None:
                text = tracking.line(record)
                for part, after in ((text[: len(text) // 2], come), (text[len(text) // 2 :], lambda: None)):
                    with open(path, "a", encoding="utf-8") as file:
                        file.write(part)
                    after()

            return dataclasses.replace(record_file(path, resume_step), log=log)

        record_file = tracking.record_file
        tracking.record_file = run.record_file = half
    elif moment == "fsync":
        before(os, "fsync", come)
    elif moment == "rename":
        before(os, "replace", come)
    elif moment == "renamed":
        before(os, "replace", come, after=True)
    elif moment == "remove":
        before(shutil, "rmtree", come)
    elif moment == "later":
        timer = threading.Timer(count / 1000, die)
        timer.daemon = True
        timer.start()
    elif moment.startswith("signal-"):
        number = int(moment.removeprefix("signal-"))
        before(Trainer, "accumulate", counted(count, lambda: os.kill(os.getpid(), number)))
    elif moment:
        raise ValueError(moment)


def small_blocks() -> None:
    """Data that is prepared while training comes in blocks so small that a short run reads several."""
    from gpt3.corpus import blocks, growing

    blocks.SIZES = growing.Sizes(block_tokens=2000, head_bytes=20_000, batch_bytes=4000)


def main() -> None:
    import torch

    torch.set_num_threads(1)
    import gpt3.training.run  # noqa: F401 - imported once for all children
    from gpt3.cli.train import run
    from gpt3.training.options import TrainOptions

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            os.environ["GPT3_CACHE"] = job["cache"]
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            small_blocks()
            arm(job["moment"], job["count"])
            code = 70
            try:
                code = run(TrainOptions(**job["options"]))
            except Exception as error:
                print(f"{job['moment']} {job['count']}: {error!r}", file=sys.stderr, flush=True)
            os._exit(code)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
