"""The training loop, top to bottom: rate → micro-batches → finite check → clip → step → log → validate → sample → save."""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch

from gpt3.corpus.sampler import WindowSampler
from gpt3.errors import RunError
from gpt3.ladder import flops_per_token
from gpt3.model import GPT3ForCausalLM
from gpt3.progress import Progress
from gpt3.training.device import Compute
from gpt3.training.plan import Plan
from gpt3.training.tracking import Tracker
from gpt3.training.validation import Score

LOG_SECONDS = 1.0
"""At most one metrics record a second: reading the loss waits for the device."""


@dataclass
class Trainer:
    """One run's moving parts. `step` optimizer steps are done; everything else follows from it."""

    model: GPT3ForCausalLM
    optimizer: torch.optim.Optimizer
    plan: Plan
    sampler: WindowSampler
    compute: Compute
    clip: float
    mask_documents: bool
    end_of_text: int
    trackers: Sequence[Tracker]
    validate: Callable[[], Score]
    sample: Callable[[int], None]
    save: Callable[[int, float], None]
    step: int = 0
    seconds: float = 0.0
    """Training time of earlier sittings and this one, validation and saving left out."""
    last_score: Score | None = None
    forward: Any = field(init=False)
    """The model, or its compiled form."""

    def __post_init__(self) -> None:
        self.forward = self.model

    def batch(self, step: int, part: int) -> dict[str, torch.Tensor]:
        """The `part`-th micro-batch of step `step` (0-based): a pure function of the two, so any resume sees the same."""
        first = step * self.plan.sequences + part * self.plan.micro_batch
        windows = torch.from_numpy(self.sampler.batch(range(first, first + self.plan.micro_batch)))  # (B, T + 1) int64
        if self.compute.device.type == "cuda":
            windows = windows.pin_memory().to(self.compute.device, non_blocking=True)
        else:
            windows = windows.to(self.compute.device)
        inputs, targets = windows[:, :-1], windows[:, 1:]
        batch = {"input_ids": inputs, "shift_labels": targets}
        if self.mask_documents:
            batch["position_ids"] = document_positions(inputs, self.end_of_text)
        return batch

    def accumulate(self, step: int) -> torch.Tensor:
        """Gradients of one step's mean loss per token; returns that loss, a scalar on the device."""
        total = torch.zeros((), device=self.compute.device)
        for part in range(self.plan.accumulation):
            with self.compute.autocast():
                output = self.forward(
                    **self.batch(step, part),
                    num_items_in_batch=self.plan.batch_tokens,
                    skip_logits=True,
                    use_cache=False,
                )
            output.loss.backward()
            total += output.loss.detach()
        return total

    def one_step(self) -> tuple[torch.Tensor, torch.Tensor, float]:
        """One optimizer step: loss and gradient norm (scalars on the device), and the learning rate.

        Raises:
            RunError: the loss or the gradient is not finite; the weights are still those of the step before.
        """
        lr = self.plan.learning_rate((self.step + 1) * self.plan.batch_tokens)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        loss = self.accumulate(self.step)
        grad_norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip or math.inf)
        if not math.isfinite(float(loss)) or not math.isfinite(float(grad_norm)):
            raise RunError(
                f"step {self.step + 1}: loss {float(loss)}, gradient norm {float(grad_norm)}: no longer finite; "
                "go on from the last checkpoint with a lower --lr"
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return loss, grad_norm, lr

    def train(self) -> bool:
        """Take every step that is left. True: all done; False: interrupted by SIGINT or SIGTERM, after a checkpoint."""
        plan = self.plan
        flops = flops_per_token(self.model.config, plan.context)
        self.model.train()
        with Progress("training", plan.steps, "steps", start=self.step) as bar, interruptible() as interrupted:
            clock = Clock(self.compute, self.step, self.seconds)
            while self.step < plan.steps:
                loss, grad_norm, lr = self.one_step()
                if clock.due(LOG_SECONDS) or self.step in (1, plan.steps):
                    tokens_per_s = clock.lap(self.step) * plan.batch_tokens
                    self.seconds = clock.seconds
                    record = {
                        "step": self.step,
                        "tokens": self.step * plan.batch_tokens,
                        "loss": float(loss),
                        "lr": lr,
                        "grad_norm": float(grad_norm),
                        "tokens_per_s": round(tokens_per_s, 1),
                        "mfu": round(tokens_per_s * flops / self.compute.peak_flops, 4),
                        "seconds": round(self.seconds, 2),
                    }
                    self.log(record)
                    bar.update(
                        self.step, f"loss {record['loss']:.3f}, {tokens_per_s:,.0f} tok/s, MFU {record['mfu']:.0%}"
                    )
                last = self.step == plan.steps
                with clock.paused():
                    if self.step % plan.validate_every == 0 and not last:  # the last validation reads the whole split
                        self.score(bar)
                    if self.step % plan.sample_every == 0 and not last:
                        self.sample(self.step)
                    if last or interrupted.is_set() or self.step % plan.checkpoint_every == 0:
                        self.save(self.step, clock.seconds)
                if interrupted.is_set() and not last:
                    return False
            self.seconds = clock.seconds
        return True

    def score(self, bar: Progress) -> None:
        """Validate, log and say so."""
        score = self.last_score = self.validate()
        self.log(validation_record(self.step, self.plan, score))
        bar.say(
            f"step {self.step}: validation loss {score.loss:.3f}, perplexity {score.perplexity:.1f}, "
            f"{score.bits_per_byte:.3f} bits per byte"
        )

    def log(self, record: dict[str, Any]) -> None:
        """Give a record to every tracker."""
        for tracker in self.trackers:
            tracker.log(record)

    def measure_step(self, repeats: int = 4) -> float:
        """Seconds of one step's forward and backward passes and its optimizer step, weights and generators left as they are."""
        random_state = torch.get_rng_state()
        saved = [weight.detach().clone() for weight in self.model.parameters()]
        self.model.train()
        times = []
        for index in range(repeats + 1):
            self.compute.synchronize()
            start = time.perf_counter()
            self.accumulate(index)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.compute.synchronize()
            times.append(time.perf_counter() - start)
        with torch.no_grad():
            for weight, old in zip(self.model.parameters(), saved, strict=True):
                weight.copy_(old)
        self.optimizer.state.clear()
        torch.set_rng_state(random_state)
        return sorted(times[1:])[repeats // 2]  # the first one warms up


class Clock:
    """Training seconds, with validation and saving left out, and the speed since the last lap."""

    def __init__(self, compute: Compute, step: int, seconds: float) -> None:
        self.compute = compute
        self.before = seconds
        self.began = self.lap_began = time.perf_counter()
        self.lap_step = step

    @property
    def seconds(self) -> float:
        """Training seconds so far, earlier sittings included."""
        return self.before + time.perf_counter() - self.began

    def due(self, interval: float) -> bool:
        """Whether the lap has lasted `interval` seconds."""
        return time.perf_counter() - self.lap_began >= interval

    def lap(self, step: int) -> float:
        """Steps a second since the last lap; a new one begins."""
        self.compute.synchronize()
        now = time.perf_counter()
        speed = (step - self.lap_step) / (now - self.lap_began)
        self.lap_began, self.lap_step = now, step
        return speed

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time that counts neither as training nor in the lap."""
        start = time.perf_counter()
        yield
        away = time.perf_counter() - start
        self.began += away
        self.lap_began += away


def validation_record(step: int, plan: Plan, score: Score) -> dict[str, Any]:
    """A validation as a metrics record."""
    return {
        "step": step,
        "tokens": step * plan.batch_tokens,
        "val/loss": score.loss,
        "val/perplexity": score.perplexity,
        "val/bits_per_byte": score.bits_per_byte,
        "val/tokens": score.tokens,
    }


def document_positions(inputs: torch.Tensor, end_of_text: int) -> torch.Tensor:
    """Positions (B, T) that start again at 0 after every end-of-text; the model masks documents from one another by them."""
    index = torch.arange(inputs.shape[1], device=inputs.device).expand_as(inputs)
    starts = torch.zeros_like(inputs)
    starts[:, 1:] = torch.where(inputs[:, :-1] == end_of_text, index[:, 1:], 0)
    return index - starts.cummax(dim=1).values


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, so that a step is finished and saved; a second SIGINT stops at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()
        print("interrupted: finishing this step and saving; once more to stop at once", file=sys.stderr, flush=True)

    old = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
