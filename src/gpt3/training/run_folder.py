"""The run folder: which one a run uses, what it resumes from, what it writes there first, and last: the model and its card."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import platform
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import yaml

from gpt3 import __version__, work_folder
from gpt3.device import usable_cores
from gpt3.durable import check_room, write_text
from gpt3.energy import Energy
from gpt3.errors import InputError
from gpt3.ladder.presets import Preset
from gpt3.model import GPT3ForCausalLM
from gpt3.progress import say
from gpt3.report.run_folder import CONFIG, DATA, ENVIRONMENT, FINAL_MODEL, METRICS, number, read_metrics
from gpt3.training.checkpoint import newest_whole
from gpt3.training.data import TrainingData
from gpt3.training.distributed import World
from gpt3.training.named_sets import warning
from gpt3.training.optimizers import OPTIMIZERS, describe
from gpt3.training.options import TrainOptions
from gpt3.training.origin import card_parts, read_origin
from gpt3.training.panel import sparkline
from gpt3.training.plan import Plan, shape_of
from gpt3.training.same_run import AUTOMATIC, check_same_run, extended, move_aside, run_folder_for, saved_options
from gpt3.training.tensor_files import entries_of, write_set
from gpt3.training.validation import Score

ASKED = "asked.json"
"""The requested options: a run resumes only if they match."""
CHECKPOINTS = "checkpoints"
SAME_DATA = ("name", "tokens", "documents", "weight", "blocks")
"""What of the sources in data.json must not change when a run resumes; "blocks" is there for data prepared while training."""
EARLY = frozenset({ASKED, DATA, ENVIRONMENT})
"""What is written before config.yaml; a folder that holds no more has no run in it yet."""
SHARDING = ("shards", "tensor_parallel", "regather", "reduce_once")
"""Options that fit the processes of one session: the next has its own."""
FREE_TO_CHANGE = frozenset(
    {
        "resume", "out", "track", "keep_checkpoints", "keep_every", "checkpoint_every", "workers", "device", "nproc",
        "trust_device", "opt_state_on_cpu", "gradient_checkpointing", "selective_checkpointing",
        "parallel", "micro_batch", "noise_scale", "profile", "plan", "compile", "threads", *SHARDING,
    }
)  # fmt: skip
"""Options that may change when a run resumes: they do not change what is computed, but for the order of sums."""
CURVE_COLUMNS, CURVE_ROWS = 60, 10


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
    """False: interrupted after a checkpoint; the same command resumes it."""
    exit_code: int = 0
    """130 or 143 after a signal."""
    prompt: str = ""
    """The first prompt of the run's samples, of its data unless ``--sample-prompt`` says another."""
    skipped: int = 0
    """Steps skipped for a spike, of all sessions."""
    outlook: tuple[str, ...] = ()
    """Prediction and result of ``--model auto``, and what would have helped the run most (gpt3.training.outlook)."""
    energy: Energy | None = None
    """Of all sessions; None for an interrupted run."""
    noise_scale: float | None = None
    """The gradient noise scale at the end, in tokens, where ``--noise-scale`` measured it."""

    def __repr__(self) -> str:
        what = "finished" if self.finished else f"interrupted, exit_code={self.exit_code}"
        loss = "" if self.score is None else f", loss={self.score.loss:.4f}, perplexity={self.score.perplexity:.2f}"
        return f"RunResult({str(self.folder)!r}, {what}, seconds={self.seconds:.1f}{loss})"


def choose_folder(options: TrainOptions, name: str) -> tuple[Path, bool]:
    """The run folder, and whether it holds a run to resume; without ``--out``, runs/NAME[-N] (`work_folder.choose_folder`).

    Earlier versions named every run after its model: such a one is resumed, too.

    Raises:
        InputError: --out holds another run, or a finished one, or something else.
    """
    if options.resume not in AUTOMATIC:
        return run_folder_for(Path(options.resume), options), True
    if options.out is not None and options.resume == "auto":
        check_out(Path(options.out), options)
    return work_folder.choose_folder(
        options.out,
        Path("runs") / name,
        asked(options),
        before=lambda folder: asked_before(folder) if (folder / CONFIG).exists() else None,
        finished=lambda folder: (folder / FINAL_MODEL).exists(),
        early=EARLY,
        resume=options.resume == "auto",
        former=None if options.init_from else Path("runs") / shape_of(options).name,
    )


