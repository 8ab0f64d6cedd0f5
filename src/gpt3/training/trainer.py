"""Optimizer steps: rate → micro-batches → mean over the step's tokens → finite and spike check → clip → step."""

from __future__ import annotations

import gc
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule

from gpt3.corpus.mixture import Mixture
from gpt3.device import empty_cache, ran_out_of_memory
from gpt3.errors import RunError
from gpt3.model import GPT3ForCausalLM
from gpt3.model.banded_attention import has_windowed_flash
from gpt3.model.packed_documents import cumulative_lengths, document_positions
from gpt3.training import random_state
from gpt3.training.compilation import is_compiled, sizes
from gpt3.training.distributed import Compute, World, peers_lost
from gpt3.training.fitting import Exchange, halved, parallel_text
from gpt3.training.model_building import gradients_stay
from gpt3.training.noise_scale import NoiseScale
from gpt3.training.optimizers import make_optimizer
from gpt3.training.options import TrainOptions
from gpt3.training.plan import Plan
from gpt3.training.spikes import SpikeWindow
from gpt3.training.weight_average import WeightAverage

IGNORED = -100
"""The target of a position that is not predicted."""
MEASURE_STEPS = 4
"""A measured step is repeated this many times, unless that takes MEASURE_SECONDS ..."""
MEASURE_SECONDS = 30.0
STEADY_SECONDS = 2.0
"""... and until this much time has passed, in which a machine that was busy for a moment has had its quiet steps."""


