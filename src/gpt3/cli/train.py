"""``gpt3 train``: train, in this process or in several, then say what was made and what to do next."""

from __future__ import annotations

import os
import time
from pathlib import Path

from gpt3.errors import InputError, RunError
from gpt3.progress import say
from gpt3.report.run_folder import FINAL_MODEL
from gpt3.training.launch import end_with_launcher, launch
from gpt3.training.options import TrainOptions


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

    from gpt3.training.distributed import PeersLostError, Silent

    logging.disable_progress_bar()  # transformers' bars over saves of a second would break our line
    quiet = int(rank or 0) > 0
    try:
        return train_and_tell(options, quiet)
    except Silent:
        return 2
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
        how = "" if options.resume in ("auto", "never") else " without --resume"
        say(f"Saved to {result.folder}. Run the same command{how} to resume.")
        return result.exit_code
    print(f"\nmodel: {result.folder / FINAL_MODEL}   ({time.monotonic() - began:.0f} s in all)")
    if (score := result.score) is not None:
        print(
            f"held-out text: loss {score.loss:.3f}, perplexity {score.perplexity:.1f}, {score.bits_per_byte:.3f} bits per byte"
            f" over {score.tokens:,} tokens"
        )
    print(f"report: {result.folder / 'report.html'}")
    print(f'try next: gpt3 generate --model {result.folder} --temperature 0.7 "The history of"')
    return 0


def cross_validate(options: TrainOptions) -> int:
    """``--folds K``: K runs, each with ``--nproc`` processes. Returns the exit code."""
    from gpt3.training.folds import run_folds
    from gpt3.training.run import RunResult, train

    def one(fold: TrainOptions) -> RunResult:
        if (fold.nproc or 1) == 1:
            return train(fold)
        code, folder = launch(fold), Path(str(fold.out))
        return RunResult(folder, None, 0.0, finished=(folder / FINAL_MODEL).exists(), exit_code=code)

    return run_folds(options, one).exit_code
