"""A whole pretraining run: data, plan, model, run folder, loop, final model folder."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from gpt3.durable import check_room, replacing, write_text
from gpt3.errors import InputError, require
from gpt3.ladder import Preset, preset
from gpt3.training.options import TrainOptions
from gpt3.training.plan import DEMO_MINUTES, Plan, make_plan, settled

if TYPE_CHECKING:
    from gpt3.corpus.shards import ShardFolder
    from gpt3.model import GPT3ForCausalLM
    from gpt3.training.validation import Score

CONFIG = "config.yaml"
FINAL_MODEL = "model"
BYTES_A_PARAMETER = 16
"""A checkpoint's bytes a parameter, with room to spare: fp32 weights and Adam's two moments are 12."""
FREE_TO_CHANGE = frozenset({"resume", "out", "track", "keep_checkpoints", "checkpoint_every", "workers", "device"})
"""Options that may differ when an interrupted run goes on: they do not change what is computed."""
EXIT_INTERRUPTED = 130


@dataclass(frozen=True)
class RunResult:
    """What a run came to."""

    folder: Path
    """The run folder."""
    score: Score | None
    """The last validation; None for an interrupted run."""
    seconds: float
    """Training seconds, validation and saving left out."""
    finished: bool
    """False: interrupted after a checkpoint; the same command goes on."""


def run(options: TrainOptions) -> int:
    """``gpt3 train``: train, then say what was made and what to do next. Returns the exit code."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # transformers' bars over saves of a second would break our line
    began = time.monotonic()
    result = train(options)
    if not result.finished:
        print(f"saved in {result.folder}; the same command goes on from there", file=sys.stderr)
        return EXIT_INTERRUPTED
    print(f"\nmodel: {result.folder / FINAL_MODEL}   ({time.monotonic() - began:.0f} s in all)")
    if result.score is not None:
        score = result.score
        print(
            f"held-out text: loss {score.loss:.3f}, perplexity {score.perplexity:.1f}, {score.bits_per_byte:.3f} bits per byte"
            f" over {score.tokens:,} tokens"
        )
    print(f'try next: gpt3 generate --model {result.folder} --temperature 0.7 "The history of"')
    return 0


def train(options: TrainOptions | None = None, **overrides: Any) -> RunResult:
    """Pretrain a model.

    Args:
        options: what to do; `overrides` are fields of it given by name.

    Raises:
        InputError: see TrainOptions, gpt3.corpus and `choose_folder`.
        RunError: the loss is no longer finite.
    """
    options = dataclasses.replace(options or TrainOptions(), **overrides)
    shape = shape_of(options)
    for tracker in ("wandb", "tensorboard"):  # before the work, not after it
        if tracker in options.track:
            require(tracker, extra=tracker, purpose=f"--track {tracker}")

    folder, checkpoint = choose_folder(options, shape)

    from gpt3.training.data import open_data

    shards = open_data(options, shape)
    say(f"run folder: {folder}" + (f", going on from {checkpoint.name}" if checkpoint else ""))
    return _train(options, shape, shards, folder, checkpoint)


