"""Sessions of a run that die at a chosen moment, and scripts: a process that has imported everything forks a child for each.

    python kill_server.py < jobs

A job is a line of JSON: ``options`` of TrainOptions, ``cache`` (the cache folder), ``moment`` and ``count``: the child kills
itself with SIGKILL at the `count`-th time that it comes to `moment`. Its answer is a line: the child's exit code, or minus the
signal that ended it; 70 for an error, which is in the log. With ``nproc`` the child is the launcher, whose ranks are forks of it,
and ``rank`` is the one that dies. A job with ``script`` runs a file instead, with ``arguments``, its output in two files of the
folder ``out``.

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
| launcher | after an optimizer step of a rank, which kills not itself but its launcher |
"""

from __future__ import annotations

import dataclasses
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

SECONDS = 600
"""After which a script is stopped."""


class Server:
    """This file as a process, spoken to."""

    def __init__(self, log: Path) -> None:
        self.log, self.scripts = log, 0
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log.open("wb"), text=True,
        )  # fmt: skip

    def sit(
        self, options: dict[str, Any], cache: Path, moment: str = "", count: int = 0, rank: str | None = None
    ) -> int:
        """One session; its exit code, or minus the signal that ended it. Only this `rank` dies, where there are several."""
        return self.ask({"options": options, "cache": str(cache), "moment": moment, "count": count, "rank": rank})

    def script(self, file: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """What ``python FILE ARGUMENTS`` does and prints, without the seconds that its imports take."""
        self.scripts += 1
        out = self.log.parent / f"script-{self.scripts}"
        out.mkdir()
        code = self.ask({"script": str(file), "arguments": arguments, "out": str(out)})
        said = [(out / name).read_text(encoding="utf-8") for name in ("stdout", "stderr")]
        return subprocess.CompletedProcess([str(file), *arguments], code, *said)

    def ask(self, job: dict[str, Any]) -> int:
        """The answer to a job."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, self.log.read_text()
        return int(answer)

    def close(self) -> None:
        self.process.communicate("", timeout=60)


class ForkedRank:
    """In place of a process that runs the launcher's command: a fork of the launcher, which has imported everything."""

    def __init__(self, command: list[str], env: dict[str, str], **how: Any) -> None:
        from gpt3.cli.main import main

        end, self.stdin = os.pipe()
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            os.dup2(end, 0)
            os.close(self.stdin)
            os.environ.update(env)
            Path(env["GPT3_CACHE"], f"rank-{env['RANK']}").write_text(str(os.getpid()))
            os._exit(main(command[3:]))
        os.close(end)

    def poll(self, how: int = os.WNOHANG if os.name != "nt" else 0) -> int | None:
        if self.returncode is None:
            found, status = os.waitpid(self.pid, how)
            self.returncode = os.waitstatus_to_exitcode(status) if found else None
        return self.returncode

    def wait(self) -> int | None:
        return self.poll(0)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def die(rank: str | None) -> None:
    if rank == os.environ.get("RANK"):
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


def arm(moment: str, count: int, rank: str | None) -> None:
    """Make this process, or that rank of it, die at `moment`."""
    from gpt3.training import run, tracking
    from gpt3.training.trainer import Trainer

    come = counted(count, partial(die, rank))
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
        timer = threading.Timer(count / 1000, partial(die, rank))
        timer.daemon = True
        timer.start()
    elif moment == "launcher":
        before(Trainer, "one_step", counted(count, lambda: os.kill(os.getppid(), signal.SIGKILL)), after=True)
    elif moment.startswith("signal-"):
        number = int(moment.removeprefix("signal-"))
        before(Trainer, "accumulate", counted(count, lambda: os.kill(os.getpid(), number)))
    elif moment:
        raise ValueError(moment)


def small_blocks() -> None:
    """Data that is prepared while training comes in blocks so small that a short run reads several."""
    from gpt3.corpus import blocks, growing

    blocks.SIZES = growing.Sizes(block_tokens=2000, head_bytes=20_000, batch_bytes=4000)


def run_script(job: dict[str, Any]) -> int:
    """The exit code of a script, as Python would end it."""
    signal.alarm(SECONDS)
    for number, stream in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(Path(job["out"], stream), os.O_WRONLY | os.O_CREAT), number)
    sys.argv[:] = [job["script"], *job["arguments"]]
    code: object = 0
    try:
        runpy.run_path(job["script"], run_name="__main__")
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    return int(code or 0) if isinstance(code, (int, type(None))) else 1


def main() -> None:
    import torch

    torch.set_num_threads(1)
    import gpt3.training.run  # noqa: F401 - imported once for all children
    from gpt3.cli import train
    from gpt3.training import distributed, validation
    from gpt3.training.options import TrainOptions

    distributed.gemm_flops = lambda *arguments: 1e11  # measuring it takes half a second in each session
    validation.NEW_TOKENS = 12
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0 and "script" in job:
            os._exit(run_script(job))
        if child == 0:
            os.environ["GPT3_CACHE"] = job["cache"]
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            small_blocks()
            arm(job["moment"], job["count"], job["rank"])
            train.subprocess = SimpleNamespace(Popen=ForkedRank, PIPE=None)
            code = 70
            try:
                code = train.run(TrainOptions(**job["options"]))
            except Exception as error:
                print(f"{job['moment']} {job['count']}: {error!r}", file=sys.stderr, flush=True)
            os._exit(code)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
