"""The assembly of a run: data, plan, model, optimizer and loop put together, and what happens beside the steps."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml

from gpt3.durable import check_room, replacing, write_text
from gpt3.errors import InputError
from gpt3.ladder.memory import training_memory
from gpt3.ladder.presets import Preset
from gpt3.model import GPT3ForCausalLM
from gpt3.progress import say
from gpt3.training.checkpoint import load_checkpoint
from gpt3.training.checkpoint_writer import CheckpointWriter
from gpt3.training.device import Compute, choose_compute
from gpt3.training.distributed import World, peers_lost, spread
from gpt3.training.ema import WeightAverage
from gpt3.training.final_model import extract_model
from gpt3.training.loop import Evaluator, Trainer
from gpt3.training.model_card import losses_of, model_card
from gpt3.training.optimizer import make_optimizer
from gpt3.training.options import TrainOptions
from gpt3.training.panel import Panel
from gpt3.training.plan import DEMO_MINUTES, Plan, make_plan, settled
from gpt3.training.plan_report import plan_report, summary
from gpt3.training.profiling import StepProfiler
from gpt3.training.resuming import check_same_data, find_checkpoint, say_what_changed
from gpt3.training.run import RunResult, build_model, shape_of
from gpt3.training.run_data import RunData, open_run_data
from gpt3.training.run_folder import (
    ASKED,
    CHECKPOINTS,
    CONFIG,
    FINAL_MODEL,
    asked,
    environment,
    settled_options,
)
from gpt3.training.samples import SampleWriter
from gpt3.training.signals import interruptible
from gpt3.training.spikes import SpikeWindow
from gpt3.training.tracking import Tracker, open_trackers, read_metrics
from gpt3.training.validation_sets import set_rows, warning
from gpt3.training.validations import Validations

BYTES_A_PARAMETER = 16
"""A checkpoint's bytes a parameter, with room to spare: fp32 weights and Adam's two moments are 12."""
DTYPE_NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
DTYPES: dict[torch.dtype, Literal["fp32", "bf16", "fp16"]] = {
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
}


class Pretraining:
    """One run from its options to its final model folder; also what the loop calls beside its steps (loop.Events).

    Args:
        folder: the run folder, held by this process.
        goes_on: whether a run lies there that is to be continued.
    """

    def __init__(
        self,
        options: TrainOptions,
        shape: Preset,
        folder: Path,
        goes_on: bool,
        world: World,
        evaluators: Sequence[Evaluator] = (),
    ) -> None:
        self.folder, self.world, self.shape = folder, world, shape
        self.asked_options = options
        self.checkpoint = find_checkpoint(folder / CHECKPOINTS, options, world) if goes_on else None
        if goes_on and (folder / CONFIG).exists():  # a run goes on with the numbers it settled on
            options = settled_options(folder, options)
            self.shape = shape = shape_of(options)
        elif options.minutes is None and options.model == "demo" and options.tokens is None and options.steps is None:
            options = dataclasses.replace(options, minutes=DEMO_MINUTES)
        self.data: RunData = self._open_data(options)
        self.validations = Validations(options, self.data)
        self.early = self.validations.early
        self.tokenizer = self.data.tokenizer
        self.compute: Compute = choose_compute(options.device, options.dtype)
        dtype = world.agree(lambda: DTYPES[self.compute.dtype])  # measured: ranks might differ
        if dtype != DTYPES[self.compute.dtype]:
            self.compute = choose_compute(options.device, dtype)
        self.options = dataclasses.replace(options, dtype=DTYPES[self.compute.dtype])
        self.plan: Plan = make_plan(self.options, shape, self.data.tokens)
        self.trackers: list[Tracker] = []
        self.memory = training_memory(
            dataclasses.replace(shape, vocab_size=self.data.vocab_size), DTYPE_NAMES[self.compute.dtype], self.plan.micro_batch,
            checkpointing=options.gradient_checkpointing, shards=world.size, fsdp=self.sharded,
        )  # fmt: skip
        if options.optimizer == "lion":  # one momentum in place of two
            self.memory = dataclasses.replace(self.memory, optimizer=self.memory.optimizer / 2)
        self.fits = self._fits()
        if self.fits:
            self._build(evaluators)

    def _open_data(self, options: TrainOptions) -> RunData:
        """The data; with several ranks rank 0 prepares it, and the others find it made."""
        opened: list[RunData] = []

        def first() -> bool:
            opened.append(open_run_data(options, self.shape))
            return True

        self.world.agree(first)
        if not opened:
            with contextlib.redirect_stderr(io.StringIO()):  # rank 0 has said it all
                opened.append(open_run_data(options, self.shape))
        return opened[0]

    def _fits(self) -> bool:
        """Whether weights, gradients and optimizer state have room on this device.

        Raises:
            InputError: they have not; a mere plan goes on without.
        """
        need = self.memory.weights + self.memory.gradients + self.memory.optimizer
        have = self.compute.memory()
        if have is None or need < have:
            return True
        if not self.options.plan:
            raise InputError(
                f"--model {self.shape.name} needs {need / 1e9:,.1f} GB for weights, gradients and optimizer, this device has "
                f"{have / 1e9:,.1f} GB; use a smaller model, or more devices with --parallel fsdp (gpt3 ladder --gpus N)"
            )
        return False

    def _probes(self) -> list[Evaluator]:
        """What --probe asks for."""
        if not self.options.probe_names:
            return []
        from gpt3.evaluation.probe import Probe

        return [Probe(self.options.probe_names, self.tokenizer, self.plan.validate_every)]

    def _build(self, evaluators: Sequence[Evaluator]) -> None:
        """Model, optimizer and trainer, with fresh weights or the checkpoint's."""
        options, world = self.options, self.world
        random.seed(options.seed)
        np.random.seed(options.seed % 2**32)
        with torch.device("meta"):
            model = build_model(options, self.shape, self.data.vocab_size, self.data.end_of_text)
        if not options.plan:
            need = (options.keep_checkpoints + 2) * BYTES_A_PARAMETER * model.num_parameters()
            world.agree(lambda: check_room(self.folder, need, purpose="checkpoints"))
        device = self.compute.device
        with peers_lost():
            forward: Any = spread(model, options.seed, device, options.parallel, world, self.compute.dtype)
        if options.compile if options.compile is not None else self.compute.device.type == "cuda":
            forward = torch.compile(forward)
        torch.manual_seed(options.seed + world.rank)  # dropout differs between ranks
        scaler = torch.amp.GradScaler(self.compute.device.type) if self.compute.dtype == torch.float16 else None
        self.trainer = Trainer(
            model=model,
            forward=forward,
            optimizer=self._optimizer(model),
            plan=self.plan,
            sampler=self.data.sampler(self.plan.context, options.seed),
            compute=self.compute,
            world=world,
            spikes=SpikeWindow(options.spike_window, options.spike_sigmas, options.spike_patience),
            clip=options.clip,
            mask_documents=options.mask_documents,
            end_of_text=self.data.end_of_text,
            average=None if options.ema is None else WeightAverage(model, options.ema),
            scaler=scaler,
            evaluators=(*evaluators, *self._probes()),
            profiler=StepProfiler(self.folder, options.profile if world.first else None),
        )
        self.samples = SampleWriter(
            self.folder / "samples.jsonl", model, self.tokenizer, self.data.held_out, options, record=world.first
        )

    def run(self) -> RunResult:
        """Train to the end, or to an interruption."""
        if self.options.plan:
            return self._show_plan()
        trainer, world = self.trainer, self.world
        if self.checkpoint is not None:
            self._restore(self.checkpoint)
        elif self.options.minutes is not None:
            self._lay_out(self._measure())
        self.options = settled(self.options, self.plan)
        self.writer = CheckpointWriter(
            self.folder / CHECKPOINTS, trainer.model, self.tokenizer,
            keep=self.options.keep_checkpoints, keep_every=self.options.keep_every, world=world,
        )  # fmt: skip
        world.agree(self._write_beginning)
        if world.first:
            say(f"run folder: {self.folder}" + (f", going on from {self.checkpoint.name}" if self.checkpoint else ""))
            say(summary(self.options, self.plan, trainer.model.num_parameters(), self.compute, world, self.data))
            trainer.panel = Panel(f"training {self.folder.name}", self.plan.steps, start=trainer.step)
            self.trackers = open_trackers(
                self.options.track, self.folder, dataclasses.asdict(self.options), trainer.step
            )
        self.samples.resume(trainer.step)
        try:
            with interruptible(speak=world.first) as interruption:
                finished = self.early.stop or trainer.train(self, interruption)  # stopped in an earlier sitting
                self.writer.close()
            if not finished:
                world.barrier()  # the checkpoint is whole before any rank leaves
                return RunResult(self.folder, self.validations.own, trainer.seconds, False, interruption.exit_code)
            if not self.validations.scores:  # all steps were done in an earlier sitting
                self.validate(trainer.step, final=True, log=False)
            self._finish()
        finally:
            self.writer.close()
            for tracker in self.trackers:
                tracker.close()
            self._report()
        return RunResult(self.folder, self.validations.own, trainer.seconds, finished=True)

    def _report(self) -> None:
        """report.html, of an interrupted run too."""
        from gpt3.report import write_report

        if self.world.first and self.trackers:
            try:
                write_report([self.folder], self.folder / "report.html")
            except InputError as error:  # a report must not fail the run
                say(f"no report: {error}")

    def _optimizer(self, model: GPT3ForCausalLM) -> torch.optim.Optimizer:
        return make_optimizer(model, dataclasses.replace(self.options, beta2=self.plan.beta2), self.plan.lr)

    def _show_plan(self) -> RunResult:
        """``--plan``: what the run would be."""
        seconds = self._measure() if self.fits else None
        if seconds is not None and self.options.minutes is not None:
            self._lay_out(seconds)
        if self.world.first:
            print(
                plan_report(
                    self.options, self.shape, self.plan, self.memory, self.compute, self.world, self.data, seconds
                )
            )
        return RunResult(self.folder, None, 0.0, finished=False)

    def _measure(self) -> float:
        """Seconds a token of small steps, one micro-batch a rank; every rank takes part, rank 0's clock counts."""
        trainer, plan = self.trainer, self.plan
        batch = min(plan.batch_tokens, plan.micro_batch * plan.context * self.world.size)
        trainer.plan = dataclasses.replace(plan, batch_tokens=batch, ramp_tokens=0)
        seconds = trainer.measure_step() / batch
        trainer.plan = plan
        return float(self.world.agree(lambda: seconds))

    def _lay_out(self, token_seconds: float) -> None:
        """Plan for ``--minutes``, from the time of a token."""
        assert self.options.minutes is not None
        tokens = max(1, int(self.options.minutes * 60 / token_seconds))
        self.plan = self.trainer.plan = make_plan(self.options, self.shape, self.data.tokens, tokens)
        self.trainer.optimizer = self._optimizer(self.trainer.model)  # its beta2 goes by the batch

    def _restore(self, checkpoint: Path) -> None:
        trainer = self.trainer
        state = load_checkpoint(
            checkpoint, trainer.model, trainer.optimizer, extra=self._average(), rank=self.world.rank
        )
        trainer.step, trainer.seconds = state["step"], state["seconds"]
        trainer.spikes.load_state(state["spikes"])
        self.early.load(state["early"])
        if trainer.scaler is not None and state.get("scaler"):
            trainer.scaler.load_state_dict(state["scaler"])
        if self.world.first:
            say_what_changed(state["computed"], self._computed())

    def _computed(self) -> dict[str, Any]:
        """What decides the order of floating-point sums."""
        return {
            "ranks": self.world.size,
            "parallel": self.options.parallel if self.world.size > 1 else "none",
            "micro_batch": self.plan.micro_batch,
            "device": self.compute.device.type,
            "compile": bool(self.options.compile),
            "gradient_checkpointing": self.options.gradient_checkpointing,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }

    def _write_beginning(self) -> None:
        rows = self.data.sources(self.plan.total_sequences, self.plan.context)
        if self.checkpoint is not None:
            check_same_data(self.folder, rows)
        given = set_rows(self.data.given, self.data.training)
        write_text(self.folder / "data.json", json.dumps({"sources": rows, "validation": given}, indent=1))
        if text := warning(given):
            say(text)
        write_text(self.folder / "environment.json", json.dumps(environment(str(self.compute.device)), indent=1))
        named = self.asked_options.resume not in ("auto", "never")
        if self.checkpoint is None or named:
            write_text(self.folder / ASKED, json.dumps(asked(self.asked_options)))
            write_text(self.folder / CONFIG, yaml.safe_dump(dataclasses.asdict(self.options), sort_keys=False))

    def _finish(self) -> None:
        """Samples shown, the final model folder, the report."""
        if not self.samples.latest and (self.world.first or self.sharded):  # all steps were done in an earlier sitting
            with self.trainer.averaged():
                self.samples.draw()
        if self.world.first:
            with replacing(self.folder / FINAL_MODEL) as temporary:
                extract_model(self.folder / CHECKPOINTS / f"step-{self.trainer.step}", temporary)
                (temporary / "README.md").write_text(self._card(), encoding="utf-8")
            self.samples.show()
        self.world.barrier()

    @property
    def sharded(self) -> bool:
        """Whether the ranks hold parts of the model: then all of them compute each forward pass together."""
        return self.options.parallel == "fsdp" and self.world.size > 1

    def _card(self) -> str:
        return model_card(
            self.folder.name,
            self.options,
            dataclasses.replace(self.plan, steps=self.trainer.step),
            self.trainer.model,
            self.data,
            self.validations.scores,
            self.trainer.seconds,
            losses_of(read_metrics(self.folder / "metrics.jsonl")),
        )

    # ---- what the loop calls (gpt3.training.loop.Events)

    def log(self, record: Mapping[str, Any]) -> None:
        """Give a record to every tracker."""
        for tracker in self.trackers:
            tracker.log(record)

    def validate(self, step: int, final: bool, log: bool = True) -> bool:
        """Score every validation set; True: the loss has not improved for `--early-stop` validations."""
        record = self.validations.score(self.trainer, step, final)
        if record is not None and log:
            self.log(record)
            if self.trainer.panel is not None:
                self.trainer.panel.validation(record)
        return self.early.stop

    def improved(self, step: int) -> bool:
        """Whether the validation of `step` is the best so far."""
        return self.early.best_step == step

    def sample(self, step: int) -> None:
        """Write samples; with FSDP all ranks compute, with DDP the first one."""
        if self.world.first or self.sharded:
            with self.trainer.averaged():
                self.samples.write(step)
        if self.trainer.panel is not None and self.samples.latest:
            self.trainer.panel.sample(*self.samples.latest[0])

    def save(self, step: int, seconds: float) -> None:
        """Hand a checkpoint to the writer."""
        trainer = self.trainer
        for tracker in self.trackers:
            tracker.flush()
        state = {
            "step": step,
            "tokens": self.plan.tokens_after(step),
            "sequences": self.plan.sequences(step - 1).stop,
            "seconds": seconds,
            "spikes": trainer.spikes.state(),
            "early": self.early.state(),
            "scaler": None if trainer.scaler is None else trainer.scaler.state_dict(),
            "computed": self._computed(),
        }
        self.writer.save(trainer.optimizer, state, extra=self._average(), best_step=self.early.best_step)

    def _average(self) -> dict[str, dict[str, torch.Tensor]]:
        """The weights' moving average as a checkpoint's further set of tensors, where one is kept."""
        average = self.trainer.average
        return {} if average is None else {"ema": average.tensors()}