def shape_of(options: TrainOptions) -> Preset:
    """The preset, with the shape options put in.

    Raises:
        InputError: an unknown preset, or heads that do not divide the width.
    """
    base = preset(options.model)
    width = options.width or base.d_model
    heads = options.heads or base.n_heads
    if width % heads:
        raise InputError(f"--width {width} is not a multiple of --heads {heads}; choose heads that divide it")
    resized = options.width is not None or options.heads is not None
    context = options.context or base.context
    return dataclasses.replace(
        base,
        n_layers=options.layers or base.n_layers,
        d_model=width,
        n_heads=heads,
        d_head=width // heads if resized else base.d_head,
        window=options.window or base.window,
        context=base.context,
        batch_tokens=max(1, base.batch_tokens // context) * context if context <= base.context else base.batch_tokens,
    )


def choose_folder(options: TrainOptions, shape: Preset) -> tuple[Path, Path | None]:
    """The run folder and the checkpoint to go on from, if any.

    Without --out: the newest runs/MODEL[-N] when it is an unfinished run of these options, else the next free name.

    Raises:
        InputError: --out holds another run, or a finished one, or something else.
    """
    if options.resume not in ("auto", "never"):
        checkpoint = Path(options.resume)
        from gpt3.training.checkpoint import read_state

        read_state(checkpoint)
        return Path(options.out) if options.out else checkpoint.parent.parent, checkpoint
    if options.out is None:
        number, newest = 1, None
        while (candidate := Path("runs") / (shape.name + (f"-{number}" if number > 1 else ""))).exists():
            newest, number = candidate, number + 1
        if newest is None or options.resume == "never" or not is_unfinished(newest, options):
            return candidate, None
        return newest, newest_checkpoint(newest)
    folder = Path(options.out)
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return folder, None
    if options.resume == "auto" and is_unfinished(folder, options):
        return folder, newest_checkpoint(folder)
    what = "a finished run" if (folder / FINAL_MODEL).exists() else "another run or other files"
    raise InputError(f"--out {folder} holds {what}; choose another --out or remove it")


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint of a run folder."""
    from gpt3.training.checkpoint import checkpoints

    found = checkpoints(folder / "checkpoints")
    return found[-1] if found else None


def is_unfinished(folder: Path, options: TrainOptions) -> bool:
    """Whether `folder` is a run of these options that has not ended."""
    if (folder / FINAL_MODEL).exists() or not (folder / CONFIG).exists():
        return False
    return asked_of(folder) == asked(options)


def asked(options: TrainOptions) -> dict[str, Any]:
    """What was asked for, as far as it decides what is computed."""
    return {name: value for name, value in dataclasses.asdict(options).items() if name not in FREE_TO_CHANGE}


def asked_of(folder: Path) -> dict[str, Any] | None:
    """What was asked of the run in `folder`, from its asked.json."""
    path = folder / "asked.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def say(text: str) -> None:
    """A line on stderr."""
    print(text, file=sys.stderr, flush=True)


def _train(
    options: TrainOptions, shape: Preset, shards: ShardFolder, folder: Path, checkpoint: Path | None
) -> RunResult:
    import torch

    from gpt3.corpus.sampler import WindowSampler
    from gpt3.training.checkpoint import load_checkpoint, save_checkpoint
    from gpt3.training.device import choose_compute
    from gpt3.training.loop import Trainer, validation_record
    from gpt3.training.model_card import model_card
    from gpt3.training.optimizer import make_optimizer
    from gpt3.training.samples import SampleWriter
    from gpt3.training.tracking import open_trackers
    from gpt3.training.validation import validate

    if checkpoint is not None:  # a run goes on with the numbers it settled on, not with ones measured anew
        options = settled_options(checkpoint.parent.parent, options)
    split, held_out = shards.split("train"), shards.split("validation")
    if options.minutes is None and options.model == "demo" and options.tokens is None and options.steps is None:
        options = dataclasses.replace(options, minutes=DEMO_MINUTES)
    plan = make_plan(options, shape, len(split))
    tokenizer = shards.tokenizer()
    compute = choose_compute(options.device, options.dtype)

    torch.manual_seed(options.seed)
    model = build_model(options, shape, shards.vocab_size, shards.end_of_text)
    model.to(compute.device)  # type: ignore[arg-type]  # transformers' wrapper hides the signature
    check_room(
        folder, (options.keep_checkpoints + 1) * BYTES_A_PARAMETER * model.num_parameters(), purpose="checkpoints"
    )
    optimizer = make_optimizer(model, options, plan.lr)
    sampler = WindowSampler(split, plan.context, options.seed)
    samples = SampleWriter(folder / "samples.jsonl", model, tokenizer, held_out, options)
    trainer = Trainer(
        model=model,
        optimizer=optimizer,
        plan=plan,
        sampler=sampler,
        compute=compute,
        clip=options.clip,
        mask_documents=options.mask_documents,
        end_of_text=shards.end_of_text,
        trackers=[],
        validate=lambda: validate(
            model, held_out, compute, plan.context, plan.micro_batch, most_tokens=options.validation_tokens
        ),
        sample=samples.write,
        save=lambda step, seconds: save(step, seconds),
    )
    if checkpoint is not None:
        state = load_checkpoint(checkpoint, model, optimizer)
        trainer.step, trainer.seconds = state["step"], state["seconds"]
    if options.compile if options.compile is not None else compute.device.type == "cuda":
        trainer.forward = torch.compile(model)
    if checkpoint is None and options.minutes is not None:
        steps = max(1, int(options.minutes * 60 / trainer.measure_step()))
        plan = trainer.plan = make_plan(options, shape, len(split), steps)

    def save(step: int, seconds: float) -> None:
        save_checkpoint(
            folder / "checkpoints", model, tokenizer, optimizer,
            {"step": step, "tokens": step * plan.batch_tokens, "seconds": seconds}, options.keep_checkpoints,
        )  # fmt: skip

    dtype: Literal["bf16", "fp32"] = "bf16" if compute.dtype == torch.bfloat16 else "fp32"
    final = dataclasses.replace(settled(options, plan), dtype=dtype)
    if checkpoint is None:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "asked.json", json.dumps(asked(options)))
        write_text(folder / CONFIG, yaml.safe_dump(dataclasses.asdict(final), sort_keys=False))
    say(
        summary(
            model.num_parameters(),
            plan,
            split,
            compute.device.type,
            dtype,
            compute.peak_flops,
            sampler.windows_per_epoch,
        )
    )
    trainer.trackers = open_trackers(options.track, folder, dataclasses.asdict(final), trainer.step)
    try:
        finished = trainer.train()
        if not finished:
            return RunResult(folder, trainer.last_score, trainer.seconds, finished=False)
        score = validate(model, held_out, compute, plan.context, plan.micro_batch) if len(held_out) > 1 else None
        if score is not None:
            trainer.log(validation_record(trainer.step, plan, score))
    finally:
        for tracker in trainer.trackers:
            tracker.close()
    samples.write(trainer.step, show=True)
    with replacing(folder / FINAL_MODEL) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        (temporary / "README.md").write_text(
            model_card(folder.name, final, plan, model, shards, score, trainer.seconds), encoding="utf-8"
        )
    return RunResult(folder, score, trainer.seconds, finished=True)


def settled_options(folder: Path, options: TrainOptions) -> TrainOptions:
    """The options that the run in `folder` settled on, with today's choice where it is free to change."""
    try:
        saved = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
        kept = {name: value for name, value in saved.items() if name not in FREE_TO_CHANGE}
        return dataclasses.replace(options, **{"tokens": None, "minutes": None, "steps": None} | kept)
    except (OSError, yaml.YAMLError, TypeError) as error:
        raise InputError(
            f"cannot go on with {folder}: its {CONFIG} is unreadable ({error}); use --resume never"
        ) from None


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


def summary(parameters: int, plan: Plan, split: Any, device: str, dtype: str, peak: float, windows: int) -> str:
    """What is about to happen, in two lines."""
    epochs = plan.steps * plan.sequences / windows
    return (
        f"model: {parameters:,} parameters on {device} in {dtype} (GEMM peak {peak / 1e9:,.0f} GFLOP/s, {os.cpu_count()} cores)\n"
        f"plan: {plan.steps:,} steps of {plan.batch_tokens:,} tokens ({plan.micro_batch} × {plan.context} × {plan.accumulation})"
        f" = {plan.tokens:,} tokens, {epochs:.2f} epochs of {len(split):,}; lr {plan.lr:g} after {plan.warmup_tokens:,} tokens,"
        f" cosine to {plan.min_lr:g} at {plan.decay_tokens:,}"
    )
