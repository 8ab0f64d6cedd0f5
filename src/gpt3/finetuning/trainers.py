"""TRL's trainers with this project's samples, losses over tokens, checkpoints and metrics; and PEFT's adapters.

Trainer's own checkpoints are pickles written in place. Ours are folders as `gpt3 train` writes them (gpt3.training.checkpoint),
complete or absent, of safetensors and JSON, and exact to the bit: the weights, ``optimizer.safetensors``,
``random.safetensors``, ``state.json``, Trainer's ``trainer_state.json``, and ``manifest.json`` with every file's size and sha256.

Imported only when training: it needs the packages of the extra ``finetune``.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import trl.trainer.utils
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch.utils.data import Sampler
from transformers import TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState
from trl import DPOTrainer, SFTTrainer

from gpt3.durable import discard, replacing, sha256_of
from gpt3.finetuning.options import FinetuneOptions
from gpt3.training import checkpoint as saved
from gpt3.training import random_state
from gpt3.training.panel import Panel
from gpt3.training.step_threads import StepThreads
from gpt3.training.tensor_files import entries_of
from gpt3.training.tracking import Tracker
from gpt3.work_folder import Interruption

NAMES = {
    "loss": "loss", "learning_rate": "lr", "grad_norm": "grad_norm", "mean_token_accuracy": "accuracy",
    "rewards/margins": "reward_margin", "rewards/accuracies": "reward_accuracy", "rewards/chosen": "reward_chosen",
    "rewards/rejected": "reward_rejected",
}  # fmt: skip
"""Trainer's names for what is logged, and ours; evaluation puts ``eval_`` before its own, we ``val/``."""
BATCHES_SORTED = 64
"""Samples are sorted by length within at most this many batches: which ones share a batch stays close to random."""
STRETCHES = 4
"""Parts of an epoch that are sorted, at least."""
LORA_LAYERS = {"gpt3": ["c_attn", "c_proj", "c_fc"], "gpt2": ["c_attn", "c_proj", "c_fc"]}
"""The layers' matrices, which get adapters; of other models all linear layers but the head."""


CHECKPOINT = "step-{}"
OPTIMIZER, RANDOM, ORDER = "optimizer", "random.safetensors", "order"
KEPT = 2
"""Newest checkpoints that are kept, with the best one."""


