"""TRL's training step and our held-out loss on the device of tests/training/stub_accelerator.py, in a process of its own.

Trainer itself is set up on the CPU, as accelerate knows no such device, and is then given the device and a model there.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import datasets
import torch
from accelerate.state import PartialState
from torch._subclasses.fake_tensor import FakeTensorMode
from trl import SFTConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))

from stub_accelerator import audited, count_reads, register

from gpt3.finetuning.options import FinetuneOptions
from gpt3.finetuning.trainers import ConversationTrainer, with_adapter
from gpt3.finetuning.tuning import quiet
from gpt3.ladder.presets import preset
from gpt3.model import GPT3ForCausalLM
from gpt3.tokenizer.gpt2 import build, gpt2_merges, wrap

SHAPE = {
    "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "head_dim": 16, "sliding_window": 16, "vocab_size": 300,
}  # fmt: skip
SAMPLES = 6


def move(model: Any, device: torch.device) -> None:
    """Put empty parameters on the device in place of those of a model; tied ones stay tied."""
    made: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, old in module._parameters.items():
            if old is not None:
                if id(old) not in made:
                    empty = torch.empty(old.shape, dtype=old.dtype, device=device)
                    made[id(old)] = torch.nn.Parameter(empty, requires_grad=old.requires_grad)
                module._parameters[name] = made[id(old)]


def empty_like(batch: Any) -> dict[str, torch.Tensor]:
    """Tensors of these shapes, fake ones under FakeTensorMode."""
    return {name: torch.empty(tensor.shape, dtype=tensor.dtype) for name, tensor in batch.items()}


def tuned(lora: bool, device: torch.device, folder: str) -> Any:
    """A trainer with a small model, which computes on the device from now on, and its batches."""
    tokenizer = wrap(build(gpt2_merges()[:43]))
    tokenizer.pad_token = tokenizer.eos_token
    lengths = range(20, 20 + SAMPLES)
    columns = {"input_ids": [[5] * n for n in lengths], "labels": [[-100] * 8 + [5] * (n - 8) for n in lengths]}
    data = datasets.Dataset.from_dict(columns)
    model: Any = GPT3ForCausalLM(preset("demo").config(**SHAPE))
    if lora:
        model = with_adapter(model, FinetuneOptions(model="a", data=["b"], lora=True), [])
    args = SFTConfig(
        output_dir=folder, max_steps=2, per_device_train_batch_size=3, per_device_eval_batch_size=3, bf16=True,
        use_cpu=True, report_to="none", disable_tqdm=True, max_length=64,
    )  # fmt: skip
    trainer: Any = ConversationTrainer(
        model=model, args=args, train_dataset=data, eval_dataset=data, processing_class=tokenizer
    )
    batches = list(trainer.get_train_dataloader()), list(trainer.get_eval_dataloader())
    trainer.current_gradient_accumulation_steps = 1
    trainer.get_eval_dataloader = lambda *_: map(empty_like, batches[1])
    PartialState._shared_state["device"] = device
    trainer.args.__dict__["_setup_devices"] = device
    return trainer, batches[0][0]


def measure() -> dict[str, Any]:
    """What a step and an evaluation do there, of all weights and of adapters."""
    quiet()
    device, found = register(), dict[str, Any]()
    count_reads()
    for name in ("whole", "lora"):
        with tempfile.TemporaryDirectory() as folder:
            trainer, batch = tuned(name == "lora", device, folder)
            with FakeTensorMode(allow_non_fake_inputs=True):
                move(trainer.model, device)
                trainer.create_optimizer()

                def step(trainer: Any = trainer, batch: Any = batch) -> None:
                    trainer.training_step(trainer.model, empty_like(batch))
                    trainer.optimizer.step()
                    trainer.optimizer.zero_grad()

                step()  # makes the optimizer's state
                found[f"{name}: step"] = audited(step)
                found[f"{name}: held out"] = audited(trainer.evaluate)
    return found


def write(path: Path) -> None:
    """`measure` as JSON in a file."""
    path.write_text(json.dumps(measure()), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
