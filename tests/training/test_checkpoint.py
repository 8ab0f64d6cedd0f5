"""A checkpoint holds all of a run, to the bit; one that is damaged is named and skipped."""

import hashlib
import json
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_case import average_of, make_model, make_optimizer, make_tokenizer, train_step
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from gpt3.errors import InputError
from gpt3.model_folder.load import load_transformers
from gpt3.training import random_state
from gpt3.training.checkpoint import (
    checkpoints,
    damage,
    load_checkpoint,
    named_tensors,
    newest_whole,
    optimizer_state,
    read_state,
)
from gpt3.training.checkpoint_writer import CheckpointWriter
from gpt3.training.tensor_files import plan_files, write_tensors

ALL_ROWS = slice(None)


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of steps 1 and 2."""
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    model = make_model()
    optimizer, average = make_optimizer(model, fused=True), average_of(model)
    with CheckpointWriter(folder, model, make_tokenizer()) as writer:
        for step in (1, 2):
            train_step(model, model, optimizer, average, step, ALL_ROWS)
            writer.save(optimizer, {"step": step, "window": [0.1, step]}, extra={"ema": average})
    return folder


@pytest.fixture
def folder(two_steps: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(two_steps, tmp_path / "checkpoints"))


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in one)


class Counting(torch.optim.Optimizer):
    """Gradient descent at a rate that falls with a step count kept as a plain number, as torch's SparseAdam keeps it."""

    def __init__(self, groups: list[dict], lr: float) -> None:
        super().__init__(groups, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                state = self.state[weight]
                state["count"] = state.get("count", 0) + 1
                weight.sub_(weight.grad, alpha=group["lr"] / state["count"])


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (torch.optim.AdamW, {"fused": True}), (torch.optim.AdamW, {"foreach": True}),
        (torch.optim.SGD, {"momentum": 0.9}), (torch.optim.NAdam, {}), (torch.optim.Adagrad, {}),
        (Counting, {}),
    ],
)  # fmt: skip
def test_a_resumed_run_takes_the_same_steps(kind: type, options: dict, tmp_path: Path) -> None:
    """Weights, optimizer, average and generators are bit-equal after further steps, whatever the optimizer."""
    model = make_model(attn_pdrop=0.1, resid_pdrop=0.1)  # dropout draws from the generator
    optimizer, average = make_optimizer(model, kind, **options), average_of(model)
    model.train()
    other = make_model(seed=1, attn_pdrop=0.1, resid_pdrop=0.1).train()
    other_optimizer, other_average = make_optimizer(other, kind, **options), average_of(other)
    train_step(model, model, optimizer, average, 0, ALL_ROWS)
    with CheckpointWriter(tmp_path, model, make_tokenizer()) as writer:
        path = writer.save(optimizer, {"step": 1}, extra={"ema": average})
    train_step(model, model, optimizer, average, 1, ALL_ROWS)
    assert load_checkpoint(path, other, other_optimizer, extra={"ema": other_average})["step"] == 1
    train_step(other, other, other_optimizer, other_average, 1, ALL_ROWS)
    assert_equal(named_tensors(model), named_tensors(other))
    assert_equal(average, other_average)
    tensors, numbers = optimizer_state(model, optimizer)
    other_tensors, other_numbers = optimizer_state(other, other_optimizer)
    assert_equal(tensors, other_tensors)
    assert numbers == other_numbers
    assert len(tensors) + len(numbers) >= len(named_tensors(model))


def test_one_can_generate_from_a_checkpoint(folder: Path) -> None:
    model, tokenizer = load_transformers(folder / "step-2", device="cpu", dtype="fp32")
    assert model.generate(torch.tensor([tokenizer("w1 w2").input_ids]), max_new_tokens=3).shape[1] > 2
    names = {path.name for path in (folder / "step-2").iterdir()}
    assert {"config.json", "generation_config.json", "tokenizer.json", "modeling_gpt3.py"} <= names
    assert json.loads((folder / "step-2" / "config.json").read_text())["architectures"] == ["GPT3ForCausalLM"]
    assert read_state(folder / "step-2")["window"] == [0.1, 2]


