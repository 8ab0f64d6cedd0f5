"""``gpt3 train --nproc N``: N ranks of the same command on this machine, watched as one.

What torchrun does, for one machine and with one line of explanation: when a rank dies, the others are stopped at once, and its
end is reported. A signal to this process is passed on to all ranks, which finish their step and save. A rank's standard input is
a pipe that only this process holds open: when it is killed, the pipe ends on every system, and each rank with it
(`end_with_launcher`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path
from types import FrameType

import yaml

from gpt3.errors import RunError
from gpt3.training.options import TrainOptions

LAUNCHED = "GPT3_LAUNCHED"
"""Set for the ranks of a launcher: standard input tells of its end."""
GRACE_SECONDS = 15.0
"""How long the other ranks may take to stop by themselves after one has ended."""


def launch(options: TrainOptions) -> int:
    """Run `options.nproc` ranks and return the exit code they agree on.

    Raises:
        RunError: a rank was killed or failed while the others had not.
    """
    assert options.nproc is not None
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    threads = max(1, (os.cpu_count() or 1) // options.nproc)
    with tempfile.TemporaryDirectory(prefix="gpt3-launch-") as folder:
        config = Path(folder) / "options.yaml"
        config.write_text(yaml.safe_dump(asdict(options), sort_keys=False), encoding="utf-8")
        common = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(options.nproc)}
        common |= {"LOCAL_WORLD_SIZE": str(options.nproc), LAUNCHED: "1"}
        common.setdefault("OMP_NUM_THREADS", str(threads))
        ranks: list[subprocess.Popen[bytes]] = []
        old = {
            number: signal.signal(number, lambda n, f: forward(ranks, n, f))
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            command = [sys.executable, "-m", "gpt3", "train", "--config", str(config)]
            for rank in range(options.nproc):
                own = common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                # in sessions of their own a terminal's Ctrl-C reaches them once, through `forward`
                ranks.append(
                    subprocess.Popen(command, env=own, stdin=subprocess.PIPE, start_new_session=os.name != "nt")
                )
            return watch(ranks)
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
            for process in ranks:
                if process.poll() is None:
                    process.kill()
                process.wait()


def end_with_launcher() -> None:
    """In a rank that `launch` started: end at once when the launcher is gone, however it went. Else nothing.

    What a kill may do to files it may do here: checkpoints are whole or not there. There is no time for a last one; nobody
    would wait for it.
    """
    if os.environ.pop(LAUNCHED, None) is None:
        return

    def wait() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 1):  # returns nothing when the other end is closed
                pass
        os._exit(1)

    threading.Thread(target=wait, name="launcher's end", daemon=True).start()


def forward(ranks: list[subprocess.Popen[bytes]], number: int, frame: FrameType | None) -> None:
    """Pass a signal on. On Windows Ctrl-C reaches every process of the console by itself."""
    if os.name == "nt" and number == signal.SIGINT:
        return
    for rank in ranks:
        if rank.poll() is None:
            rank.send_signal(number)


def watch(ranks: list[subprocess.Popen[bytes]]) -> int:
    """Wait until all ranks have ended; stop the rest when one ends badly.

    Raises:
        RunError: the ranks' ends differ, or one was killed.
    """
    deadline: float | None = None
    first: int | None = None
    stopped: set[int] = set()  # by us
    while any(rank.poll() is None for rank in ranks):
        for number, rank in enumerate(ranks):
            if first is None and rank.returncode not in (None, 0):
                first, deadline = number, time.monotonic() + GRACE_SECONDS
        if deadline is not None and time.monotonic() > deadline:
            for number, rank in enumerate(ranks):
                if rank.poll() is None:
                    stopped.add(number)
                    rank.kill()
        time.sleep(0.05)
    codes = [rank.returncode for rank in ranks]
    if len(set(codes)) == 1 and codes[0] >= 0:
        return codes[0]
    # one that was killed is the cause, the others' errors its consequence
    killed = [number for number, code in enumerate(codes) if code < 0 and number not in stopped]
    failed = [number for number, code in enumerate(codes) if code]
    broken = next(iter([*killed, *([] if first is None else [first]), *failed]))
    code = codes[broken]
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    raise RunError(
        f"process {broken} of {len(ranks)} {how}; the others were stopped. Run the same command to resume from the last "
        "checkpoint."
    )
