"""A pretraining run from top to bottom: open the data → plan → build → loop → finish."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gpt3.durable import replacing, utf8
from gpt3.errors import InputError, RunError
from gpt3.evaluation.probe import Probe, check_probes
from gpt3.ladder.presets import flops_per_token
from gpt3.progress import say, speak_utf8
from gpt3.report.page import write_report
from gpt3.report.run_folder import CONFIG, FINAL_MODEL, SAMPLES
from gpt3.tables import labelled
from gpt3.tokenizer.loading import tokenizer_hash
from gpt3.training import run_folder
from gpt3.training.advice import warnings
from gpt3.training.automatic import choose_size
from gpt3.training.checkpoint import load_checkpoint, read_state
from gpt3.training.checkpoint_writer import CheckpointWriter
from gpt3.training.data import TrainingData, open_on_every_rank
from gpt3.training.distributed import World, agree_on_compute, full_machine, is_sharded, open_world
from gpt3.training.energy_record import EnergyRecord
from gpt3.training.evaluator import Evaluator
from gpt3.training.fitting import choose_exchange, fitted, memory_of, parallel_text, shortage
from gpt3.training.init_from import open_initial
from gpt3.training.model_building import build_model, choose_step
from gpt3.training.options import TrainOptions
from gpt3.training.origin import copy_origin, write_origin
from gpt3.training.outlook import conclude, outlook, write_prediction
from gpt3.training.pace import Pace, recorded_layouts
from gpt3.training.panel import Panel
from gpt3.training.plan import DEMO_MINUTES, make_plan, settled, shape_of
from gpt3.training.plan_report import plan_report, plan_rows
from gpt3.training.replay import epoch_tokens
from gpt3.training.run_folder import RunResult
from gpt3.training.run_name import default_name
from gpt3.training.same_run import AUTOMATIC, check_resumed, named_checkpoint
from gpt3.training.tracking import Tracker, check_trackers, open_trackers, record_file, step_profiler
from gpt3.training.trainer import Trainer, frozen_garbage
from gpt3.training.validation import Score, Validation, draw_samples, first_lines
from gpt3.work_folder import Interruption, interruptible, locked_folder

SHOW_SECONDS = 0.25
"""Least time between two steps shown on the panel, besides the logged ones."""


def train(options: TrainOptions | None = None, *, evaluators: Sequence[Evaluator] = (), **overrides: Any) -> RunResult:
    """Pretrain a model. Under torchrun every rank calls it.

    Args:
        options: what to do; `overrides` are fields of it given by name.
        evaluators: further measurements while training.

    Raises:
        InputError: see TrainOptions, gpt3.corpus and `choose_folder`.
        RunError: too many steps were skipped in a row, a checkpoint could not be written, another rank was lost.
    """
    options = dataclasses.replace(options or TrainOptions(), **overrides)
    if options.folds is not None:
        raise InputError(f"--folds {options.folds} makes several runs; call gpt3.training.folds.run_folds for them")
    if (options.nproc or 1) > 1 and "RANK" not in os.environ:
        raise InputError(f"--nproc {options.nproc} starts processes from the command line; in Python use torchrun")
    name = default_name(options) if options.resume in AUTOMATIC else ""
    check_trackers(options.track)
    check_probes(options.probe_names)
    with (
        full_machine(),
        open_world(options.device, options.tensor_parallel or 1) as world,
        contextlib.ExitStack() as held,
    ):
        held.callback(torch.set_num_threads, torch.get_num_threads())
        resume = options.resume if options.resume in AUTOMATIC else str(named_checkpoint(options.resume, world))

        def claim() -> tuple[Path, bool]:
            found = run_folder.choose_folder(dataclasses.replace(options, resume=resume), name)
            if not options.plan:
                held.enter_context(locked_folder(found[0]))
            return found

        folder, resumes = world.agree(claim)
        return train_in(folder, resumes, dataclasses.replace(options, resume=resume), world, evaluators)


def train_in(
    folder: Path, resumes: bool, options: TrainOptions, world: World, evaluators: Sequence[Evaluator]
) -> RunResult:
    """Train in a run folder that this process holds; `resumes`: whether it holds a run to resume."""
    # The options: a run that resumes keeps the numbers it settled on.
    requested, minutes = options, DEMO_MINUTES if options.is_demo else options.minutes
    checkpoint = run_folder.find_checkpoint(folder / run_folder.CHECKPOINTS, options, world) if resumes else None
    if resumes and (folder / CONFIG).exists():
        options = run_folder.settled_options(folder, options)
    else:
        options = dataclasses.replace(options, model=options.size, minutes=minutes)
    compute = agree_on_compute(options, world)
    options, choice = choose_size(options, compute, world)
    initial = open_initial(options, checkpoint, world.agree)
    shape = initial.shape(options) if initial else shape_of(options)

    # The data.
    given = initial.with_tokenizer(options, world.agree) if initial else options
    data = open_on_every_rank(given, shape, world.agree)
    shape = shape if initial else dataclasses.replace(shape, vocab_size=data.shards[0].vocab_size)
    tokenizer = initial.tokenizer if initial else data.tokenizer
    end_of_text = data.shards[0].end_of_text
    validation = Validation(options, data)

    # The plan.
    options = dataclasses.replace(options, dtype=compute.dtype_name)
    known = epoch_tokens(data)
    plan = world.agree(lambda: fitted(make_plan(options, known, shape=shape), options, shape, compute, world))
    lacks = world.agree(lambda: shortage(plan, options, shape, compute, world))
    if lacks and not options.plan:
        raise InputError(lacks)

    # The model, and the time of its steps where that is asked for.
    token_seconds = None
    if not lacks:
        random.seed(options.seed)
        np.random.seed(options.seed % 2**32)
        if not options.plan:
            world.agree(lambda: run_folder.check_checkpoint_room(folder, options, plan, shape))
        weights = initial.weight if initial and checkpoint is None else None
        model, forward = build_model(options, shape, end_of_text, compute, world, weights)
        recorded = read_state(checkpoint)["computed"] if checkpoint else None
        compute = choose_step(model, forward, options, plan.micro_batch * plan.context, compute, world, recorded)
        torch.manual_seed(options.seed + world.rank)  # dropout differs between ranks
        parts = (model, forward, data.mixture(plan.context, options.seed), end_of_text, compute, world)
        if options.plan or (options.minutes is not None and checkpoint is None):
            trial = Trainer(options, plan, *parts)
            token_seconds = trial.measure_token()
            found = trial.plan.micro_batch if trial.plan.micro_batch < plan.micro_batch else None
            del trial  # and its average of the weights
            if options.minutes is not None:
                timed = make_plan(options, known, max(1, int(options.minutes * 60 / token_seconds)), shape)
                plan = world.agree(lambda: fitted(timed, options, shape, compute, world, most=found))
    if checkpoint is not None:
        world.agree(lambda: check_resumed(checkpoint, folder, plan, tokenizer_hash(data.tokenizer)))
    options = settled(options, plan)
    exchange = world.agree(lambda: choose_exchange(plan, options, shape, compute, world))
    rows = plan_rows(plan, options, shape, data, compute, world, parallel_text(options, world, exchange))
    foreseen = world.agree(lambda: outlook(options, plan, shape, data, choice))
    rows[1:1] = [("weights", str(initial))] if initial else foreseen.rows(plan) if foreseen else []
    if world.first and checkpoint is None:
        for line in filter(None, [lacks, *warnings(plan, options, shape, data)]):
            say(line)
    if options.plan:
        if world.first:
            memory, peak = memory_of(options, shape, plan, compute, world, exchange), compute.peak_flops * world.size
            print(plan_report(plan, rows, shape, memory, peak, token_seconds, bool(initial)))
        return RunResult(folder, None, 0.0, finished=False)

    # All that moves: fresh, or as the checkpoint has it.
    plan = recorded_layouts(folder, plan)
    trainer, seconds = Trainer(options, plan, *parts, exchange), 0.0
    if checkpoint is not None:
        state = load_checkpoint(checkpoint, model, trainer.optimizer, extra=trainer.averages(), rank=world.rank)
        trainer.load(state)
        validation.early.load(state["early"])
        seconds = float(state["seconds"])
        if world.first:
            run_folder.say_what_changed(state["computed"], trainer.computed())
    writer = CheckpointWriter(
        folder / run_folder.CHECKPOINTS, model, tokenizer, keep=options.keep_checkpoints, keep_every=options.keep_every,
        world=world,
    )  # fmt: skip
    prompts = options.sample_prompt or first_lines(data.held_out or data.training[0], tokenizer)
    probes = [Probe(options.probe_names, tokenizer, plan.validate_every)] if options.probe_names else []

    # Rank 0 writes down what the run is, and keeps its records.
    trainer.mixture.want(plan.total_sequences)
    sources = data.sources(trainer.mixture, plan.total_sequences)
    device, resumed = str(compute.device), checkpoint is not None
    world.agree(lambda: run_folder.write_beginning(folder, requested, options, device, data, sources, resumed=resumed))
    if not resumed:
        world.agree(lambda: write_prediction(folder, foreseen, plan))
    if initial and not resumed:
        world.agree(lambda: write_origin(folder, initial.origin()))
    trackers, sample_file, panel = list[Tracker](), None, None
    pace = Pace(folder, trainer, seconds, minutes)  # reads metrics.jsonl before it is opened
    if world.first:
        say(f"run folder: {folder}" + (f", resuming from {checkpoint.name}" if checkpoint else ""))
        say("\n".join(labelled(rows)))
        pace.panel = panel = Panel(f"training {folder.name}", plan.steps, start=trainer.step)
        trackers = open_trackers(options.track, folder, dataclasses.asdict(options), trainer.step)
        sample_file = record_file(folder / SAMPLES, trainer.step)
    evaluators = (*evaluators, *probes)
    run = Run(
        folder, data, trainer, validation, writer, pace, EnergyRecord(folder, compute.device, world), trackers, sample_file,
        panel, evaluators, prompts, seconds,
    )  # fmt: skip
    try:
        with interruptible(speak=world.first) as interruption:
            finished = validation.early.stop or run.loop(interruption)  # stopped in an earlier session
            writer.close()
        if not finished:
            world.barrier()  # the checkpoint is whole before any rank leaves
            return RunResult(folder, run.score, run.seconds, False, interruption.exit_code)
        run.finish()
        bits = run.score.bits_per_byte if run.score else None
        lines = world.agree(lambda: conclude(folder, foreseen, trainer.plan.tokens_after(trainer.step), bits))
    finally:
        data.close()
        writer.close()
        pace.close()
        for tracker in (*trackers, *filter(None, [sample_file])):
            tracker.close()
        if trackers:
            try:
                write_report([folder], folder / "report.html")
            except InputError as error:  # a report must not fail the run
                say(f"no report: {error}")
    noise = None if trainer.noise is None else trainer.noise.value
    return RunResult(
        folder,
        run.score,
        run.seconds,
        True,
        0,
        prompts[0],
        trainer.spikes.skipped,
        tuple(lines),
        run.energy.total,
        noise,
    )


@dataclass
class Run:
    """A run whose parts are all there; rank 0's has trackers, a file of samples and a panel."""

    folder: Path
    data: TrainingData
    trainer: Trainer
    validation: Validation
    writer: CheckpointWriter
    pace: Pace
    energy: EnergyRecord
    trackers: Sequence[Tracker]
    sample_file: Tracker | None
    panel: Panel | None
    evaluators: Sequence[Evaluator]
    prompts: Sequence[str]
    seconds: float
    """Training time of earlier sessions and this one, validation and saving left out."""
    samples: Sequence[tuple[str, str]] = ()
    """The latest: prompts and texts."""

    def loop(self, interruption: Interruption) -> bool:
        """Take every step that is left. True: all done, or stopped early; False: interrupted, after a checkpoint."""
        trainer, plan, early = self.trainer, self.trainer.plan, self.validation.early
        flops = flops_per_token(trainer.model.config, plan.context)
        profiler: contextlib.AbstractContextManager[Any] = contextlib.nullcontext(lambda: None)
        if trainer.options.profile is not None and trainer.world.first:
            profiler = step_profiler(self.folder, trainer.options.profile)
        if trainer.world.size == 1:  # of several, others may be in the midst of an exchange
            for folder in self.data.shards:
                folder.stop = interruption.asked
        trainer.model.train()
        with self.panel or contextlib.nullcontext(), profiler as step_done, frozen_garbage():
            lap_tokens, lap_seconds = plan.tokens_after(trainer.step), self.seconds
            began, shown = time.perf_counter(), 0.0
            while trainer.step < plan.steps:
                plan = self.pace.before(self.seconds)
                micro_batch = plan.micro_batch
                try:
                    record = trainer.one_step(interruption.asked)
                except KeyboardInterrupt:  # while it waited for data
                    if trainer.step:
                        self.save()
                    return False
                if trainer.plan.micro_batch < micro_batch and trainer.world.first:
                    run_folder.keep_micro_batch(self.folder, trainer.plan.micro_batch)
                interrupted, step = record.pop("stop"), trainer.step
                last = step == plan.steps
                step_done()
                due = step % plan.log_every == 0 or step == 1 or last or "skipped" in record
                shows = due or (self.panel is not None and time.monotonic() - shown > SHOW_SECONDS)
                if shows:
                    trainer.compute.synchronize()
                now = time.perf_counter()
                self.pace.after(now - began, record["batch_tokens"])
                self.energy.meter.look()
                self.seconds, began = self.seconds + now - began, now
                if shows:
                    shown = time.monotonic()
                    tokens_per_s = (record["tokens"] - lap_tokens) / (self.seconds - lap_seconds)
                    lap_tokens, lap_seconds = record["tokens"], self.seconds
                    record |= {
                        "tokens_per_s": round(tokens_per_s, 1),
                        "mfu": round(tokens_per_s * flops / (trainer.compute.peak_flops * trainer.world.size), 4),
                        "seconds": round(self.seconds, 2),
                    }
                    if due:
                        record["kwh"] = float(f"{self.energy.measure().kwh:.4g}")
                    self.log(record, self.trackers if due else ())
                if trainer.spikes.lost:
                    raise RunError(
                        f"step {step}: {trainer.spikes.in_a_row} steps in a row were skipped, the last for {record['skipped']}. "
                        "Resume from the last checkpoint with a lower --lr, or look at the skipped steps' data (metrics.jsonl)."
                    )
                paused, stopping = time.perf_counter(), False
                if step % plan.validate_every == 0 or last:
                    stopping = self.validate(final=last)
                if stopping and not last:
                    self.validate(final=True)
                for evaluator in self.evaluators:
                    if step % evaluator.every == 0 or last:
                        with trainer.averaged():
                            found = evaluator(trainer.model, step)
                        numbers = {f"eval/{name}": value for name, value in found.items()}
                        self.log({"step": step, "tokens": record["tokens"], **numbers}, self.trackers)
                if step % plan.sample_every == 0 or last or stopping:
                    self.sample(step)
                if last or stopping or interrupted or step % plan.checkpoint_every == 0 or early.best_step == step:
                    self.save()
                began += time.perf_counter() - paused
                if stopping:
                    break
                if interrupted and not last:
                    return False
        return True

    def log(self, record: Mapping[str, Any], trackers: Sequence[Tracker]) -> None:
        """Give a record to trackers and show it."""
        for tracker in trackers:
            tracker.log(record)
        if self.panel is not None:
            self.panel.log(record)

    def validate(self, final: bool) -> bool:
        """Score every validation set; True: the loss has not improved for ``--early-stop`` validations."""
        record = self.validation.score(self.trainer, final)
        if record is not None:
            self.log(record, self.trackers)
        return self.validation.early.stop

    @property
    def score(self) -> Score | None:
        """The latest score of the run's own held-out documents."""
        return self.validation.scores.get("")

    def sample(self, step: int | None = None) -> None:
        """Draw samples, and record them with their `step`; with FSDP all ranks compute, with DDP the first one."""
        trainer = self.trainer
        if trainer.world.first or is_sharded(trainer.options, trainer.world):
            with trainer.averaged():
                self.samples = draw_samples(trainer.model, self.data.tokenizer, self.prompts, trainer.options.seed)
        if self.sample_file is not None and step is not None:
            for prompt, text in self.samples:
                self.sample_file.log({"step": step, "prompt": prompt, "text": text})
        if self.panel is not None:
            self.panel.sample(*self.samples[0])

    def save(self) -> None:
        """Hand a checkpoint to the writer."""
        trainer, early = self.trainer, self.validation.early
        for tracker in self.trackers:
            tracker.flush()
        self.energy.write()
        state = {**trainer.state(), "seconds": self.seconds, "early": early.state()}
        self.writer.save(trainer.optimizer, state, extra=trainer.averages(), best_step=early.best_step)

    def finish(self) -> None:
        """Write the final model folder with its card, and show the samples."""
        trainer = self.trainer
        if not self.validation.scores:  # all steps were done in an earlier session
            self.validation.score(trainer, final=True)
        if not self.samples:
            self.sample()
        if trainer.world.first:
            plan = dataclasses.replace(trainer.plan, steps=trainer.step)
            sources = self.data.sources(trainer.mixture, plan.total_sequences)
            card = run_folder.model_card(
                self.folder, trainer.options, plan, trainer.model, sources, self.validation.scores, self.seconds
            )
            with replacing(self.folder / FINAL_MODEL) as temporary:
                run_folder.extract_model(self.folder / run_folder.CHECKPOINTS / f"step-{trainer.step}", temporary)
                (temporary / "README.md").write_bytes(utf8(card))
                copy_origin(self.folder, temporary)
            speak_utf8(sys.stdout)
            for prompt, text in self.samples:
                print(f"\n--- {prompt.strip()!r} continued:\n{prompt}{text}")
        trainer.world.barrier()
        self.energy.measure()
        self.energy.write()
