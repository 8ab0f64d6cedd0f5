"""``--resume PATH`` continues the run that a checkpoint belongs to: on its own data, tokenizer and shape, to its end or further.

Everything is checked before anything is changed. Whoever wants a checkpoint's weights on other data starts a new run from them:
``--init-from`` (gpt3.training.init_from).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from gpt3.durable import discard
from gpt3.errors import InputError
from gpt3.progress import say
from gpt3.report.run_folder import CONFIG, FINAL_MODEL
from gpt3.tables import counted
from gpt3.tokenizer.loading import TOKENIZER_FILE, load_tokenizer, tokenizer_hash
from gpt3.training.checkpoint import STATE, checkpoints, damage, newest_whole, read_state, step_of
from gpt3.training.distributed import ALONE, World
from gpt3.training.options import TrainOptions
from gpt3.training.plan import Plan
from gpt3.work_folder import Settings, differences

AUTOMATIC = ("auto", "never")
"""What --resume may be besides a path."""
SAME = (
    "data", "mixture", "replay", "filter", "near_duplicates", "stream", "validation_fraction", "fold", "seed", "mask_documents",
    "tokenizer", "model", "init_from", "layers", "width", "heads", "window", "context", "positions", "pre_layernorm",
)  # fmt: skip
"""Options that make a run what it is: what it reads in which order, as which tokens, in a model of which shape."""
ASIDE = "aside-"


def named_checkpoint(resume: str, world: World = ALONE) -> Path:
    """The checkpoint that ``--resume PATH`` names, whole: PATH itself, or the newest whole one of the run PATH.

    A collective of the `world`.

    Raises:
        InputError: there is none, it is damaged, of another format, or without its run's config.yaml.
    """
    path = Path(resume)
    reason: str | None = None
    if world.agree((path / STATE).is_file):
        reason = damage(path, world)
    else:
        newest = newest_whole(path / "checkpoints", world)[0]
        if newest is None:
            raise InputError(
                f"--resume {resume} is neither auto, never nor a checkpoint or a run that has one. Name a run folder, or a "
                "runs/NAME/checkpoints/step-N"
            )
        path = newest
    step = read_state(path)["step"]
    if path.name != f"step-{step}":
        raise InputError(f"--resume {path} holds step {step}. Rename it to step-{step}, so that its place is known")
    if reason:
        raise InputError(f"--resume {path} is damaged: {reason}; use --resume auto for the newest whole one")
    if not (home(path) / CONFIG).is_file():
        raise InputError(
            f"--resume {path}: {home(path) / CONFIG} is missing, so what it was trained on is unknown. Copy the whole run "
            f"folder, or start a new run from its weights: gpt3 train --init-from {path}"
        )
    return path


def home(checkpoint: Path) -> Path:
    """The run folder that a checkpoint is in."""
    return checkpoint.absolute().parent.parent


def run_folder_for(checkpoint: Path, options: TrainOptions) -> Path:
    """The run folder that resumes `checkpoint`: its own.

    Raises:
        InputError: ``--out`` names another one; ``--minutes``; other data, tokenizer or shape than the run's.
    """
    folder = checkpoint.parent.parent if len(checkpoint.parts) > 2 else home(checkpoint)
    what = f"--resume {checkpoint}"
    if options.out is not None and Path(options.out).absolute() != home(checkpoint):
        raise InputError(
            f"{what} resumes the run in {folder}, not --out {options.out}. Leave out --out, or start a new run from its "
            f"weights: gpt3 train --init-from {checkpoint} --out {options.out}"
        )
    if options.minutes is not None:
        raise InputError(
            f"{what} --minutes {options.minutes:g}: a run is extended to a length. Give --steps or --tokens"
        )
    defaults = TrainOptions()
    given = {name: getattr(options, name) for name in SAME if getattr(options, name) != getattr(defaults, name)}
    check_same_run(what, saved_options(folder), given, str(checkpoint))
    return folder


def saved_options(folder: Path) -> dict[str, Any]:
    """The options that a run settled on, from its config.yaml.

    Raises:
        InputError: it cannot be read.
    """
    try:
        saved = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
        if isinstance(saved, dict):
            return saved
        reason = "it is not a list of options"
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
    raise InputError(f"{folder} cannot be resumed: its {CONFIG} is unreadable ({reason}). Use --resume never.")


def check_same_run(what: str, before: Mapping[str, Any], now: Mapping[str, Any], weights: str) -> None:
    """Refuse to resume a run on other data, with another tokenizer or in another shape; of others nothing is said.

    Args:
        what: the run as the message names it.
        before, now: options of the run, and of today; those that are missing today are not compared.
        weights: the run or checkpoint, for the way out: ``--init-from WEIGHTS``.

    Raises:
        InputError: naming what differs.
    """
    defaults = TrainOptions()
    compared = [name for name in SAME if name in now]
    found = differences(
        {name: before.get(name, getattr(defaults, name)) for name in compared}, {name: now[name] for name in compared}
    )
    if found:
        raise InputError(
            f"{what} is another run: {'; '.join(found)}. A run resumes on its own data, tokenizer and shape. To train its "
            f"weights on others, start a new run: gpt3 train --init-from {weights}"
        )


def check_resumed(checkpoint: Path, folder: Path, plan: Plan, data_hash: str) -> None:
    """Refuse data of another tokenizer than the checkpoint's, a run that ends before the checkpoint or has ended there, and
    steps without a rate.

    Args:
        folder: the run folder.
        data_hash: `tokenizer_hash` of the tokenizer that made the data.

    Raises:
        InputError: with both hashes; with the step, and what to give.
    """
    own = tokenizer_hash(load_tokenizer(checkpoint)) if (checkpoint / TOKENIZER_FILE).is_file() else data_hash
    if own != data_hash:
        raise InputError(
            f"{checkpoint} was trained with another tokenizer (hash {own[:12]}) than the one that made the data (hash "
            f"{data_hash[:12]}). Resume with the run's own data; new data goes to a new run: gpt3 train --init-from {checkpoint}"
        )
    step = int(read_state(checkpoint)["step"])
    if step > plan.steps:
        raise InputError(
            f"{checkpoint} is at step {step:,}, past the {counted(plan.steps, 'step')} ({plan.tokens:,} tokens) that the run "
            "is to have. Give more with --steps or --tokens, or resume from an earlier checkpoint."
        )
    if step == plan.steps and (folder / FINAL_MODEL).exists():
        raise InputError(
            f"{folder} is finished: {checkpoint.name} is its last of {counted(plan.steps, 'step')}. To extend it, give more "
            "with --steps or --tokens."
        )
    if plan.min_lr == 0 and plan.decay_tokens < plan.tokens:
        raise InputError(
            f"{folder}: its rate comes to 0 at {plan.decay_tokens:,} tokens, so steps beyond would learn nothing. Give "
            f"--decay-tokens {plan.tokens}, or start a new run from its weights: gpt3 train --init-from {checkpoint}"
        )


def extended(before: Mapping[str, Any], now: Settings) -> dict[str, Any]:
    """The requested options of a run that resumes with some new ones: those it was started with, and today's."""
    given = {name: value for name, value in now.items() if value != now.defaults.get(name)}
    lengths = dict.fromkeys(("tokens", "steps", "minutes")) if {"tokens", "steps"} & given.keys() else {}
    return {**before, **lengths, **given}


def move_aside(folder: Path, checkpoint: Path) -> None:
    """Rename what a run went on to after `checkpoint`: later checkpoints, and the final model of a run that is extended."""
    there = checkpoints(folder / "checkpoints")
    last = max((step_of(path) for path in there), default=0)
    step = int(read_state(checkpoint)["step"])
    later = [(path, path.with_name(ASIDE + path.name)) for path in there if step_of(path) > step]
    if (folder / FINAL_MODEL).exists():
        later.append((folder / FINAL_MODEL, folder / f"{ASIDE}{FINAL_MODEL}-step-{last}"))
    for path, aside in later:
        discard(aside)
        os.replace(path, aside)
        say(f"{path} was moved to {aside.name}: the run resumes from {checkpoint.name}.")