def test_the_model_folder_is_transformers_own(tmp_path: Path) -> None:
    """Every file save_pretrained writes, with the same bytes."""
    model, tokenizer = make_model(), make_tokenizer()
    with CheckpointWriter(tmp_path / "ours", model, tokenizer) as writer:
        path = writer.save(make_optimizer(model), {"step": 3})
    model.save_pretrained(tmp_path / "theirs")
    tokenizer.save_pretrained(tmp_path / "theirs")
    theirs = sorted(p for p in (tmp_path / "theirs").iterdir() if p.is_file())
    assert len(theirs) >= 5
    for file in theirs:
        assert (path / file.name).read_bytes() == file.read_bytes(), file.name


def test_the_files_are_safetensors_own(tmp_path: Path) -> None:
    """Byte for byte what safetensors writes, whatever the formats and shapes; and the size and sum of what was written."""
    dtypes = (torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool, torch.float16)
    tensors = {f"b.{d}": (torch.randn(5, 4) * 9).to(d) for d in dtypes} | {
        f"a.{d}": torch.ones((), dtype=d) for d in dtypes
    }
    tensors |= {"é": torch.randn(3, 2, 4), "empty": torch.zeros(0, 3), "turned": torch.randn(4, 6).T}
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    size, digest = write_tensors(tmp_path / "ours.safetensors", tensors)
    content = (tmp_path / "theirs.safetensors").read_bytes()
    assert (tmp_path / "ours.safetensors").read_bytes() == content
    assert (size, digest) == (len(content), hashlib.sha256(content).hexdigest())


sizes = st.dictionaries(st.sampled_from("abcdefghij"), st.integers(1, 50), max_size=10)


@given(st.dictionaries(st.sampled_from(["model", "optimizer", "ema"]), sizes, min_size=1), st.integers(1, 5))
def test_each_tensor_has_one_file_and_each_file_one_rank(sets: dict[str, dict[str, int]], ranks: int) -> None:
    limit = 60
    plan = plan_files(sets, ranks, limit)
    loads = [0] * ranks
    for stem, files in plan.items():
        assert sorted(name for file in files for name in file.tensors) == sorted(sets[stem])
        assert len({file.name for file in files}) == len(files)
        for file in files:
            size = sum(sets[stem][name] for name in file.tensors)
            assert size <= limit
            loads[file.rank] += size
    assert max(loads) - min(loads) <= max((size for each in sets.values() for size in each.values()), default=0)


def test_a_large_set_is_split_as_transformers_does(tmp_path: Path) -> None:
    model = make_model()
    optimizer, average = make_optimizer(model), average_of(model)
    train_step(model, model, optimizer, average, 0, ALL_ROWS)
    with CheckpointWriter(tmp_path, model, make_tokenizer(), shard_bytes=20_000) as writer:
        path = writer.save(optimizer, {"step": 1}, extra={"ema": average})
    assert len(list(path.glob("model-0000?-of-0000?.safetensors"))) > 2
    assert max(p.stat().st_size for p in path.glob("*-of-*.safetensors")) < 23_000  # values, and their header
    assert damage(path) is None
    loaded, _ = load_transformers(path, device="cpu", dtype="fp32")
    assert_equal(named_tensors(loaded), named_tensors(model))
    other = make_model(seed=1)
    load_checkpoint(path, other, make_optimizer(other), extra={"ema": average_of(other)})
    assert_equal(named_tensors(other), named_tensors(model))


def test_every_generator_goes_on_where_it_was() -> None:
    def draw() -> tuple:
        return (
            random.gauss(0, 1),
            random.random(),
            np.random.randn(),
            np.random.rand(3).tolist(),
            torch.rand(3).tolist(),
        )

    draw()  # a Gaussian draw leaves its twin behind
    state = random_state.capture()
    first = draw()
    draw()
    random_state.restore(state)
    assert draw() == first
    random_state.derive(state, 1)
    one = draw()
    random_state.derive(state, 2)
    assert draw() != one
    random_state.derive(state, 1)
    assert draw() == one


