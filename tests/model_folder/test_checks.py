"""What is not a whole model of a family that is read is refused in one line: all faults at once, the reason, the remedy."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_models import gpt2, gpt_neo, logits, opt, random_ids, saved
from safetensors.torch import load_file, save_file

from gpt3.errors import InputError
from gpt3.model_folder.load import open_checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return saved(gpt2(), tmp_path / "model")


def refusal(folder: Path | str, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        open_checkpoint(folder, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder) in message
    return message


def edit(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def edit_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


def test_all_faults_are_told_together(folder: Path) -> None:
    def change(weights: dict[str, torch.Tensor]) -> None:
        for layer in range(3):
            del weights[f"transformer.h.{layer}.mlp.c_fc.weight"]
        del weights["transformer.ln_f.bias"]
        weights["classifier.weight"] = torch.zeros(2, 24)
        weights["transformer.h.0.attn.c_attn.weight"] = torch.zeros(72, 24)  # a linear layer's, not a Conv1D's
        weights["transformer.h.1.attn.c_attn.bias"] = torch.zeros(72, dtype=torch.int64)

    edit(folder, change)
    message = refusal(folder)
    assert "7 of its tensors are not what config.json asks for" in message
    assert "4 missing (h.0.mlp.c_fc.weight, h.1.mlp.c_fc.weight, h.2.mlp.c_fc.weight, …)" in message
    assert "1 extra (classifier.weight)" in message
    assert "1 misshapen (transformer.h.0.attn.c_attn.weight is 72 x 24, not 24 x 72)" in message
    assert "1 not floats (transformer.h.1.attn.c_attn.bias is I64)" in message


def test_a_configuration_of_another_depth_or_width_is_refused(folder: Path) -> None:
    edit_config(folder, n_layer=2)
    assert "12 extra (transformer.h.2." in refusal(folder)
    edit_config(folder, n_layer=3, n_inner=50)
    assert "9 misshapen" in refusal(folder)
    edit_config(folder, n_inner=None, n_head=5)
    assert "makes no gpt2 model" in refusal(folder)
    edit_config(folder, n_head="three")
    assert "makes no gpt2 model" in refusal(folder)


def test_the_prefix_may_be_there_or_not_but_not_both(folder: Path) -> None:
    ids, expected = random_ids(20), logits(gpt2(), random_ids(20))
    torch.testing.assert_close(logits(open_checkpoint(folder).model(), ids), expected)

    def bare(weights: dict[str, torch.Tensor]) -> None:  # as on the hub: no prefix, mask buffers saved along
        for name in list(weights):
            weights[name.removeprefix("transformer.")] = weights.pop(name)
        for layer in range(3):
            weights[f"h.{layer}.attn.bias"] = torch.ones(1, 1, 64, 64).tril()
            weights[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)

    edit(folder, bare)
    torch.testing.assert_close(logits(open_checkpoint(folder).model(), ids), expected)
    edit(folder, lambda weights: weights.update({"transformer.wpe.weight": weights["wpe.weight"] + 1}))
    assert "1 misplaced" in refusal(folder)


def test_opt_with_its_older_names(tmp_path: Path) -> None:
    model, ids = opt(), random_ids(20)
    folder = saved(model, tmp_path)

    def bare(weights: dict[str, torch.Tensor]) -> None:
        for name in list(weights):
            weights[name.removeprefix("model.")] = weights.pop(name)
        weights["decoder.version"] = torch.tensor([3.0])

    edit(folder, bare)
    torch.testing.assert_close(logits(open_checkpoint(folder).model(), ids), logits(model, ids))


def test_gpt_neo_with_the_masks_of_old_files(tmp_path: Path) -> None:
    folder = saved(gpt_neo(), tmp_path)

    def add(weights: dict[str, torch.Tensor]) -> None:
        weights["transformer.h.1.attn.attention.bias"] = torch.ones(1, 1, 64, 64, dtype=torch.uint8)
        weights["transformer.h.1.attn.attention.masked_bias"] = torch.tensor(-1e9)

    edit(folder, add)
    open_checkpoint(folder)


def test_a_head_of_its_own_is_kept_whatever_the_configuration_says(folder: Path) -> None:
    edit(folder, lambda weights: weights.update({"lm_head.weight": weights["transformer.wte.weight"].clone()}))
    assert open_checkpoint(folder).config.tie_word_embeddings
    edit(folder, lambda weights: weights.update({"lm_head.weight": weights["lm_head.weight"] + 1}))
    checkpoint = open_checkpoint(folder)
    assert not checkpoint.config.tie_word_embeddings
    assert any("untied" in note for note in checkpoint.notes)
    from transformers import GPT2LMHeadModel

    ids = random_ids(20)
    theirs = GPT2LMHeadModel.from_pretrained(folder).eval()
    torch.testing.assert_close(logits(checkpoint.model(), ids), logits(theirs, ids))
    edit(folder, lambda weights: weights.pop("lm_head.weight"))
    edit_config(folder, tie_word_embeddings=False)
    assert "1 missing (lm_head.weight)" in refusal(folder)
    assert "is not what config.json asks for" in refusal(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama"}, "model_type 'llama'; known families: gpt2, gpt_neo, opt"),
        ({"model_type": "gpt3"}, "is a gpt3 model already"),
        ({"model_type": None}, "model_type None"),
        ({"add_cross_attention": True}, "cross-attention"),
        (
            {"mup_width_scale": 0.5, "mup_output_alpha": 2.0},
            r"maximal-update scales (mup_output_alpha, mup_width_scale)",
        ),
        ({"position_embedding_type": "alibi"}, "'alibi'"),
        ({"quantization_config": {"bits": 4}}, "quantised"),
        ({"activation_function": "no_such"}, "no_such"),
    ],
)
def test_models_that_ours_cannot_be(folder: Path, changes: dict[str, Any], message: str) -> None:
    edit_config(folder, **changes)
    assert message in refusal(folder)


def test_opt_350m_is_refused_with_its_reasons(tmp_path: Path) -> None:
    folder = saved(opt(word_embed_proj_dim=16, do_layer_norm_before=False), tmp_path)
    message = refusal(folder)
    assert "its embedding is 16 wide and projected to 24 (word_embed_proj_dim)" in message
    assert "it is post-LN without a last layer norm (do_layer_norm_before false)" in message
    assert "OPT-350M" in message
    folder = saved(opt(_remove_final_layer_norm=True), tmp_path / "older")
    assert "it has no last layer norm" in refusal(folder)


def test_shards_are_read_and_must_be_whole(tmp_path: Path) -> None:
    model, ids = gpt2(), random_ids(20)
    folder = saved(model, tmp_path / "model", max_shard_size="30KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 2
    torch.testing.assert_close(logits(open_checkpoint(folder).model(), ids), logits(model, ids))
    content = shards[1].read_bytes()
    shards[1].write_bytes(content[:-8])
    assert f"{shards[1].name} is not a complete safetensors file" in refusal_of(folder, shards[1])
    save_file({}, shards[1], metadata={"format": "pt"})
    assert "missing (" in refusal(folder)
    shards[1].unlink()
    assert f"1 of {len(shards)} weight files are missing ({shards[1].name})" in refusal(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))
    assert "names no weight files" in refusal(folder)


def refusal_of(folder: Path, file: Path) -> str:
    with pytest.raises(InputError) as caught:
        open_checkpoint(folder)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class Malicious:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("this must not run",)


@pytest.mark.parametrize("legacy", [False, True])
def test_pickles_are_read_only_where_allowed_and_never_run(folder: Path, legacy: bool, capsys: Any) -> None:
    ids, expected = random_ids(20), logits(gpt2(), random_ids(20))
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    path = folder / "pytorch_model.bin"
    torch.save(weights, path, _use_new_zipfile_serialization=not legacy)
    message = refusal(folder)
    assert "pytorch_model.bin is a pickle" in message
    assert "--allow-pickle" in message
    torch.testing.assert_close(logits(open_checkpoint(folder, allow_pickle=True).model(), ids), expected)
    if legacy:
        path.write_bytes(pickle.dumps(Malicious(), protocol=2))
    else:
        torch.save({"transformer.wte.weight": Malicious()}, path)
    assert "cannot be read as tensors only" in refusal(folder, allow_pickle=True)
    assert "this must not run" not in capsys.readouterr().out
    torch.save({"model": {"a": torch.zeros(1)}}, path)
    assert "does not hold tensors by name" in refusal(folder, allow_pickle=True)


def test_sharded_pickles(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = list(weights)
    placed = {name: f"pytorch_model-{1 + (i % 2):05}-of-00002.bin" for i, name in enumerate(names)}
    for file in set(placed.values()):
        torch.save({name: weights[name] for name in names if placed[name] == file}, folder / file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": placed}), encoding="utf-8")
    ids = random_ids(20)
    model = open_checkpoint(folder, allow_pickle=True).model()
    torch.testing.assert_close(logits(model, ids), logits(gpt2(), ids))


@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_damaged_safetensors(folder: Path, damage: str) -> None:
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "text": b"version https://git-lfs"}[damage])
    assert "is not a complete safetensors file" in refusal(folder)


def test_what_is_no_model_folder(tmp_path: Path, folder: Path) -> None:
    assert "no such folder" in refusal(tmp_path / "nowhere")
    assert "is a file" in refusal(folder / "config.json")
    (tmp_path / "notes").mkdir()
    assert "it is empty" in refusal(tmp_path / "notes")
    (tmp_path / "notes" / "todo.txt").touch()
    assert "it is no model (it holds todo.txt)" in refusal(tmp_path / "notes")
    (folder / "config.json").write_text("[]", encoding="utf-8")
    with pytest.raises(InputError, match="not a JSON object"):
        open_checkpoint(folder)
