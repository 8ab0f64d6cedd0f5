"""The training loop, top to bottom: rate → micro-batches → sum over ranks → finite and spike check → clip → step → log →
validate → sample → save."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from gpt3.errors import RunError
from gpt3.ladder.presets import flops_per_token
from gpt3.model import GPT3ForCausalLM
from gpt3.training.device import Compute
from gpt3.training.distributed import World, gradients_stay, peers_lost
from gpt3.training.ema import WeightAverage
from gpt3.training.panel import Panel
from gpt3.training.plan import Plan
from gpt3.training.signals import Interruption
from gpt3.training.spikes import SpikeWindow
from gpt3.training.validation import IGNORED

MEASURE_STEPS = 4
"""A measured step is repeated so often, unless that takes MEASURE_SECONDS ..."""
MEASURE_SECONDS = 30.0
STEADY_SECONDS = 2.0
"""... and until so much time has passed, in which a machine that was busy for a moment has had its quiet steps."""
SHOW_SECONDS = 0.25
"""The panel is told of a step at most so often."""


class Sequences(Protocol):
    """Where training sequences come from: gpt3.corpus' WindowOrder, or a mixture of them."""

    windows_per_epoch: int

    def batch(self, indices: Sequence[int]) -> Any:
        """Sequences by number: (n, context + 1) int64 numpy."""


class Evaluator(Protocol):
    """Something measured now and then while training, such as a few-shot probe."""

    every: int
    """Steps between two measurements."""

    def __call__(self, model: GPT3ForCausalLM, step: int) -> Mapping[str, float]:
        """Numbers by name; they are logged as ``eval/NAME``. Called on every rank."""


class Events(Protocol):
    """What a run does beside its steps; gpt3.training.pretraining has it."""

    def log(self, record: Mapping[str, Any]) -> None:
        """Take one record of metrics.jsonl."""

    def validate(self, step: int, final: bool) -> bool:
        """Score every validation set and log it; True: time to stop early."""

    def improved(self, step: int) -> bool:
        """Whether the validation of `step` is the best so far."""

    def sample(self, step: int) -> None:
        """Write samples."""

    def save(self, step: int, seconds: float) -> None:
        """Write a checkpoint."""