class Trainer:
    """A model and all that changes with its steps. `step` optimizer steps are done; everything else follows from it.

    Args:
        options: of the run; the optimizer, spikes, clipping, averages and masks go by them.
        plan: the run's numbers.
        model: on the device, with its weights.
        forward: what forward passes go through: the model, its DDP wrapper, its compiled form.
        mixture: the training sequences.
        end_of_text: id of the token that ends a document.
        exchange: when sharded processes exchange weights and gradients; None: as often as saves most memory.

    Attributes:
        step: optimizer steps done, skipped ones included.
        plan: the run's numbers; its micro-batch is smaller where the given one did not fit in memory.
        average: the moving average of the weights, where one is kept.
        noise: the gradient noise scale, where it is measured.
        flash: whether flash attention takes packed documents by their beginnings.
        ahead: whether the next step's batches are read and sent while the device computes this one.
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
        exchange: Exchange | None = None,
    ) -> None:
        self.options, self.plan, self.model, self.forward, self.mixture = options, plan, model, forward, mixture
        self.end_of_text, self.compute, self.world = end_of_text, compute, world
        chosen = replace(options, optimizer=plan.optimizer, muon_lr=plan.muon_lr, beta2=plan.beta2)
        self.optimizer = make_optimizer(model, chosen, plan.lr)
        self.spikes = SpikeWindow(options.spike_window, options.spike_sigmas, options.spike_patience)
        self.average = None if options.ema is None else WeightAverage(model, options.ema)
        self.noise = NoiseScale(list(model.parameters()), world.data_size) if options.noise_scale else None
        self.scaler = torch.amp.GradScaler(compute.device.type) if compute.dtype == torch.float16 else None
        self.compiled = is_compiled(forward)
        self.flash = has_windowed_flash(compute.device, compute.dtype, model.config.head_dim)
        self.step = 0
        self.ahead = compute.device.type != "cpu"
        self._next: tuple[int, Plan, list[dict[str, torch.Tensor]]] | None = None
        self.exchange = exchange or Exchange()
        blocks: Any = model.transformer.h if isinstance(model, FSDPModule) else ()
        for block in blocks:  # the embeddings stay gathered
            block.set_reshard_after_forward(self.exchange.regather, recurse=False)

    def batches(self, step: int) -> Iterator[dict[str, torch.Tensor]]:
        """This rank's micro-batches of step `step` (0-based): a pure function of the step, so any resume sees the same.

        The sequences are shared out in order. Every rank gets as many micro-batches as the others, so that they meet in
        each exchange: where sequences run out, rows that count nothing.
        """
        numbers, mine, first, size = self.plan.sequences(step), self.share(step), 0, self.world.data_size
        for rows in sizes(-(-len(numbers) // size), self.plan.micro_batch, self.compiled):
            part = mine[first : first + rows]
            filled = [*part, *itertools.repeat(numbers[0], rows - len(part))]
            here = torch.from_numpy(self.mixture.batch(filled))  # (rows, T + 1) int64
            windows = self._sent(here)
            inputs, targets = windows[:, :-1], windows[:, 1:]
            if len(part) < rows:
                targets = targets.clone()
                targets[len(part) :] = IGNORED
            batch = {"input_ids": inputs, "shift_labels": targets}
            if self.options.mask_documents:
                positions = document_positions(here[:, :-1], self.end_of_text)
                batch["position_ids"] = self._sent(positions)
                if self.flash:
                    batch["cu_seq_lens_q"] = self._sent(cumulative_lengths(positions))
            yield batch
            first += rows

    def _sent(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor on the device; what is computed next does not wait for it."""
        cuda = self.compute.device.type == "cuda"
        return (tensor.pin_memory() if cuda else tensor).to(self.compute.device, non_blocking=cuda)

    def share(self, step: int) -> range:
        """Numbers of the sequences of step `step` (0-based) that this rank has."""
        numbers, rank, size = self.plan.sequences(step), self.world.data_rank, self.world.data_size
        return numbers[len(numbers) * rank // size : len(numbers) * (rank + 1) // size]

    def accumulate(self, step: int) -> torch.Tensor:
        """Gradients of one step's mean loss per token over all ranks; returns this rank's share of that loss, a scalar."""
        total = torch.zeros((), device=self.compute.device)
        tokens = len(self.plan.sequences(step)) * self.plan.context
        # A compiled model is compiled for each number that it is given, and during a ramp this one changes: divided outside.
        options: dict[str, Any] = {"loss_reduction": "sum"} if self.compiled else {"num_items_in_batch": tokens}
        batches, left = self._batches_of(step), len(self.share(step))
        if self.noise is not None:
            self.noise.begin()
        for index, batch in enumerate(batches):
            with peers_lost(), gradients_stay(self.forward, index + 1 < len(batches), self.exchange.reduce_once):
                with self.compute.autocast():
                    output = self.forward(**batch, **options, skip_logits=True, use_cache=False)
                mean = output.loss / tokens if self.compiled else output.loss
                loss = mean * self.world.data_size  # exchanged gradients are means over ranks, wanted is their sum
                (loss if self.scaler is None else self.scaler.scale(loss)).backward()
            total += mean.detach()
            if self.noise is not None:
                rows = min(left, len(batch["input_ids"]))
                self.noise.take(index, len(batches), rows * self.plan.context)
                left -= rows
        return total

    def _batches_of(self, step: int) -> list[dict[str, torch.Tensor]]:
        """`batches`, which may have been read ahead."""
        ready, self._next = self._next, None
        return ready[2] if ready is not None and ready[:2] == (step, self.plan) else list(self.batches(step))

    def accumulate_fitting(self, step: int) -> torch.Tensor:
        """`accumulate`; where memory runs out, again from the same random state with a smaller micro-batch, which the plan keeps.

        Of several ranks none can begin anew alone, in the midst of the others' exchange: there the error stays one.

        Raises:
            RunError: one sequence does not fit.
        """
        while True:
            before = random_state.capture() if self.options.dropout else None  # nothing else of a step draws
            try:
                return self.accumulate(step)
            except RuntimeError as error:
                if self.world.size > 1 or not ran_out_of_memory(error):
                    raise
            self.plan = halved(self.plan, self.options)  # the error is gone, and with it what its frames held
            self.optimizer.zero_grad(set_to_none=True)
            empty_cache(self.compute.device)
            if before is not None:
                random_state.restore(before)

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
        share = self.accumulate_fitting(self.step) / self.world.tensor  # each of those has it whole
        if self.ahead and self.step + 1 < self.plan.steps:  # before the loss is waited for
            self._next = self.step + 1, self.plan, list(self.batches(self.step + 1))
        numbers = torch.stack([share, torch.full_like(share, float(stop()))])
        if self.noise is not None:
            numbers = torch.cat([numbers, self.noise.sums(len(sequences) * self.plan.context, share)])
        loss, stops, *noise = self.world.all_reduce(numbers).tolist()
        scale = 1.0 if self.scaler is None else self.scaler.get_scale()
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
        else:
            if self.noise is not None:
                record |= self.noise.update(noise, record["batch_tokens"], grad_norm, scale)
            with self.room_for_state():
                self.optimizer.step() if self.scaler is None else self.scaler.step(self.optimizer)
        if self.scaler is not None:
            self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        if self.average is not None:
            self.average.update(self.step)
        return record | {"stop": stops > 0}

    @contextmanager
    def room_for_state(self) -> Iterator[None]:
        """A context for the optimizer's step, the first of which allocates its state.

        Raises:
            RunError: memory runs out. Some weights may have changed by then, so the step cannot begin anew; and a smaller
                micro-batch would not help, since activations are gone.
        """
        try:
            yield
        except RuntimeError as error:
            if not ran_out_of_memory(error):
                raise
            raise RunError(
                f"out of memory in the optimizer's step: the state of --optimizer {self.plan.optimizer} does not fit in "
                "memory with weights and gradients; use a smaller --model, or more devices with --parallel fsdp"
            ) from None

    def clip(self) -> float:
        """Clip the gradients to ``--clip``; returns their global norm before."""
        with peers_lost():
            norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip or math.inf)
            return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)  # of a sharded model

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """A context to evaluate in: the model's weights are their moving average, where one is kept, and nothing is compiled."""
        # Shapes are any. Without compiled code not even torch's compiler is loaded.
        eager: Any = torch.compiler.set_stance("force_eager") if self.compiled else nullcontext()
        with eager, nullcontext() if self.average is None else self.average.swapped_in():
            yield

    def averages(self) -> dict[str, dict[str, torch.Tensor]]:
        """The weights' moving average as a checkpoint's further set of tensors, where one is kept."""
        return {} if self.average is None else {"ema": self.average.tensors}

    def state(self) -> dict[str, Any]:
        """What a checkpoint's state.json keeps of it; `load` takes it back."""
        return {
            "step": self.step,
            "tokens": self.plan.tokens_after(self.step),
            "sequences": self.plan.sequences(self.step - 1).stop,
            "spikes": self.spikes.state(),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "computed": self.computed(),
        } | ({} if self.noise is None else {"noise": self.noise.state()})

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state`."""
        self.step = state["step"]
        self.spikes.load_state(state["spikes"])
        if self.noise is not None and "noise" in state:
            self.noise.load(state["noise"])
        if self.scaler is not None and state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])

    def computed(self) -> dict[str, Any]:
        """What decides the order of floating-point sums."""
        return {
            "ranks": self.world.size,
            "parallel": parallel_text(self.options, self.world, self.exchange),
            "micro_batch": self.plan.micro_batch,
            "device": self.compute.device.type,
            "compile": self.compiled,
            "gradient_checkpointing": self.options.gradient_checkpointing or self.options.selective_checkpointing,
            "threads": torch.get_num_threads() if self.compute.adaptive is None else "auto",
            "torch": torch.__version__,
            "onednn": None if self.compute.onednn is None else list(self.compute.onednn),
        }

    def measure_token(self) -> float:
        """Seconds per token of steps of one micro-batch per rank; see `measure_step`."""
        tokens = min(self.plan.batch_tokens, self.plan.micro_batch * self.plan.context * self.world.data_size)
        token_seconds, update_seconds = self.measure_step()
        return token_seconds + update_seconds / tokens

    def measure_step(self) -> tuple[float, float]:
        """Seconds per token of forward and backward pass, and of the optimizer's step, in steps of one micro-batch per rank.

        Weights and the CPU's generator are put back. Where the micro-batch does not fit, the plan has a smaller one afterwards.

        Every rank takes part, rank 0's clock counts. The time is that of the lower quartile of many steps: other work on the
        machine makes steps slower, nothing makes them faster.
        """
        plan, small = self.plan, self.plan.micro_batch * self.plan.context * self.world.data_size
        self.plan = replace(plan, batch_tokens=min(plan.batch_tokens, small), ramp_tokens=0)
        random_state = torch.get_rng_state()
        saved = [weight.detach().clone() for weight in self.model.parameters()]
        self.model.train()
        adaptive, times, updates = self.compute.adaptive, list[float](), list[float]()
        if adaptive is not None:
            adaptive.begin()
        for index in itertools.count():
            self.compute.synchronize()
            start = time.perf_counter()
            self.accumulate_fitting(index % MEASURE_STEPS)
            self.compute.synchronize()
            middle = time.perf_counter()
            self.clip()
            with self.room_for_state():
                self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.compute.synchronize()
            times.append(time.perf_counter() - start)
            updates.append(times[-1] - (middle - start))
            if adaptive is not None:
                threads = adaptive.threads
                adaptive.after(times[-1], self.plan.batch_tokens)
                if adaptive.threads != threads:
                    times.clear()
                    updates.clear()
            if self.world.agree(lambda: enough(times)):
                break
        with torch.no_grad():
            for weight, old in zip(self.model.parameters(), saved, strict=True):
                weight.copy_(old)
        self.optimizer.state.clear()
        torch.set_rng_state(random_state)
        steady = sorted(zip(times[1:], updates[1:], strict=True))[len(times[1:]) // 4]  # the first one warms up
        tokens = self.plan.batch_tokens
        self.plan = replace(plan, micro_batch=self.plan.micro_batch)
        seconds: tuple[float, float] = self.world.agree(lambda: ((steady[0] - steady[1]) / tokens, steady[1]))
        return seconds


@contextmanager
def frozen_garbage() -> Iterator[None]:
    """Keep Python's garbage collector from what is there already: it looks at every module and tensor, while all ranks wait."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def enough(times: Sequence[float]) -> bool:
    """Whether these are enough seconds of steps to know a step's time by."""
    if len(times) < 2:
        return False
    return sum(times) > MEASURE_SECONDS or (len(times) > MEASURE_STEPS and sum(times) > STEADY_SECONDS)