def check_out(folder: Path, options: TrainOptions) -> None:
    """Refuse to resume the run in `folder` where it is finished or another one, with the way out.

    Raises:
        InputError: it is.
    """
    before = asked_before(folder)
    if before is None or not (folder / CONFIG).exists():
        return
    if (folder / FINAL_MODEL).exists():
        extend = f"extend it: gpt3 train --resume {folder} --steps N"
        raise InputError(f"--out {folder} is finished. Choose another --out, remove it, or {extend}")
    check_same_run(f"--out {folder}", before, asked(options), str(folder))


def asked(options: TrainOptions) -> work_folder.Settings:
    """The options that decide what is computed: a run resumes only when they are the same."""
    found = work_folder.requested(options, FREE_TO_CHANGE)
    if options.model is None:  # runs of earlier versions recorded the default's name
        found["model"] = options.size
        found.defaults = {**found.defaults, "model": options.size}
    return found


def asked_before(folder: Path) -> dict[str, Any] | None:
    """The `asked` options of the run in `folder`; None where there are none.

    Runs from before there were recipes recorded the paper's numbers where none were given.
    """
    found = work_folder.stored(folder / ASKED)
    if found is not None and "recipe" not in found:
        paper = {"optimizer": "adamw", "min_lr_ratio": 0.1}
        found |= {name: None for name, value in paper.items() if found.get(name) == value}
    return found


def settled_options(folder: Path, options: TrainOptions) -> TrainOptions:
    """The options that the run in `folder` settled on, with today's choice where it is free to change.

    When a named checkpoint is resumed (``--resume PATH``), every option that is given now counts.
    """
    try:
        saved = saved_options(folder)
        today = {name for name in FREE_TO_CHANGE if getattr(options, name) is not None}
        if options.resume not in AUTOMATIC:
            defaults = TrainOptions()
            today |= {name for name in saved if getattr(options, name) != getattr(defaults, name)}
        lengths = {"tokens", "minutes", "steps"}
        dropped = today | {"resume", "out", "plan", *SHARDING} | (lengths if lengths & today else set())
        values: dict[str, Any] = {
            "stream": "off",
            "validation_share": None,
            "recipe": "paper",
            **dict.fromkeys(lengths - today),
        }
        values |= {name: value for name, value in saved.items() if name not in dropped}
        return dataclasses.replace(options, **values)
    except TypeError as error:  # an option of another version
        raise InputError(
            f"{folder} cannot be resumed: its {CONFIG} is unreadable ({error}). Use --resume never."
        ) from None


def check_checkpoint_room(folder: Path, options: TrainOptions, plan: Plan, shape: Preset) -> None:
    """Refuse before training when the disk of `folder` has no room for the checkpoints of a model.

    Raises:
        InputError: see `gpt3.durable.check_room`.
    """
    # of a checkpoint at most: fp32 weights, their average, the optimizer's state
    each = (4 + 4 + OPTIMIZERS[plan.optimizer].state_bytes) * shape.parameters
    check_room(folder, round((options.keep_checkpoints + 2) * each), purpose="checkpoints")


def find_checkpoint(folder: Path, options: TrainOptions, world: World) -> Path | None:
    """The checkpoint in `folder` to resume from: the one ``--resume`` names, else the newest whole one.

    Damaged ones are named and skipped.
    """
    if options.resume not in AUTOMATIC:
        return Path(options.resume)
    path, damaged = newest_whole(folder, world)
    for bad, reason in damaged if world.first else ():
        say(f"Skipping {bad}: {reason}.")
    return path


