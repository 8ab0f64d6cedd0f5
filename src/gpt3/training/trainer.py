"""Optimizer steps: rate → micro-batches → mean over the step's tokens → finite and spike check → clip → step."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, schedule, supported_activities

from gpt3.corpus.mixture import Mixture
from gpt3.durable import replacing, write_text
from gpt3.errors import RunError
from gpt3.model import GPT3ForCausalLM
from gpt3.progress import say
from gpt3.training.distributed import Compute, World, gradients_stay, peers_lost
from gpt3.training.ema import WeightAverage
from gpt3.training.optimizers import make_optimizer
from gpt3.training.options import TrainOptions
from gpt3.training.plan import Plan
from gpt3.training.spikes import SpikeWindow

IGNORED = -100
"""The target of a position that is not predicted."""
MEASURE_STEPS = 4
"""A measured step is repeated this many times, unless that takes MEASURE_SECONDS ..."""
MEASURE_SECONDS = 30.0
STEADY_SECONDS = 2.0
"""... and until this much time has passed, in which a machine that was busy for a moment has had its quiet steps."""
PROFILE_WARMUP = 2
"""Steps before the profiled ones: the first pays for allocations and compilation, the second for the profiler's own start."""
PROFILE_ROWS = 25


class Trainer:
    """A model and all that changes with its steps. `step` optimizer steps are done; everything else follows from it.

    Args:
        options: of the run; the optimizer, spikes, clipping, averages and masks go by them.
        plan: the run's numbers.
        model: on the device, with its weights.
        forward: what forward passes go through: the model, its DDP wrapper, its compiled form.
        mixture: the training sequences.
        end_of_text: id of the token that ends a document.

    Attributes:
        step: optimizer steps done, skipped ones included.
        average: the moving average of the weights, where one is kept.
    """

    def __init__(
        self,
        options: TrainOptions,
        plan: Plan,
        model: GPT3ForCausalLM,
        forward: Any,
        mixture: Mixture,
        end_of_text: int,
        compute: Compute,
        world: World,
    ) -> None:
        self.options, self.plan, self.model, self.forward, self.mixture = options, plan, model, forward, mixture
        self.end_of_text, self.compute, self.world = end_of_text, compute, world
        self.optimizer = make_optimizer(model, replace(options, beta2=plan.beta2), plan.lr)
        self.spikes = SpikeWindow(options.spike_window, options.spike_sigmas, options.spike_patience)
        self.average = None if options.ema is None else WeightAverage(model, options.ema)
        self.scaler = torch.amp.GradScaler(compute.device.type) if compute.dtype == torch.float16 else None
        self.step = 0

    def batches(self, step: int) -> Iterator[dict[str, torch.Tensor]]:
        """This rank's micro-batches of step `step` (0-based): a pure function of the step, so any resume sees the same.

        The sequences are shared out in order. Every rank gets as many micro-batches as the others, so that they meet in
        each exchange: where sequences run out, one that counts nothing.
        """
        numbers = self.plan.sequences(step)
        rank, size, micro = self.world.rank, self.world.size, self.plan.micro_batch
        mine = numbers[len(numbers) * rank // size : len(numbers) * (rank + 1) // size]
        for first in range(0, -(-len(numbers) // size), micro):
            part = mine[first : first + micro]
            windows = torch.from_numpy(self.mixture.batch(part or numbers[:1]))  # (B, T + 1) int64
            if self.compute.device.type == "cuda":
                windows = windows.pin_memory().to(self.compute.device, non_blocking=True)
            else:
                windows = windows.to(self.compute.device)
            inputs, targets = windows[:, :-1], windows[:, 1:]
            batch = {"input_ids": inputs, "shift_labels": targets if part else torch.full_like(targets, IGNORED)}
            if self.options.mask_documents:
                batch["position_ids"] = document_positions(inputs, self.end_of_text)
            yield batch

    def accumulate(self, step: int) -> torch.Tensor:
        """Gradients of one step's mean loss per token over all ranks; returns this rank's share of that loss, a scalar."""
        total = torch.zeros((), device=self.compute.device)
        tokens = len(self.plan.sequences(step)) * self.plan.context
        batches = list(self.batches(step))
        for index, batch in enumerate(batches):
            with peers_lost(), gradients_stay(self.forward, index + 1 < len(batches)):
                with self.compute.autocast():
                    output = self.forward(**batch, num_items_in_batch=tokens, skip_logits=True, use_cache=False)
                loss = output.loss * self.world.size  # exchanged gradients are means over ranks, wanted is their sum
                (loss if self.scaler is None else self.scaler.scale(loss)).backward()
            total += output.loss.detach()
        return total

    def one_step(self, stop: Callable[[], bool] = lambda: False) -> dict[str, Any]:
        """One optimizer step, taken or skipped; its record of metrics.jsonl.

        Args:
            stop: whether this rank was asked to end; the record's ``stop`` says whether any was.

        Raises:
            RunError: gradients overflow fp16 at any loss scale.
        """
        sequences, tokens = self.plan.sequences(self.step), self.plan.tokens_after(self.step + 1)
        lr = self.plan.learning_rate(tokens)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        share = self.accumulate(self.step)
        loss, stops = self.world.all_reduce(torch.stack([share, share.new_tensor(float(stop()))])).tolist()
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        grad_norm = self.clip()
        record: dict[str, Any] = {
            "step": self.step + 1, "tokens": tokens, "loss": loss, "lr": lr, "grad_norm": grad_norm,
            "batch_tokens": len(sequences) * self.plan.context,
        }  # fmt: skip
        if self.scaler is not None and math.isfinite(loss) and not math.isfinite(grad_norm):
            scale = self.scaler.get_scale() * self.scaler.get_backoff_factor()
            if scale < 1:
                raise RunError(f"step {self.step + 1}: gradients overflow fp16 at any loss scale; use --dtype fp32")
            record["skipped"] = f"fp16 overflow; the loss scale is now {scale:g}"
        elif reason := self.spikes.verdict(loss, grad_norm):
            record |= {"skipped": reason, "windows": [sequences.start, sequences.stop - 1]}
        elif self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
        if self.scaler is not None:
            self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        if self.average is not None:
            self.average.update(self.step)
        return record | {"stop": stops > 0}

    def clip(self) -> float:
        """Clip the gradients to ``--clip``; returns their global norm before."""
        with peers_lost():
            norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip or math.inf)
            return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)  # of a sharded model

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the model's weights are their moving average, where one is kept."""
        with nullcontext() if self.average is None else self.average.swapped_in():
            yield

    def averages(self) -> dict[str, dict[str, torch.Tensor]]:
        """The weights' moving average as a checkpoint's further set of tensors, where one is kept."""
        return {} if self.average is None else {"ema": self.average.tensors()}

    def state(self) -> dict[str, Any]:
        """What a checkpoint's state.json keeps of it; `load` takes it back."""
        return {
            "step": self.step,
            "tokens": self.plan.tokens_after(self.step),
            "sequences": self.plan.sequences(self.step - 1).stop,
            "spikes": self.spikes.state(),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "computed": self.computed(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state`."""
        self.step = state["step"]
        self.spikes.load_state(state["spikes"])
        if self.scaler is not None and state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])

    def computed(self) -> dict[str, Any]:
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

    def measure_token(self) -> float:
        """Seconds per token of steps of one micro-batch per rank; weights and the CPU's generator are put back.

        Every rank takes part, rank 0's clock counts. The time is the lower quartile of many: other work on the machine makes
        steps slower, nothing makes them faster.
        """
        plan, small = self.plan, self.plan.micro_batch * self.plan.context * self.world.size
        self.plan = replace(plan, batch_tokens=min(plan.batch_tokens, small), ramp_tokens=0)
        random_state = torch.get_rng_state()
        saved = [weight.detach().clone() for weight in self.model.parameters()]
        self.model.train()
        times: list[float] = []
        for index in itertools.count():
            self.compute.synchronize()
            start = time.perf_counter()
            self.accumulate(index % MEASURE_STEPS)
            self.clip()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.compute.synchronize()
            times.append(time.perf_counter() - start)
            if index and self.world.agree(lambda: enough(times)):
                break
        with torch.no_grad():
            for weight, old in zip(self.model.parameters(), saved, strict=True):
                weight.copy_(old)
        self.optimizer.state.clear()
        torch.set_rng_state(random_state)
        seconds = sorted(times[1:])[len(times[1:]) // 4] / self.plan.batch_tokens  # the first one warms up
        self.plan = plan
        return float(self.world.agree(lambda: seconds))


def enough(times: Sequence[float]) -> bool:
    """Whether these are enough seconds of steps to know a step's time by."""
    return sum(times) > MEASURE_SECONDS or (len(times) > MEASURE_STEPS and sum(times) > STEADY_SECONDS)


class Clock:
    """Training seconds, with validation and saving left out, and the speed since the last lap."""

    def __init__(self, compute: Compute, tokens: int, seconds: float) -> None:
        self.compute = compute
        self.before = seconds
        self.began = self.lap_began = time.perf_counter()
        self.lap_tokens = tokens

    @property
    def seconds(self) -> float:
        """Training seconds so far, earlier sessions included."""
        return self.before + time.perf_counter() - self.began

    def lap(self, tokens: int) -> float:
        """Tokens a second since the last lap; a new one begins."""
        self.compute.synchronize()
        now = time.perf_counter()
        speed = (tokens - self.lap_tokens) / (now - self.lap_began)
        self.lap_began, self.lap_tokens = now, tokens
        return speed

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time that counts neither as training nor in the lap."""
        start = time.perf_counter()
        yield
        away = time.perf_counter() - start
        self.began += away
        self.lap_began += away


def document_positions(inputs: torch.Tensor, end_of_text: int) -> torch.Tensor:
    """Positions (B, T) that start again at 0 after every end-of-text; the model masks documents from one another by them."""
    index = torch.arange(inputs.shape[1], device=inputs.device).expand_as(inputs)
    starts = torch.zeros_like(inputs)
    starts[:, 1:] = torch.where(inputs[:, :-1] == end_of_text, index[:, 1:], 0)
    return index - starts.cummax(dim=1).values


class StepProfiler:
    """A context manager around the training loop that records `steps` steps (``--profile``); call `step()` after each step.

    Writes FOLDER/profile/trace.json, for https://ui.perfetto.dev or chrome://tracing, and FOLDER/profile/summary.txt, the
    operators that took most of the time themselves. A run that ends sooner leaves the trace of the steps there were. Recording
    costs time, so the speed of those steps is not the run's. With several processes one alone records.

    Args:
        folder: the run folder.
        steps: steps to record, at least 1, after 2 of warm-up.
    """

    def __init__(self, folder: Path, steps: int) -> None:
        self.folder = folder / "profile"
        self.written = False
        self._profile = profile(
            schedule=schedule(wait=0, warmup=PROFILE_WARMUP, active=steps, repeat=1),
            on_trace_ready=self._write,
            record_shapes=True,
        )

    def __enter__(self) -> StepProfiler:
        self._profile.start()
        return self

    def step(self) -> None:
        """A training step has ended. After the last recorded one the files are written, and this costs nothing any more."""
        if not self.written:
            self._profile.step()
            if self.written:
                self._profile.stop()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self.written:
            self._profile.stop()
            if not self.written:
                say(f"--profile: no trace, the run ended within its {PROFILE_WARMUP} warm-up steps")

    def _write(self, recorded: profile) -> None:
        """Both files, each whole or not at all; nothing when no recorded step has ended."""
        if recorded.step_num <= PROFILE_WARMUP:
            return
        with replacing(self.folder / "trace.json") as temporary:
            recorded.export_chrome_trace(str(temporary))
        device = ProfilerActivity.CUDA in supported_activities() and torch.cuda.is_available()
        order = "self_device_time_total" if device else "self_cpu_time_total"
        table = recorded.key_averages(group_by_input_shape=True).table(sort_by=order, row_limit=PROFILE_ROWS)
        write_text(self.folder / "summary.txt", table)
        self.written = True
