"""TRL's trainers, with what this project asks of them besides: our samples, losses over tokens, metrics in the run folder.

Imported only when training: it needs the packages of the extra ``finetune``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
import trl.trainer.utils
from transformers import TrainerCallback
from trl import DPOTrainer, SFTTrainer

from gpt3.finetuning.checkpoints import Checkpointing
from gpt3.finetuning.ordering import GroupedByLength
from gpt3.training.signals import Interruption
from gpt3.training.tracking import Tracker

NAMES = {
    "loss": "loss", "learning_rate": "lr", "grad_norm": "grad_norm", "mean_token_accuracy": "accuracy",
    "rewards/margins": "reward_margin", "rewards/accuracies": "reward_accuracy", "rewards/chosen": "reward_chosen",
    "rewards/rejected": "reward_rejected",
}  # fmt: skip
"""Trainer's names for what is logged, and ours; evaluation puts ``eval_`` before its own, we ``val/``."""


def head_for_labels_alone(fallback: Any) -> Any:
    """TRL's rule for which devices only the places with a label go through the head, with CPUs among them.

    TRL 1.16 has it so where Triton runs, and takes every place elsewhere, for compilers that want fixed shapes. A CPU has no such
    compiler, and most places of a conversation have no label: with GPT-2's vocabulary a step of a 17M model takes half the time.

    Args:
        fallback: TRL's own, for the other devices.
    """

    def rule(device: torch.device) -> bool:
        return device.type == "cpu" or bool(fallback(device))

    return rule


if hasattr(trl.trainer.utils, "_use_triton"):  # private: where a later TRL has it no more, it is merely slower
    trl.trainer.utils._use_triton = head_for_labels_alone(trl.trainer.utils._use_triton)


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
    """Hands what Trainer logs to the run's trackers, under the names that `gpt3 train` uses, and says it on stderr.

    Args:
        trackers: metrics.jsonl and others.
        say: takes lines for people.
        steps: of the whole run.
        seconds: of earlier sittings.
        interruption: after which the run saves and ends.

    Attributes:
        interrupted: whether it ended so.
    """

    def __init__(
        self, trackers: Sequence[Tracker], say: Any, steps: int, seconds: float, interruption: Interruption
    ) -> None:
        self.trackers, self.say, self.steps, self.interruption = trackers, say, steps, interruption
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
        self.say(f"step {state.global_step:,} of {self.steps:,}: {text} ({self.seconds():.0f} s)")

    def on_step_end(self, args: Any, state: Any, control: Any, **keywords: Any) -> None:
        """After a signal: save what this step came to, and end."""
        if self.interruption.number is not None and state.global_step < self.steps:
            self.interrupted = control.should_save = control.should_training_stop = True
            args.load_best_model_at_end = False

    def on_save(self, args: Any, state: Any, control: Any, **keywords: Any) -> None:
        """What was logged lasts as long as the checkpoint."""
        for tracker in self.trackers:
            tracker.flush()
