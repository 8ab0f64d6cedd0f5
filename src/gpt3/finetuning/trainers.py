"""TRL's trainers with this project's samples, losses over tokens, checkpoints and metrics; and PEFT's adapters.

Imported only when training: it needs the packages of the extra ``finetune``.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import trl.trainer.utils
from peft import LoraConfig, get_peft_model
from torch.utils.data import Sampler
from transformers import TrainerCallback
from trl import DPOTrainer, SFTTrainer

from gpt3.finetuning.checkpoints import Checkpointing
from gpt3.finetuning.options import FinetuneOptions
from gpt3.progress import say
from gpt3.training.tracking import Tracker
from gpt3.work_folder import Interruption

NAMES = {
    "loss": "loss", "learning_rate": "lr", "grad_norm": "grad_norm", "mean_token_accuracy": "accuracy",
    "rewards/margins": "reward_margin", "rewards/accuracies": "reward_accuracy", "rewards/chosen": "reward_chosen",
    "rewards/rejected": "reward_rejected",
}  # fmt: skip
"""Trainer's names for what is logged, and ours; evaluation puts ``eval_`` before its own, we ``val/``."""
BATCHES_SORTED = 64
"""Samples are sorted by length within this many batches only: then which ones share a batch stays close to random."""
LORA_LAYERS = {"gpt3": ["c_attn", "c_proj", "c_fc"], "gpt2": ["c_attn", "c_proj", "c_fc"]}
"""The layers' matrices, which get adapters; of other models all linear layers but the head."""


def with_adapter(model: Any, options: FinetuneOptions, new_ids: list[int]) -> Any:
    """The model with LoRA or DoRA adapters; of the embeddings only new tokens' rows are trained."""
    kind = model.config.model_type
    name = next(name for name, module in model.named_modules() if module is model.get_input_embeddings())
    config = LoraConfig(
        task_type="CAUSAL_LM", r=options.lora_rank, lora_alpha=options.lora_alpha, lora_dropout=options.lora_dropout,
        use_dora=options.dora, target_modules=LORA_LAYERS.get(kind, "all-linear"), fan_in_fan_out=kind == "gpt2",
        trainable_token_indices={name.rpartition(".")[2]: new_ids} if new_ids else None,
    )  # fmt: skip
    adapted = get_peft_model(model, config)
    head = model.get_output_embeddings()
    if not hasattr(head, "bias"):  # PEFT's wrapper around a tied head hides that it has none; TRL asks for it
        head.bias = None
    return adapted


_TRLS_RULE: Any = getattr(trl.trainer.utils, "_use_triton", None)


def head_for_labels_alone(device: torch.device) -> bool:
    """TRL's rule for which devices send only labelled positions through the head, with CPUs added.

    TRL 1.16 does so where Triton runs, and computes every position elsewhere, for compilers that want fixed shapes. A CPU has no
    such compiler, and most positions of a conversation have no label: with GPT-2's vocabulary a step of a 17M model takes half
    the time.
    """
    return device.type == "cpu" or bool(_TRLS_RULE(device))


if _TRLS_RULE is not None:  # private: if a later TRL drops it, training is merely slower
    trl.trainer.utils._use_triton = head_for_labels_alone


class GroupedByLength(Sampler[int]):
    """Samples in an order that follows from (seed, epoch) alone, so that a resumed run finds its place.

    All samples are shuffled and cut into stretches of `BATCHES_SORTED` batches; each stretch is sorted by length and cut into
    batches, and its batches are shuffled: so batches need little padding. (Trainer's own ``group_by_length`` leaves the batches
    in the order of their lengths, so that the loss goes up and down with them.)

    Args:
        lengths: of the samples, in tokens.
        batch: samples per optimizer step.
        seed: of the order.
    """

    def __init__(self, lengths: Sequence[int], batch: int, seed: int) -> None:
        self.lengths, self.batch, self.seed, self.epoch = lengths, batch, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Take the order of this epoch, from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        draw = random.Random(f"{self.seed} {self.epoch}")
        order = list(range(len(self.lengths)))
        draw.shuffle(order)
        stretch = BATCHES_SORTED * self.batch
        for start in range(0, len(order), stretch):
            ordered = sorted(order[start : start + stretch], key=self.lengths.__getitem__)
            batches = [ordered[place : place + self.batch] for place in range(0, len(ordered), self.batch)]
            rest = batches.pop() if len(batches[-1]) < self.batch else []  # last, so that no other batch is split
            draw.shuffle(batches)
            for batch in (*batches, rest):
                yield from batch


