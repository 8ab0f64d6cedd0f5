"""A whole pretraining run: data, plan, model, run folder, loop, final model folder."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt3.errors import InputError, RunError, require
from gpt3.ladder.presets import Preset, preset
from gpt3.progress import say
from gpt3.training.options import TrainOptions
from gpt3.training.plan import checked_context
from gpt3.training.run_folder import FINAL_MODEL, choose_folder
from gpt3.work_folder import locked_folder

if TYPE_CHECKING:
    from gpt3.model import GPT3ForCausalLM
    from gpt3.training.loop import Evaluator
    from gpt3.training.validation import Score


@dataclass(frozen=True)
class RunResult:
    """What a run came to."""

    folder: Path
    """The run folder."""
    score: Score | None
    """The last validation of the run's own held-out documents; None for an interrupted run or without such."""
    seconds: float
    """Training seconds, validation and saving left out."""
    finished: bool
    """False: interrupted after a checkpoint; the same command goes on."""
    exit_code: int = 0
    """130 or 143 after a signal."""


def run(options: TrainOptions) -> int:
    """``gpt3 train``: train, then say what was made and what to do next. Returns the exit code."""
    ranked = "RANK" in os.environ
    if options.folds is not None:
        from gpt3.training.folds import run_folds

        if ranked:
            raise InputError(f"--folds {options.folds} starts its runs itself; give --nproc in place of torchrun")
        return run_folds(options, train_fold).exit_code
    if options.nproc is not None and options.nproc > 1 and not ranked:
        from gpt3.training.launch import launch

        return launch(options)
    if ranked:
        from gpt3.training.launch import end_with_launcher

        end_with_launcher()
    from transformers.utils import logging

    from gpt3.training.distributed import PeersLostError, Silent

    logging.disable_progress_bar()  # transformers' bars over saves of a second would break our line
    quiet = int(os.environ.get("RANK", "0")) > 0
    try:
        return _run(options, quiet)
    except Silent:
        return 2
    except (InputError, RunError) as error:
        if quiet:  # what all ranks agree on rank 0 says; what befell this one alone, only this one can
            if isinstance(error, RunError) and not isinstance(error, PeersLostError):
                say(f"gpt3 train: rank {os.environ['RANK']}: {error}")
            return 2 if isinstance(error, InputError) else 1
        raise


def _run(options: TrainOptions, quiet: bool) -> int:
    began = time.monotonic()
    result = train(options)
    if quiet or options.plan:
        return result.exit_code
    if not result.finished:
        how = "" if options.resume in ("auto", "never") else " without --resume"
        say(f"Saved to {result.folder}. Run the same command{how} to resume.")
        return result.exit_code
    print(f"\nmodel: {result.folder / FINAL_MODEL}   ({time.monotonic() - began:.0f} s in all)")
    if result.score is not None:
        score = result.score
        print(
            f"held-out text: loss {score.loss:.3f}, perplexity {score.perplexity:.1f}, {score.bits_per_byte:.3f} bits per byte"
            f" over {score.tokens:,} tokens"
        )
    print(f"report: {result.folder / 'report.html'}")
    print(f'try next: gpt3 generate --model {result.folder} --temperature 0.7 "The history of"')
    return 0


def train_fold(options: TrainOptions) -> RunResult:
    """One run of a cross-validation, with as many ranks as ``--nproc`` says."""
    if options.nproc is None or options.nproc == 1:
        return train(options)
    from gpt3.training.launch import launch

    code = launch(options)
    folder = Path(str(options.out))
    return RunResult(folder, None, 0.0, finished=(folder / FINAL_MODEL).exists(), exit_code=code)


def train(options: TrainOptions | None = None, *, evaluators: Sequence[Evaluator] = (), **overrides: Any) -> RunResult:
    """Pretrain a model. Under torchrun every rank calls it.

    Args:
        options: what to do; `overrides` are fields of it given by name.
        evaluators: further measurements while training, see gpt3.training.loop.Evaluator.

    Raises:
        InputError: see TrainOptions, gpt3.corpus and `choose_folder`.
        RunError: too many steps were skipped in a row, a checkpoint could not be written, another rank was lost.
    """
    options = dataclasses.replace(options or TrainOptions(), **overrides)
    if options.folds is not None:
        raise InputError(f"--folds {options.folds} makes several runs; call gpt3.training.folds.run_folds for them")
    if (options.nproc or 1) > 1 and "RANK" not in os.environ:
        raise InputError(f"--nproc {options.nproc} starts processes from the command line; in Python use torchrun")
    shape = shape_of(options)
    for tracker in ("wandb", "tensorboard"):  # before the work, not after it
        if tracker in options.track:
            require(tracker, extra=tracker, purpose=f"--track {tracker}")
    if options.probe_names:
        from gpt3.evaluation.probe import check_names

        check_names(options.probe_names)
    from gpt3.training.distributed import open_world

    with full_machine(), open_world(options.device) as world, contextlib.ExitStack() as held:
        from gpt3.training.pretraining import Pretraining

        def claim() -> list[Any]:
            folder, goes_on = choose_folder(options, shape.name)
            if not options.plan:
                held.enter_context(locked_folder(folder))
            return [str(folder), goes_on]

        folder, goes_on = world.agree(claim)
        return Pretraining(options, shape, Path(folder), goes_on, world, evaluators).run()


@contextlib.contextmanager
def full_machine() -> Iterator[None]:
    """A full disk, a file-size limit or full GPU memory as one line.

    Raises:
        RunError: in place of the OSError or OutOfMemoryError.
    """
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        raise RunError(f"{reason}; use a smaller --micro-batch, --gradient-checkpointing or --parallel fsdp") from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise RunError(
            f"cannot write {error.filename or 'the run folder'}: {error.strerror}; make room, then the same command goes on from "
            "the last checkpoint"
        ) from None


def shape_of(options: TrainOptions) -> Preset:
    """The preset, with the shape options put in.

    Raises:
        InputError: an unknown preset, heads that do not divide the width, a context beyond the positions.
    """
    base = preset(options.model)
    width = options.width or base.d_model
    heads = options.heads or base.n_heads
    if width % heads:
        raise InputError(f"--width {width} is not a multiple of --heads {heads}; choose heads that divide it")
    resized = options.width is not None or options.heads is not None
    context = checked_context(options, base)
    return dataclasses.replace(
        base,
        n_layers=options.layers or base.n_layers,
        d_model=width,
        n_heads=heads,
        d_head=width // heads if resized else base.d_head,
        window=options.window or base.window,
        context=context,
        batch_tokens=max(1, base.batch_tokens // context) * context,
    )


def build_model(options: TrainOptions, shape: Preset, vocab_size: int, end_of_text: int) -> GPT3ForCausalLM:
    """A model of this shape with fresh weights."""
    from gpt3.model import GPT3ForCausalLM

    rate = options.dropout
    config = shape.config(
        vocab_size=vocab_size, bos_token_id=end_of_text, eos_token_id=end_of_text,
        resid_pdrop=rate, embd_pdrop=rate, attn_pdrop=rate,
    )  # fmt: skip
    model = GPT3ForCausalLM(config)
    if options.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    return model