def say_what_changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Say what is computed in another way than before the interruption, and what stays exact."""
    changed = [f"{name} {before.get(name)} -> {value}" for name, value in now.items() if before.get(name) != value]
    if changed:
        say(
            f"Resuming with {', '.join(changed)}. Schedule, data order and states are exactly the run's. Sums are taken in "
            "another order, so weights agree to rounding, not bit for bit."
        )


def write_beginning(
    folder: Path,
    requested: TrainOptions,
    options: TrainOptions,
    device: str,
    data: TrainingData,
    sources: Sequence[Mapping[str, Any]],
    *,
    resumed: bool,
) -> None:
    """Write data.json and environment.json; for a new run also the requested options and those it settled on.

    Args:
        device: that is used.
        data: of the run.
        sources: its `TrainingData.sources`.
        resumed: whether the run's data must be the same as before.

    Raises:
        InputError: it is not.
    """
    if resumed and (folder / DATA).exists():
        before = json.loads((folder / DATA).read_text(encoding="utf-8"))["sources"]
        if [[row.get(key) for key in SAME_DATA] for row in before] != [
            [row.get(key) for key in SAME_DATA] for row in sources
        ]:
            raise InputError(
                f"the data of {folder} is not what the run began with. Choose another --out; to train its weights on other data: "
                f"gpt3 train --init-from {folder}"
            )
    sets = data.set_rows()
    write_text(folder / DATA, json.dumps({"sources": sources, "validation": sets}, indent=1))
    if text := warning(sets):
        say(text)
    write_text(folder / ENVIRONMENT, json.dumps(environment(device), indent=1))
    named = resumed and requested.resume not in AUTOMATIC
    if named or not resumed:
        now, before = asked(requested), asked_before(folder) or {}
        write_text(folder / ASKED, json.dumps(extended(before, now) if named else now))
        write_text(folder / CONFIG, yaml.safe_dump(dataclasses.asdict(options), sort_keys=False))
    if named:
        move_aside(folder, Path(requested.resume))


def keep_micro_batch(folder: Path, micro_batch: int) -> None:
    """Write down the micro-batch that was found to fit, so that the run resumes with it."""
    saved = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    write_text(folder / CONFIG, yaml.safe_dump(saved | {"micro_batch": micro_batch}, sort_keys=False))


def environment(device: str) -> dict[str, Any]:
    """What the run runs on: versions, machine, and the commit where the package is a git checkout."""
    found: dict[str, Any] = {"python": platform.python_version(), "platform": platform.platform(), "gpt3": __version__}
    for package in ("torch", "transformers", "tokenizers", "numpy", "safetensors"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    found |= {"device": device, "cores": usable_cores(), "threads": torch.get_num_threads()}
    if device.startswith("cuda"):
        found |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        commands = (["git", "rev-parse", "HEAD"], ["git", "ls-files", "--error-unmatch", __file__])
        here = Path(__file__).parent
        answers = [subprocess.run(c, cwd=here, capture_output=True, text=True, timeout=5) for c in commands]
        if not any(answer.returncode for answer in answers):
            found["commit"] = answers[0].stdout.strip()
    return found


def extract_model(checkpoint: Path, folder: Path) -> None:
    """Copy a checkpoint's model folder to `folder`, which is made. Its weights go into as few files as one process would write.

    The weights are their moving average (the set ``ema``) where the checkpoint holds one; both go by the parameters' names.
    """
    left = shutil.ignore_patterns("state.json", "manifest.json", "*.safetensors", "*.safetensors.index.json")
    shutil.copytree(checkpoint, folder, ignore=left, copy_function=shutil.copyfile)
    entries = entries_of(checkpoint, "ema") or entries_of(checkpoint, "model")
    write_set(folder, "model", entries)


def model_card(
    run: Path,
    options: TrainOptions,
    plan: Plan,
    model: GPT3ForCausalLM,
    sources: Sequence[Mapping[str, Any]],
    scores: Mapping[str, Score],
    seconds: float,
) -> str:
    """Markdown with Hugging Face's front matter: what the model is, what it was trained on and how, how to run it where.

    Args:
        run: the run folder; its metrics.jsonl has the training loss, its origin.json the initial weights, if they were given.
        sources: the training data, as data.json has it.
        scores: of each validation set by name; the run's own held-out documents are ``""``.
    """
    name, config = run.name, model.config
    banded = sum(kind == "sliding_attention" for kind in config.layer_types or ())
    positions = config.max_position_embeddings
    dense = min(config.sliding_window, positions) if banded else positions  # what GPT-2 computes right
    ramp = f", growing from {plan.stages[0].sequences * plan.context:,}" if plan.ramp_tokens else ""
    optimizer = f"{describe(options)}; decay {options.weight_decay:g}, clip {options.clip:g}"
    if options.ema is not None:
        optimizer += f"; these weights are their moving average of decay {options.ema:g}"
    template = (resources.files("gpt3.training") / "assets" / "model_card.md").read_text(encoding="utf-8")
    return template.format(
        name=name, parameters=model.num_parameters(), config=config, dense_layers=config.num_hidden_layers - banded,
        banded=banded, plan=plan, ramp=ramp, optimizer=optimizer, options=options, minutes=seconds / 60,
        evaluation=score_table(scores), data=source_table(sources), gpt2_context=dense,
        curve=loss_curve(losses_of(read_metrics(run / METRICS))), **card_parts(read_origin(run)),
    )  # fmt: skip


def losses_of(records: Iterable[Mapping[str, Any]]) -> list[tuple[int, float]]:
    """Tokens seen and training loss, from the records of a run's metrics.jsonl; those of skipped steps have none."""
    return [(record["tokens"], record["loss"]) for record in records if number(record.get("loss")) is not None]