@dataclass
class Trainer:
    """One run's moving parts. `step` optimizer steps are done; everything else follows from it."""

    model: GPT3ForCausalLM
    forward: Any
    """What forward passes go through: the model, its DDP wrapper, its compiled form."""
    optimizer: Any
    plan: Plan
    sampler: Sequences
    compute: Compute
    world: World
    spikes: SpikeWindow
    clip: float
    mask_documents: bool
    end_of_text: int
    average: WeightAverage | None = None
    scaler: torch.amp.GradScaler | None = None
    evaluators: Sequence[Evaluator] = ()
    profiler: Any = field(default_factory=nullcontext)
    """gpt3.training.profiling.StepProfiler."""
    panel: Panel | None = None
    """Shown while training; None on all ranks but the first."""
    step: int = 0
    seconds: float = 0.0
    """Training time of earlier sittings and this one, validation and saving left out."""

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
            windows = torch.from_numpy(self.sampler.batch(part or numbers[:1]))  # (B, T + 1) int64
            if self.compute.device.type == "cuda":
                windows = windows.pin_memory().to(self.compute.device, non_blocking=True)
            else:
                windows = windows.to(self.compute.device)
            inputs, targets = windows[:, :-1], windows[:, 1:]
            batch = {"input_ids": inputs, "shift_labels": targets if part else torch.full_like(targets, IGNORED)}
            if self.mask_documents:
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
        tokens = self.plan.tokens_after(self.step + 1)
        lr = self.plan.learning_rate(tokens)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        share = self.accumulate(self.step)
        loss, stops = self.world.all_reduce(torch.stack([share, share.new_tensor(float(stop()))])).tolist()
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        with peers_lost():
            norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip or math.inf)
            grad_norm = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)  # of a sharded model
        record: dict[str, Any] = {
            "step": self.step + 1,
            "tokens": tokens,
            "loss": loss,
            "lr": lr,
            "grad_norm": grad_norm,
        }
        record["batch_tokens"] = len(self.plan.sequences(self.step)) * self.plan.context

        if self.scaler is not None and math.isfinite(loss) and not math.isfinite(grad_norm):
            self.scaler.update()
            record["skipped"] = f"fp16 overflow; the loss scale is now {self.scaler.get_scale():g}"
            if self.scaler.get_scale() < 1:
                raise RunError(f"step {self.step + 1}: gradients overflow fp16 at any loss scale; use --dtype fp32")
        elif reason := self.spikes.verdict(loss, grad_norm):
            numbers = self.plan.sequences(self.step)
            record |= {"skipped": reason, "windows": [numbers.start, numbers.stop - 1]}
            if self.scaler is not None:
                self.scaler.update()
        else:
            if self.scaler is None:
                self.optimizer.step()
            else:
                self.scaler.step(self.optimizer)
                self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        if self.average is not None:
            self.average.update(self.step)
        return record | {"stop": stops > 0}

    def train(self, events: Events, interruption: Interruption) -> bool:
        """Take every step that is left. True: all done, or stopped early; False: interrupted, after a checkpoint."""
        plan = self.plan
        flops = flops_per_token(self.model.config, plan.context)
        self.model.train()
        panel = self.panel
        with panel or nullcontext(), self.profiler as profiler:
            clock = Clock(self.compute, plan.tokens_after(self.step), self.seconds)
            shown = 0.0
            while self.step < plan.steps:
                record = self.one_step(lambda: interruption.number is not None)
                interrupted = record.pop("stop")
                last = self.step == plan.steps
                if profiler is not None:
                    profiler.step()
                skipped = record.get("skipped")
                due = self.step % plan.log_every == 0 or self.step == 1 or last or skipped
                if due or (panel is not None and time.monotonic() - shown > SHOW_SECONDS):
                    tokens_per_s = clock.lap(record["tokens"])
                    self.seconds = clock.seconds
                    record |= {
                        "tokens_per_s": round(tokens_per_s, 1),
                        "mfu": round(tokens_per_s * flops / (self.compute.peak_flops * self.world.size), 4),
                        "seconds": round(self.seconds, 2),
                    }
                    if due:
                        events.log(record)
                    if panel is not None:
                        shown = time.monotonic()
                        panel.update(record)
                if self.spikes.lost:
                    raise RunError(
                        f"step {self.step}: {self.spikes.in_a_row} steps in a row were skipped, the last for {skipped}; "
                        "go on from the last checkpoint with a lower --lr, or look at the skipped steps' data (metrics.jsonl)"
                    )
                seconds = clock.seconds
                with clock.paused():
                    stopping = False
                    if self.step % plan.validate_every == 0 or last:
                        stopping = events.validate(self.step, final=last)
                    if stopping and not last:
                        events.validate(self.step, final=True)
                    for evaluator in self.evaluators:
                        if self.step % evaluator.every == 0 or last:
                            with self.averaged():
                                found = evaluator(self.model, self.step)
                            numbers = {f"eval/{name}": value for name, value in found.items()}
                            events.log({"step": self.step, "tokens": record["tokens"], **numbers})
                    if self.step % plan.sample_every == 0 or last or stopping:
                        events.sample(self.step)
                    ending = last or stopping or interrupted
                    if ending or self.step % plan.checkpoint_every == 0 or events.improved(self.step):
                        events.save(self.step, seconds)
                if stopping:
                    break
                if interrupted and not last:
                    return False
            self.seconds = clock.seconds
        return True

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the model's weights are their moving average, where one is kept."""
        if self.average is None:
            yield
        else:
            with self.average.swapped_in():
                yield

    def measure_step(self) -> float:
        """Seconds of one step of the plan's full batch; weights and the CPU's generator are put back.

        It is the lower quartile of many: other work on the machine at that moment makes steps slower, nothing makes them faster.
        """
        random_state = torch.get_rng_state()
        saved = [weight.detach().clone() for weight in self.model.parameters()]
        self.model.train()
        full = self.plan.stages[-1].first_step
        times: list[float] = []
        for index in itertools.count():
            self.compute.synchronize()
            start = time.perf_counter()
            self.accumulate(full + index % MEASURE_STEPS)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip or math.inf)
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
        return sorted(times[1:])[len(times[1:]) // 4]  # the first one warms up


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
        """Training seconds so far, earlier sittings included."""
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