def test_any_flipped_byte_is_found_and_passed_over(folder: Path) -> None:
    path = folder / "step-2"
    for file in sorted(path.iterdir()):
        content = file.read_bytes()
        for at in {0, len(content) // 3, len(content) // 2, len(content) - 1}:
            file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
            whole, passed_over = newest_whole(folder)
            assert whole == folder / "step-1", (file.name, at)
            [(damaged, reason)] = passed_over
            assert damaged == path
            if file.name != "manifest.json":
                assert file.name in reason
                assert "sha256" in reason
        file.write_bytes(content)
    assert newest_whole(folder) == (path, [])


def test_a_truncated_or_missing_file_is_found_and_passed_over(folder: Path) -> None:
    path = folder / "step-2"
    for file in sorted(path.iterdir()):
        content = file.read_bytes()
        file.write_bytes(content[:-1])
        whole, [(_, reason)] = newest_whole(folder)
        assert whole == folder / "step-1"
        assert file.name in reason
        file.unlink()
        whole, [(_, reason)] = newest_whole(folder)
        assert whole == folder / "step-1"
        assert reason == f"{file.name} is missing"
        file.write_bytes(content)
    shutil.rmtree(folder / "step-1")
    (path / "manifest.json").unlink()
    assert newest_whole(folder) == (None, [(path, "manifest.json is missing")])
    assert newest_whole(folder / "no such folder") == (None, [])


@pytest.mark.parametrize("text", ['{"format": 9, "files": {}}', '{"format": 9, "parts": []}'])
def test_another_format_is_refused_and_not_skipped(folder: Path, text: str) -> None:
    """It may be whole: a run that skipped it would lose its steps."""
    (folder / "step-2" / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=r"step-2 has format 9, this program reads 2\. Resume it with the version"):
        newest_whole(folder)
    (folder / "step-2" / "state.json").write_text('{"format": 1, "step": 2}')
    with pytest.raises(InputError, match=r"step-2 has format 1, this program reads 2"):
        read_state(folder / "step-2")


def test_all_that_does_not_fit_is_told_at_once_and_nothing_changes(folder: Path) -> None:
    other = make_model(vocab_size=40, num_hidden_layers=1)
    before = {name: tensor.clone() for name, tensor in named_tensors(other).items()}
    with pytest.raises(InputError) as caught:
        load_checkpoint(folder / "step-2", other, make_optimizer(other))
    message = str(caught.value)
    assert "\n" not in message
    assert "model transformer.wte.weight is 33 × 24 float32 in the checkpoint and 40 × 24 float32 here" in message
    assert "model transformer.h.1.ln_1.weight is in the checkpoint only" in message
    assert re.search(r"and \d+ more$", message)
    assert_equal(before, named_tensors(other))
    model = make_model()
    with pytest.raises(InputError, match="its optimizer is AdamW, here it is SGD"):
        load_checkpoint(folder / "step-2", model, make_optimizer(model, torch.optim.SGD))
    with pytest.raises(InputError, match=r"wte.weight is 33 × 24 float32 in the checkpoint and 33 × 24 bfloat16 here"):
        load_checkpoint(folder / "step-2", make_model().bfloat16())
    with pytest.raises(InputError, match=r"slow transformer.wte.weight is not in the checkpoint"):
        load_checkpoint(folder / "step-2", model, extra={"slow": average_of(model)})


def test_the_checkpoint_is_plain_safetensors_by_parameter_name(folder: Path) -> None:
    names = set(named_tensors(make_model()))
    assert set(load_file(folder / "step-2" / "model.safetensors")) == names
    assert set(load_file(folder / "step-2" / "ema.safetensors")) == names
    keys = {f"{name}.{key}" for name in names for key in ("step", "exp_avg", "exp_avg_sq")}
    assert set(load_file(folder / "step-2" / "optimizer.safetensors")) == keys
    assert [path.name for path in checkpoints(folder)] == ["step-1", "step-2"]