def score_table(scores: Mapping[str, Score]) -> str:
    """The last validation of each set, as Markdown."""
    if not scores:
        return "Not measured: there were no held-out documents.\n"
    lines = ["| text | loss, nats per token | 95% interval | perplexity | bits per byte |", "|---|---|---|---|---|"]
    for name, score in scores.items():
        known = score.loss_low is not None and score.loss_high is not None
        interval = f"{score.loss_low:.4f} to {score.loss_high:.4f}" if known else "too few documents"
        row = f"| {name or 'held-out documents'} | {score.loss:.4f} | {interval} | {score.perplexity:.2f} |"
        lines.append(f"{row} {score.bits_per_byte:.4f} |")
    return "\n".join(lines) + "\n"


def source_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The training data, as Markdown."""
    lines = ["| source | share of the run | epochs | tokens | documents | licence |", "|---|---|---|---|---|---|"]
    for row in rows:
        sizes = (
            [f"{row['epochs']:.2f}", f"{row['tokens']:,}", f"{row['documents']:,}"]
            if row["tokens"]
            else ["not counted"] * 3
        )
        cells = [row["name"], f"{row['share']:.1%}", *sizes, row.get("licence") or "not recorded"]
        lines.append(f"| {' | '.join(cells)} |")
    for row in rows:
        if funnel := row.get("funnel"):
            dropped = ", ".join(f"{reason} {count:,}" for reason, count in funnel["dropped"].items())
            kept = f"`gpt3 corpus` kept {funnel['kept']:,} of {funnel['documents']:,} documents"
            lines += ["", f"{row['name']}: {kept}; dropped: {dropped or 'none'}."]
    return "\n".join(lines) + "\n"


def loss_curve(losses: Sequence[tuple[int, float]]) -> str:
    """The training loss as characters and as a table of means, each over an equal part of the run."""
    if not losses:
        return ""
    drawn, low, high = sparkline([loss for _, loss in losses], CURVE_COLUMNS, 4)
    count = min(CURVE_ROWS, len(losses))
    parts = [losses[i * len(losses) // count : (i + 1) * len(losses) // count] for i in range(count)]
    means = [sum(loss for _, loss in part) / len(part) for part in parts]
    table = ["| tokens seen | " + " | ".join(f"{part[-1][0]:,}" for part in parts) + " |", "|---" * (count + 1) + "|"]
    table.append("| mean loss up to there | " + " | ".join(f"{mean:.3f}" for mean in means) + " |")
    text = f"From {high:.2f} to {low:.2f} nats per token:"
    return "\n".join(["## Training loss", "", text, "", "```", *drawn, "```", "", *table, "", ""])