def with_adapter(model: Any, options: FinetuneOptions, new_ids: list[int]) -> Any:
    """The model with LoRA or DoRA adapters; of embedding and head only new tokens' rows are trained."""
    kind = model.config.model_type
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    names = {id(module): name.rpartition(".")[2] for name, module in model.named_modules()}
    rows: list[str] = [names[id(embedding)]]
    whole: list[str] = []
    if head.weight is not embedding.weight:
        # PEFT's rows of a head lose its bias: one that has any is trained whole
        (rows if getattr(head, "bias", None) is None else whole).append(names[id(head)])
    config = LoraConfig(
        task_type="CAUSAL_LM", r=options.lora_rank, lora_alpha=options.lora_alpha, lora_dropout=options.lora_dropout,
        use_dora=options.dora, target_modules=LORA_LAYERS.get(kind, "all-linear"), fan_in_fan_out=kind == "gpt2",
        trainable_token_indices=dict.fromkeys(rows, new_ids) if new_ids else None,
        modules_to_save=whole if new_ids and whole else None,
    )  # fmt: skip
    adapted = get_peft_model(model, config)
    head = model.get_output_embeddings()
    if not hasattr(head, "bias"):  # PEFT's wrapper around a head hides that it has none; TRL asks for it
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

    All samples are shuffled and cut into stretches of `BATCHES_SORTED` batches, or of a fourth of an epoch's where that is less;
    each stretch is sorted by length and cut into batches, which are shuffled: so batches need little padding, and are others in
    each epoch. (Trainer's own ``group_by_length`` leaves the batches in the order of their lengths, so that the loss goes up and
    down with them.)

    Args:
        lengths: of the samples, in tokens.
        batch: samples per optimizer step.
        seed: of the order.
        old: the order of runs that began before there was `ORDER`: longer stretches, and the longest samples last.
    """

    def __init__(self, lengths: Sequence[int], batch: int, seed: int, old: bool = False) -> None:
        self.lengths, self.batch, self.seed, self.old, self.epoch = lengths, batch, seed, old, 0

    def set_epoch(self, epoch: int) -> None:
        """Take the order of this epoch, from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        draw = random.Random(f"{self.seed} {self.epoch}")
        order = list(range(len(self.lengths)))
        draw.shuffle(order)
        whole = len(order) if self.old else len(order) // self.batch * self.batch
        most = BATCHES_SORTED if self.old else max(1, whole // self.batch // STRETCHES)
        stretch = min(BATCHES_SORTED, most) * self.batch
        for start in range(0, whole, stretch):
            ordered = sorted(order[start : min(start + stretch, whole)], key=self.lengths.__getitem__)
            batches = [ordered[place : place + self.batch] for place in range(0, len(ordered), self.batch)]
            rest = batches.pop() if len(batches[-1]) < self.batch else []
            draw.shuffle(batches)
            for batch in (*batches, rest):
                yield from batch
        yield from order[whole:]  # the rest last, so that no other batch is split


class Checkpointing:
    """A mix-in before a Trainer: how it saves and resumes, by methods of Trainer's own names. For one process.

    Attributes:
        old_order: whether its run began with the old order of samples.
    """

    old_order = False

    if TYPE_CHECKING:  # the rest of Trainer

        def __getattr__(self, name: str) -> Any: ...

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write ``step-N`` under a temporary name, make it durable, rename it; then remove old ones."""
        folder, step, best = Path(self.args.output_dir), self.state.global_step, self.state.best_global_step
        if best:
            self.state.best_model_checkpoint = str(folder / CHECKPOINT.format(best))
        for callback in (*self.callback_handler.callbacks, self.control):
            if isinstance(callback, ExportableState):
                self.state.stateful_callbacks[type(callback).__name__] = callback.state()
        with replacing(folder / CHECKPOINT.format(step)) as temporary:
            temporary.mkdir()
            self.model.save_pretrained(temporary)  # the model folder's files, or the adapter's
            self.processing_class.save_pretrained(temporary)
            tensors, numbers = saved.optimizer_state(self.model, self.optimizer)
            save_file(
                {name: tensor.contiguous() for name, tensor in tensors.items()}, temporary / f"{OPTIMIZER}.safetensors"
            )
            save_file(random_state.capture(), temporary / RANDOM)
            state = {"step": step, "tokens": self._total_train_tokens, "optimizer": numbers}
            state["scheduler"] = self.lr_scheduler.state_dict()
            state |= {} if self.old_order else {ORDER: 2}
            (temporary / saved.STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")
            self.state.save_to_json(str(temporary / TRAINER_STATE_NAME))
            files = {  # in folders too: DPO with LoRA keeps a second adapter, its reference
                path.relative_to(temporary).as_posix(): (path.stat().st_size, sha256_of(path))
                for path in temporary.rglob("*")
                if path.is_file()
            }
            (temporary / saved.MANIFEST).write_text(saved.manifest_text(files), encoding="utf-8")
        kept = saved.retained(
            map(saved.step_of, saved.checkpoints(folder)), step, keep=KEPT, keep_every=None, best=best
        )
        for path in saved.checkpoints(folder):
            if saved.step_of(path) not in kept:
                discard(path)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        state = json.loads((Path(checkpoint) / saved.STATE).read_text(encoding="utf-8"))
        entries = entries_of(Path(checkpoint), OPTIMIZER)
        saved.load_optimizer_state(self.model, self.optimizer, entries, state["optimizer"])
        self.lr_scheduler.load_state_dict(state["scheduler"])
        for group, rate in zip(self.optimizer.param_groups, self.lr_scheduler.get_last_lr(), strict=True):
            group["lr"] = rate  # the scheduler sets it at its next step, which comes after the optimizer's
        self._total_train_tokens = state["tokens"]

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            random_state.restore(load_file(Path(checkpoint) / RANDOM))


class ConversationTrainer(Checkpointing, SFTTrainer):
    """SFT on columns ``input_ids`` and ``labels``."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        dataset: Any = self.train_dataset if train_dataset is None else train_dataset
        lengths = [len(ids) for ids in dataset["input_ids"]]
        batch = self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps
        return GroupedByLength(lengths, batch, self.args.seed, self.old_order)

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
            counts = torch.stack([outputs.label_mask.sum(), outputs.is_top1.sum()])
            there = torch.cat([-outputs.log_probs.flatten().float(), counts])
            found = there.cpu().double()  # one wait for the device; MPS has no float64
            sums += torch.stack([found[:-2].sum(), *found[-2:]])
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
    """Hands what Trainer logs to the run's trackers and its panel, under the names that `gpt3 train` uses.

    Args:
        trackers: metrics.jsonl and others.
        panel: knows the steps of the whole run.
        seconds: of earlier sessions.
        interruption: once it holds a signal, the run saves and ends.
        threads: sets the number of threads of each step.

    Attributes:
        interrupted: whether the run ended so.
    """

    def __init__(
        self,
        trackers: Sequence[Tracker],
        panel: Panel,
        seconds: float,
        interruption: Interruption,
        threads: StepThreads,
    ) -> None:
        self.trackers, self.panel, self.interruption, self.threads = trackers, panel, interruption, threads
        self.interrupted = False
        self._step_began = time.monotonic()
        self.began = self._step_began - seconds
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
        self.panel.log(record)

    def on_step_begin(self, args: Any, state: Any, control: Any, **keywords: Any) -> None:
        """Set the threads of a step."""
        self.threads.before(state.global_step + 1)
        self._step_began = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **keywords: Any) -> None:
        """Show the step; after a signal, save it, and end."""
        self.threads.after(state.global_step, time.monotonic() - self._step_began, 0)  # steps are of unequal size
        self.panel.step = state.global_step
        self.panel.refresh()
        if self.interruption.asked() and state.global_step < self.panel.total:
            self.interrupted = control.should_save = control.should_training_stop = True
            args.load_best_model_at_end = False

    def on_save(self, args: Any, state: Any, control: Any, **keywords: Any) -> None:
        """What was logged lasts as long as the checkpoint."""
        for tracker in self.trackers:
            tracker.flush()