class ConversationTrainer(Checkpointing, SFTTrainer):
    """SFT on columns ``input_ids`` and ``labels``."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        dataset: Any = self.train_dataset if train_dataset is None else train_dataset
        lengths = [len(ids) for ids in dataset["input_ids"]]
        batch = self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps
        return GroupedByLength(lengths, batch, self.args.seed)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """The held-out loss as a mean over all trained tokens; Trainer's own is a mean of batches, whatever their tokens."""
        model: Any = self.model
        model.eval()
        sums = torch.zeros(3, dtype=torch.float64)
        for batch in self.get_eval_dataloader():
            inputs = self._prepare_inputs(batch)
            with torch.no_grad(), self.compute_loss_context_manager():
                outputs = model(**inputs, use_cache=False, fused_lm_head=True)
            found = [-outputs.log_probs.double().sum(), outputs.label_mask.sum(), outputs.is_top1.sum()]
            sums += torch.stack([number.double().cpu() for number in found])
        loss, tokens, right = sums.tolist()
        metrics = {"eval_loss": loss / max(tokens, 1), "eval_mean_token_accuracy": right / max(tokens, 1)}
        self._metrics["eval"].clear()
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


class PreferenceTrainer(Checkpointing, DPOTrainer):
    """DPO on columns ``prompt_ids``, ``chosen_ids`` and ``rejected_ids``."""

    def _prepare_dataset(self, dataset: Any, *arguments: Any, **keywords: Any) -> Any:
        return dataset


class Recorder(TrainerCallback):
    """Hands what Trainer logs to the run's trackers, under the names that `gpt3 train` uses, and prints it.

    Args:
        trackers: metrics.jsonl and others.
        steps: of the whole run.
        seconds: of earlier sessions.
        interruption: once it holds a signal, the run saves and ends.

    Attributes:
        interrupted: whether the run ended so.
    """

    def __init__(self, trackers: Sequence[Tracker], steps: int, seconds: float, interruption: Interruption) -> None:
        self.trackers, self.steps, self.interruption = trackers, steps, interruption
        self.interrupted = False
        self.began = time.monotonic() - seconds
        self.tokens = 0

    def seconds(self) -> float:
        """Since training began."""
        return time.monotonic() - self.began

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **keywords: Any) -> None:
        """One record of a step or of an evaluation."""
        if "train_runtime" in logs:
            return
        self.tokens = int(logs.get("num_tokens", self.tokens))
        evaluation = any(name.startswith("eval_") for name in logs)
        prefix, ours = ("eval_", "val/") if evaluation else ("", "")
        numbers = {ours + NAMES[name]: logs[prefix + name] for name in NAMES if prefix + name in logs}
        if not numbers:
            return
        record = {"step": state.global_step, "tokens": self.tokens, "seconds": round(self.seconds(), 3), **numbers}
        for tracker in self.trackers:
            tracker.log(record)
        text = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        say(f"step {state.global_step:,} of {self.steps:,}: {text} ({self.seconds():.0f} s)")

    def on_step_end(self, args: Any, state: Any, control: Any, **keywords: Any) -> None:
        """After a signal: save the finished step, and end."""
        if self.interruption.number is not None and state.global_step < self.steps:
            self.interrupted = control.should_save = control.should_training_stop = True
            args.load_best_model_at_end = False

    def on_save(self, args: Any, state: Any, control: Any, **keywords: Any) -> None:
        """What was logged lasts as long as the checkpoint."""
        for tracker in self.trackers:
            tracker.flush()
