"""A checkpoint: one folder from which a run goes on bit for bit.

checkpoints/step-N/ holds the model folder's files (so it can be generated from), ``optimizer.safetensors`` (Adam's moments by
parameter name), ``random.safetensors`` (torch's generators) and ``state.json`` (step, tokens). The position in the data is a
function of the step (see gpt3.corpus.sampler), so it needs no file. A folder is written under a temporary name, fsynced and
renamed: what is called step-N is whole.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerBase

from gpt3.durable import discard, replacing
from gpt3.errors import InputError
from gpt3.model import GPT3ForCausalLM

FORMAT = 1


def save_checkpoint(
    folder: Path,
    model: GPT3ForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    keep: int,
) -> Path:
    """Write ``folder/step-N`` for ``state["step"]`` = N, then remove all but the newest `keep`."""
    path = folder / f"step-{state['step']}"
    with replacing(path) as temporary:
        temporary.mkdir()
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        save_file(_optimizer_tensors(model, optimizer), temporary / "optimizer.safetensors")
        save_file(_random_tensors(), temporary / "random.safetensors")
        (temporary / "state.json").write_text(json.dumps({"format": FORMAT, **state}, indent=1), encoding="utf-8")
    for old in checkpoints(folder)[:-keep]:
        discard(old)
    return path


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, oldest first."""
    found = [path for path in folder.glob("step-*") if re.fullmatch(r"step-\d+", path.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def read_state(path: Path) -> dict[str, Any]:
    """A checkpoint's state.json.

    Raises:
        InputError: `path` is no checkpoint of this format.
    """
    try:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"--resume {path} is not a checkpoint ({error}); name a checkpoints/step-N folder") from None
    if state.get("format") != FORMAT:
        raise InputError(f"--resume {path} has format {state.get('format')}, this program reads {FORMAT}")
    return dict(state)


def load_checkpoint(path: Path, model: GPT3ForCausalLM, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Put a checkpoint's weights, moments and generators in place and return its state.

    Raises:
        InputError: it does not fit `model`.
    """
    state = read_state(path)
    weights = load_file(path / "model.safetensors")
    expected = {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    wrong = [name for name, t in expected.items() if name not in weights or weights[name].shape != t.shape]
    if wrong or set(weights) - set(model.state_dict()):
        raise InputError(f"checkpoint {path} does not fit this model: {', '.join(wrong[:3]) or 'extra tensors'} differ")
    model.load_state_dict(weights, strict=False)
    _load_optimizer(model, optimizer, load_file(path / "optimizer.safetensors"))
    _load_random(load_file(path / "random.safetensors"))
    return state


def _optimizer_tensors(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Adam's state as ``NAME.exp_avg`` and the like."""
    tensors = {}
    for name, weight in model.named_parameters():
        for key, value in optimizer.state.get(weight, {}).items():
            tensors[f"{name}.{key}"] = value.detach().cpu().contiguous()
    return tensors


def _load_optimizer(model: torch.nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    for name, weight in model.named_parameters():
        prefix = f"{name}."
        state = {key.removeprefix(prefix): t for key, t in tensors.items() if key.rpartition(".")[0] == name}
        optimizer.state[weight] = {
            key: value.to(weight.device) if key != "step" or weight.device.type == "cuda" else value.clone()
            for key, value in state.items()
        }


def _random_tensors() -> dict[str, torch.Tensor]:
    """torch's generators as uint8 tensors."""
    tensors = {"cpu": torch.get_rng_state()}
    for index in range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0):
        tensors[f"cuda.{index}"] = torch.cuda.get_rng_state(index)
    return tensors


def _load_random(tensors: dict[str, torch.Tensor]) -> None:
    torch.set_rng_state(tensors["cpu"])
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        if f"cuda.{index}" in tensors:
            torch.cuda.set_rng_state(tensors[f"cuda.{index}"], index)
