"""``gpt3 train``: train, in this process or in several, then say what was made and what to do next.

``--nproc N`` does what torchrun does, for one machine and with one line of explanation: when a process (rank) dies, the others
are stopped at once, and its end is reported. A signal to this process is passed on to all ranks, which finish their step and
save. A rank's standard input is a pipe that only this process holds open: when it is killed, the pipe ends on every system, and
each rank with it (`end_with_launcher`).
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import shlex
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

from gpt3.device import usable_cores
from gpt3.errors import InputError, RunError
from gpt3.progress import say
from gpt3.report.run_folder import FINAL_MODEL
from gpt3.training.options import TrainOptions

LAUNCHED = "GPT3_LAUNCHED"
"""Set for the ranks of a launcher: standard input tells of its end."""
PROMPT_WORDS = 5
"""Of the run's first sample prompt, in the command that is proposed next."""
GRACE_SECONDS = 15.0
"""How long the other ranks may take to stop by themselves after one has ended."""


def run(options: TrainOptions) -> int:
    """Train. Under torchrun or ``--nproc`` every process runs it. Returns the exit code.

    Raises:
        InputError, RunError: see `gpt3.training.run.train`.
    """
    rank = os.environ.get("RANK")

    if options.folds is not None:
        if rank is not None:
            raise InputError(f"--folds {options.folds} starts its runs itself; use --nproc instead of torchrun")
        return cross_validate(options)
    if (options.nproc or 1) > 1 and rank is None:
        return launch(options)
    end_with_launcher()

    from transformers.utils import logging

    from gpt3.training.distributed import PeersLostError

    logging.disable_progress_bar()  # transformers' bars over saves of a second would break our line
    quiet = int(rank or 0) > 0
    try:
        return train_and_tell(options, quiet)
    except (InputError, RunError) as error:
        if not quiet:
            raise
        # rank 0 reports what all ranks agree on; what befell this one alone, only this one can
        if isinstance(error, RunError) and not isinstance(error, PeersLostError):
            say(f"gpt3 train: process {rank}: {error}")
        return 2 if isinstance(error, InputError) else 1


def train_and_tell(options: TrainOptions, quiet: bool) -> int:
    """Train, and unless `quiet` say how it went. Returns the exit code."""
    from gpt3.training.run import train

    began = time.monotonic()
    result = train(options)
    if quiet or options.plan:
        return result.exit_code
    if not result.finished:
        automatic = options.resume in ("auto", "never")
        how = "the same command" if automatic else f"gpt3 train --resume {result.folder}"
        say(f"Saved to {result.folder}. Run {how} to resume.")
        return result.exit_code
    print(f"\nmodel: {result.folder / FINAL_MODEL}   ({time.monotonic() - began:.0f} s in all)")
    if (score := result.score) is not None:
        print(
            f"held-out text: loss {score.loss:.3f}, perplexity {score.perplexity:.1f}, {score.bits_per_byte:.3f} bits per byte"
            f" over {score.tokens:,} tokens"
        )
    if result.energy is not None:
        print(f"energy: {result.energy}")
    if result.noise_scale is not None:
        print(f"gradient noise scale: {result.noise_scale:,.0f} tokens at the end (docs/training.md)")
    for line in result.outlook:
        print(line)
    print(f"report: {result.folder / 'report.html'}")
    if result.skipped:
        print(f"skipped steps: {result.skipped:,} (metrics.jsonl and the report say why)")
    prompt = opening(result.prompt, whole=bool(options.sample_prompt))
    print(f'try next: gpt3 generate --model {shlex.quote(str(result.folder))} --temperature 0.7 "{prompt}"')
    return 0


def opening(prompt: str, whole: bool) -> str:
    """The first words of a prompt's first line, such that any shell takes them literally between double quotes.

    Args:
        whole: False: its last word may have been cut short, where no space follows.
    """
    cut = not whole and len(prompt.split()) > 1 and not prompt[-1].isspace()
    prompt = prompt.rpartition(" ")[0] if cut else prompt
    words = re.sub(r'["`$%!\\]', "", prompt.strip().partition("\n")[0]).split()[:PROMPT_WORDS]
    return " ".join(word for word in words if word.isprintable()) or "The"


def cross_validate(options: TrainOptions) -> int:
    """``--folds K``: K runs, each with ``--nproc`` processes. Returns the exit code."""
    from gpt3.training.folds import run_folds
    from gpt3.training.run import train
    from gpt3.training.run_folder import RunResult

    def one(fold: TrainOptions) -> RunResult:
        if (fold.nproc or 1) == 1:
            return train(fold)
        code, folder = launch(fold), Path(str(fold.out))
        return RunResult(folder, None, 0.0, finished=(folder / FINAL_MODEL).exists(), exit_code=code)

    return run_folds(options, one).exit_code


# ---------------------------------------------------------------------------------------------------------- the processes


def launch(options: TrainOptions) -> int:
    """Run `options.nproc` ranks of this command and return the exit code they agree on.

    Raises:
        RunError: a rank was killed or failed while the others had not.
    """
    count = options.nproc or 1
    if count > usable_cores():
        say(f"warning: --nproc {count} exceeds this machine's {usable_cores()} cores; the processes will share them")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), LAUNCHED: "1"}
    common |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    if os.name == "nt":
        common.setdefault("USE_LIBUV", "0")  # torch is built without it there
    common.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // count)))
    ranks: list[subprocess.Popen[bytes]] = []

    def forward(number: int, frame: FrameType | None) -> None:
        if os.name == "nt" and number == signal.SIGINT:
            return  # Windows' Ctrl-C reaches every process of the console on its own
        for rank in ranks:
            if rank.poll() is None:
                rank.send_signal(number)

    with tempfile.TemporaryDirectory(prefix="gpt3-launch-") as folder:
        config = Path(folder) / "options.yaml"
        config.write_text(yaml.safe_dump(asdict(options), sort_keys=False), encoding="utf-8")
        command = [sys.executable, "-m", "gpt3", "train", "--config", str(config)]
        old = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            for rank in map(str, range(count)):
                own = common | {"RANK": rank, "LOCAL_RANK": rank}
                # in sessions of their own a terminal's Ctrl-C reaches them once, through `forward`
                ranks.append(
                    subprocess.Popen(command, env=own, stdin=subprocess.PIPE, start_new_session=os.name != "nt")
                )
            return watch(ranks)
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
            for process in ranks:
                process.kill()  # does nothing to one that has ended
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


def watch(ranks: list[subprocess.Popen[bytes]]) -> int:
    """Wait until all ranks have ended; stop the rest when one ends badly.

    Raises:
        RunError: the ranks' ends differ, or one was killed.
    """
    deadline = math.inf
    failed: list[int] = []  # in the order of their ends
    while True:
        running = [rank for rank in ranks if rank.poll() is None]
        failed += [number for number, rank in enumerate(ranks) if rank.returncode and number not in failed]
        if failed:
            deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
        if not running or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    for rank in running:
        rank.kill()
    codes = [rank.wait() for rank in ranks]
    if len(set(codes)) == 1 and codes[0] >= 0:
        return codes[0]
    # one that was killed is the cause, the others' errors its consequence
    broken = next((number for number in failed if codes[number] < 0), failed[0])
    code = codes[broken]
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    raise RunError(
        f"process {broken} of {len(ranks)} {how}; the others were stopped. Run the same command to resume from the last "
        "checkpoint."
    )
