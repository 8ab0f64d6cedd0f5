"""A device must compute what the CPU does; the CPU stands for one, right or with a planted fault."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt3.errors import InputError
from gpt3.inference import device_check
from gpt3.inference.device_check import CACHE, LIMITS, check_device, examine

CPU = torch.device("cpu")


class Accelerator:
    """The CPU under another name."""

    type = "mps"


@pytest.fixture
def accelerator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("GPT3_CACHE", str(tmp_path))
    monkeypatch.setattr(device_check, "name_of", lambda device: "A GPU, driver 1, torch 2")
    moved = device_check.moved
    monkeypatch.setattr(device_check, "moved", lambda model, device: moved(model, CPU))
    return Accelerator()


def test_what_computes_rightly_passes_and_is_remembered(accelerator: Any, tmp_path: Path, monkeypatch) -> None:
    check_device(accelerator)
    known = json.loads((tmp_path / CACHE).read_text())["A GPU, driver 1, torch 2"]
    assert len(known) == 5
    assert max(known.values()) < 1e-4
    monkeypatch.setattr(device_check, "examine", lambda device: pytest.fail("checked twice"))
    check_device(accelerator)
    monkeypatch.setattr(device_check, "name_of", lambda device: "A GPU, driver 2, torch 2")
    with pytest.raises(pytest.fail.Exception):
        check_device(accelerator)
    check_device(accelerator, trust=True)
    check_device(CPU)


def test_rounding_in_16_bit_is_no_fault() -> None:
    found = examine(CPU, [torch.bfloat16, torch.float16])
    assert found.faults == []
    for name, difference in found.differences.items():
        assert 1e-5 < difference < LIMITS[torch.bfloat16 if "bfloat16" in name else torch.float16] / 2, name


def _attention_without_a_key(original: Any) -> Any:
    def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: Any) -> torch.Tensor:
        key = torch.cat([key[..., 1:, :], key[..., :1, :]], dim=-2) if key.shape[-2] > 16 else key
        return original(query, key, value, **options)

    return attention


@pytest.mark.parametrize("fault", ["attention", "gradient", "head"])
def test_a_planted_fault_stops_the_run_with_its_figures(
    fault: str, accelerator: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = device_check.moved

    def faulty(model: Any, device: Any) -> Any:
        there = moved(model, device)
        if fault == "attention":
            function = torch.nn.functional.scaled_dot_product_attention
            monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", _attention_without_a_key(function))
        elif fault == "gradient":
            there.transformer.h[1].mlp.c_fc.weight.register_hook(lambda gradient: 1.2 * gradient)
        else:
            there.transformer.ln_f.register_forward_hook(lambda module, inputs, output: output * 1.05)
        return there

    monkeypatch.setattr(device_check, "moved", faulty)
    with pytest.raises(InputError, match=r"^A GPU, driver 1, torch 2 does not compute what the CPU does: ") as error:
        check_device(accelerator)
    named = {"attention": "gradients of attention", "gradient": "other gradients", "head": "logits of next tokens"}[
        fault
    ]
    assert f"{named} in float32 differ by " in str(error.value)
    assert str(error.value).endswith("or continue all the same with --trust-device")
    assert not (tmp_path / CACHE).exists()  # made again next time
    check_device(accelerator, trust=True)
