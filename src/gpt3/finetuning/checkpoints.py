"""Checkpoints of TRL's trainers in this project's form: complete or absent, of safetensors and JSON, and exact to the bit.

Trainer's own are pickles written in place. Ours are folders as `gpt3 train` writes them (gpt3.training.checkpoint): the
weights, ``optimizer.safetensors``, ``random.safetensors``, ``state.json``, Trainer's ``trainer_state.json``, and
``manifest.json`` with every file's size and sha256.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save_file
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState

from gpt3.durable import discard, replacing, sha256_of
from gpt3.training import random_state
from gpt3.training.checkpoint import (
    MANIFEST,
    STATE,
    checkpoints,
    load_optimizer_state,
    manifest_text,
    optimizer_state,
    retained,
    step_of,
)
from gpt3.training.tensor_files import entries_of

CHECKPOINT = "step-{}"
OPTIMIZER, RANDOM = "optimizer", "random.safetensors"
KEPT = 2
"""Newest checkpoints that are kept, with the best one."""


class Checkpointing:
    """A mix-in before a Trainer: how it saves and resumes, by methods of Trainer's own names. For one process."""

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
            tensors, numbers = optimizer_state(self.model, self.optimizer)
            save_file(
                {name: tensor.contiguous() for name, tensor in tensors.items()}, temporary / f"{OPTIMIZER}.safetensors"
            )
            save_file(random_state.capture(), temporary / RANDOM)
            state = {"step": step, "tokens": self._total_train_tokens, "optimizer": numbers}
            state["scheduler"] = self.lr_scheduler.state_dict()
            (temporary / STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")
            self.state.save_to_json(str(temporary / TRAINER_STATE_NAME))
            files = {  # in folders too: DPO with LoRA keeps a second adapter, its reference
                path.relative_to(temporary).as_posix(): (path.stat().st_size, sha256_of(path))
                for path in temporary.rglob("*")
                if path.is_file()
            }
            (temporary / MANIFEST).write_text(manifest_text(files), encoding="utf-8")
        kept = retained(map(step_of, checkpoints(folder)), step, keep=KEPT, keep_every=None, best=best)
        for path in checkpoints(folder):
            if step_of(path) not in kept:
                discard(path)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        state = json.loads((Path(checkpoint) / STATE).read_text(encoding="utf-8"))
        entries = entries_of(Path(checkpoint), OPTIMIZER)
        load_optimizer_state(self.model, self.optimizer, entries, state["optimizer"])
        self.lr_scheduler.load_state_dict(state["scheduler"])
        for group, rate in zip(self.optimizer.param_groups, self.lr_scheduler.get_last_lr(), strict=True):
            group["lr"] = rate  # the scheduler sets it at its next step, which comes after the optimizer's
        self._total_train_tokens = state["tokens"]

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            random_state.restore(load_file(Path(checkpoint) / RANDOM))
