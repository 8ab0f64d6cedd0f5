"""PEFT adapters: merged, they compute what PEFT's own unmerged model does, on our models and on other families'."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_models import gpt2, gpt_neo, logits, opt, randomised
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from gpt3.cli import main as cli
from gpt3.errors import install_command
from gpt3.model import GPT3Config, GPT3ForCausalLM
from gpt3.model_folder.load import load_transformers as load
from gpt3.tokenizer.train import train_tokenizer

peft = pytest.importorskip("peft", reason="PEFT is not installed (the extra finetune)")
pytestmark = pytest.mark.filterwarnings("ignore")

TEXTS = ["The ships on the sea were small and the captain looked at the sea. " * 20]
IDS = 290
OUR_LAYERS = ["c_attn", "c_proj", "c_fc"]
CASES: dict[str, dict[str, Any]] = {
    "lora": {"target_modules": OUR_LAYERS},
    "dora": {"target_modules": OUR_LAYERS, "use_dora": True},
    "rank-stabilised, with biases": {"target_modules": ["c_attn"], "use_rslora": True, "bias": "lora_only"},
    "new tokens": {"target_modules": ["c_attn"], "trainable_token_indices": {"wte": [IDS, IDS + 1]}},
    "new tokens, embeddings not saved": {
        "target_modules": ["c_attn"],
        "trainable_token_indices": {"wte": [IDS, IDS + 1]},
    },
    "embeddings and a norm saved whole": {"target_modules": ["c_fc"], "modules_to_save": ["wte", "lm_head", "ln_f"]},
    "embeddings resized and saved": {"target_modules": ["c_fc"]},
    "adapted embeddings": {"target_modules": ["c_attn", "wte"]},
}
UNTIED = ("embeddings and a norm saved whole", "adapted embeddings")
"""Cases after which embedding and head differ."""


@pytest.fixture(scope="module")
def own() -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS, IDS)


@pytest.fixture(scope="module")
def bases(own: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a base of each family, with its tokenizer; ours has padding rows."""
    root = tmp_path_factory.mktemp("bases")
    end = own.eos_token_id
    ends = {"vocab_size": len(own), "bos_token_id": end, "eos_token_id": end}

    def ours() -> GPT3ForCausalLM:
        shape = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64}
        config = GPT3Config(
            **(ends | shape | {"sliding_window": 8, "vocab_size": len(own) + 5, "real_vocab_size": len(own)})
        )
        return randomised(GPT3ForCausalLM(config))

    makers = {
        "gpt3": ours,
        "gpt2": lambda: gpt2(**ends),
        "gpt2, scaled by layer": lambda: gpt2(**ends, scale_attn_by_inverse_layer_idx=True),
        "gpt_neo": lambda: gpt_neo(**ends),
        "opt": lambda: opt(**ends),
    }

    def folder(kind: str) -> Path:
        place = root / kind
        if not place.exists():
            makers[kind]().save_pretrained(place)
            own.save_pretrained(place)
        return place

    return folder


def randomise_adapter(adapted: Any) -> None:
    """So that nothing of it is zero or one."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, value in adapted.named_parameters():
            if value.requires_grad:
                noise = torch.randn(value.shape, generator=generator)
                value.copy_(value * (1 + 0.2 * noise) if "magnitude" in name else value + 0.15 * noise)


def adapter(
    base: Path, folder: Path, tokenizer: Any, rows: int | None = None, embeddings: bool = True, **settings: Any
) -> Any:
    """PEFT's own model of a random adapter on `base`, which it also saves, with the tokenizer, in `folder`; where embeddings were
    resized, with them, or without as `gpt3 finetune` does."""
    model = AutoModelForCausalLM.from_pretrained(base)
    if rows is not None:
        model.resize_token_embeddings(rows)
    if not embeddings:  # whoever loads it can know the new rows then: they began as the mean of the others
        with torch.no_grad():
            weight = model.get_input_embeddings().weight
            weight[IDS:] = weight[:IDS].mean(dim=0)
    adapted = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, **settings))
    randomise_adapter(adapted)
    adapted.save_pretrained(folder, save_embedding_layers="auto" if embeddings else False)
    tokenizer.save_pretrained(folder)
    return adapted.eval()


@pytest.mark.parametrize("case", CASES)
def test_merged_it_is_pefts_unmerged_model(case: str, bases, own, tmp_path: Path, capsys) -> None:
    tokenizer, rows = own, None
    if case.startswith("new tokens") or case == "embeddings resized and saved":
        tokenizer = train_tokenizer(TEXTS, IDS)
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|a|>", "<|b|>"]})
        rows = IDS + 2
    embeddings = case != "new tokens, embeddings not saved"
    adapted = adapter(bases("gpt3"), tmp_path / "a", tokenizer, rows, embeddings, **CASES[case])
    ids = torch.randint(rows or IDS, (2, 40), generator=torch.Generator().manual_seed(1))
    theirs = logits(adapted, ids)
    plain = logits(AutoModelForCausalLM.from_pretrained(bases("gpt3")), ids % IDS)
    assert (theirs[..., :IDS] - plain[..., :IDS]).abs().max() > 0.5  # the adapter matters
    model, loaded = load(tmp_path / "a", device="cpu")
    assert cli.main(["import", str(tmp_path / "a"), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.startswith(
        f"{'DoRA' if case == 'dora' else 'LoRA'} of rank 4 merged into gpt3: 2 layers"
    )
    saved, _ = load(tmp_path / "out", device="cpu")
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert model.config.tie_word_embeddings is tied is (case not in UNTIED)
    assert model.get_input_embeddings().weight.shape[0] == theirs.shape[-1]
    model.save_pretrained(tmp_path / "again")  # a head that is no longer tied is written
    for ours in (model, saved, GPT3ForCausalLM.from_pretrained(tmp_path / "again").eval()):
        assert type(ours) is GPT3ForCausalLM
        torch.testing.assert_close(logits(ours, ids)[..., : theirs.shape[-1]], theirs, atol=2e-5, rtol=1e-5)
    assert loaded.get_vocab() == tokenizer.get_vocab()


WHOLE_EMBEDDING = {"base_model.model.transformer.wte.weight": (300, 24)}


@pytest.mark.parametrize(
    ("tokens", "trained", "saved", "rows"),
    [
        (0, [], {}, None),  # nothing new: as it was, padding rows and all
        (2, [], {}, 292),  # the tokenizer has more, though none of it was trained
        (0, [290, 292], {}, 293),  # and the other way round
        (2, [290], WHOLE_EMBEDDING, 300),
        (0, [], {"base_model.model.transformer.wte.weight": (295, 24)}, None),
        (0, [], {"base_model.model.transformer.wte.lora_embedding_A": (4, 297)}, 297),
        (
            0,
            [],
            {"base_model.model.lm_head.lora_A.weight": (4, 24), "base_model.model.lm_head.lora_B.weight": (296, 4)},
            296,
        ),
        (2, [], {"base_model.model.transformer.h.0.mlp.c_fc.lora_B.weight": (96, 4)}, 292),
    ],
)
def test_the_base_gets_the_rows_it_was_trained_with(
    tokens: int, trained: list[int], saved: dict[str, tuple[int, int]], rows: int | None, bases, tmp_path: Path
) -> None:
    """290 ids and five rows of padding below; new rows are the mean of those of the base's ids."""
    from gpt3.model_folder.adapter import fit_vocabulary
    from gpt3.model_folder.convert import mapped

    model = GPT3ForCausalLM.from_pretrained(bases("gpt3"))
    before = model.get_input_embeddings().weight.detach().clone()
    tokenizer = train_tokenizer(TEXTS, IDS)
    tokenizer.add_tokens([f"<|{number}|>" for number in range(tokens)])
    save_file({name: torch.zeros(shape) for name, shape in saved.items()}, tmp_path / "adapter_model.safetensors")
    weights = mapped(tmp_path / "adapter_model.safetensors")
    fit_vocabulary(model, tokenizer, weights, {"trainable_token_indices": {"wte": trained} if trained else None})
    after = model.get_input_embeddings().weight
    if rows is None:
        assert torch.equal(after, before)
        assert model.config.real_vocab_size == IDS
        return
    assert after.shape[0] == model.get_output_embeddings().weight.shape[0] == model.config.vocab_size == rows
    assert model.config.real_vocab_size is None
    assert torch.equal(after[:IDS], before[:IDS])
    torch.testing.assert_close(after[IDS:], before[:IDS].mean(dim=0).expand(rows - IDS, -1))


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize(
    ("kind", "layers"),
    [
        ("gpt2", ["c_attn", "c_proj"]),
        ("gpt2, scaled by layer", ["c_attn", "c_fc"]),
        ("gpt_neo", ["q_proj", "v_proj", "c_fc"]),
        ("opt", ["q_proj", "k_proj", "fc1"]),
    ],
)
def test_on_another_familys_model(kind: str, layers: list[str], dora: bool, bases, own, tmp_path: Path) -> None:
    """The adapter was trained with transformers' own class, in its names and layout."""
    adapted = adapter(bases(kind), tmp_path / "a", own, target_modules=layers, use_dora=dora)
    ids = torch.randint(3, IDS, (2, 40), generator=torch.Generator().manual_seed(1))
    model, _ = load(tmp_path / "a", device="cpu")
    assert type(model) is GPT3ForCausalLM
    torch.testing.assert_close(logits(model, ids), logits(adapted, ids), atol=2e-5, rtol=1e-5)


def test_on_another_familys_model_that_was_read_as_ours(bases, own, tmp_path: Path) -> None:
    """As `gpt3 finetune --lora` trains on a GPT-Neo: our names on a base of theirs."""
    model, _ = load(bases("gpt_neo"), device="cpu")
    adapted = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["c_attn"]))
    randomise_adapter(adapted)
    adapted.peft_config["default"].base_model_name_or_path = str(bases("gpt_neo"))
    adapted.save_pretrained(tmp_path / "a", save_embedding_layers=False)
    ids = torch.randint(3, IDS, (2, 40), generator=torch.Generator().manual_seed(1))
    theirs = logits(adapted.eval(), ids)
    torch.testing.assert_close(logits(load(tmp_path / "a", device="cpu")[0], ids), theirs, atol=2e-5, rtol=1e-5)


@pytest.fixture
def placed(bases, own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """runs/tuned/adapter, whose base is given as runs/demo/model, and the working directory elsewhere."""
    shutil.copytree(bases("gpt3"), tmp_path / "runs/demo/model")
    monkeypatch.chdir(tmp_path)
    adapter(Path("runs/demo/model"), Path("runs/tuned/adapter"), own, target_modules=OUR_LAYERS)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "runs/tuned/adapter"


def test_the_commands_take_an_adapter(placed: Path, capsys) -> None:
    for words in (
        ["generate", "The sea", "--model", str(placed), "--max-new-tokens", "3"],
        ["score", "--text", "The sea", "--model", str(placed.parent)],  # a run folder without model/
        ["export", "--model", str(placed), "--format", "gpt2", "--context", "8", "--out", "stock"],
        ["export", "--model", str(placed), "--format", "gpt-neo", "--out", "neo"],
    ):
        assert cli.main(words) == 0, capsys.readouterr().err
    model, _ = load(placed, device="cpu")
    ids = torch.randint(IDS, (1, 50), generator=torch.Generator().manual_seed(1))
    stock = AutoModelForCausalLM.from_pretrained("neo")
    torch.testing.assert_close(logits(stock, ids), logits(model, ids)[..., :IDS], atol=2e-5, rtol=1e-5)


def test_another_base_is_another_model(placed: Path) -> None:
    """A file of samples made with an adapter is not gone on with once the base below it is another."""
    from gpt3.inference.many_prompts import model_fingerprint

    before = model_fingerprint(placed)
    weights = placed.parents[1] / "demo/model/model.safetensors"
    save_file({name: value * 2 for name, value in load_file(weights).items()}, weights, metadata={"format": "pt"})
    assert model_fingerprint(placed) != before


def test_a_gguf_of_an_adapter(placed: Path) -> None:
    pytest.importorskip("gguf")
    from gpt3.export.gguf import read_gguf

    assert cli.main(["export", "--model", str(placed), "--format", "gguf", "--out", "a.gguf"]) == 0
    model, _ = load(placed, device="cpu")
    ids = torch.arange(8)[None]
    assert float((logits(read_gguf("a.gguf"), ids) - logits(model, ids)[..., :IDS]).abs().max()) < 0.05  # GELU by tanh


def test_import_keeps_the_bases_number_format_and_says_what_it_was_made_from(bases, own, tmp_path: Path) -> None:
    base = tmp_path / "half"
    AutoModelForCausalLM.from_pretrained(bases("gpt3"), dtype=torch.bfloat16).save_pretrained(base)
    own.save_pretrained(base)
    adapter(base, tmp_path / "a", own, target_modules=OUR_LAYERS)
    assert cli.main(["import", str(tmp_path / "a"), "--out", str(tmp_path / "out")]) == 0
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.bfloat16}
    exact = load(tmp_path / "a", device="cpu", dtype="fp32")[0].state_dict()
    assert all(torch.equal(value, exact[name].bfloat16()) for name, value in weights.items())  # rounded once
    origin = json.loads((tmp_path / "out" / "origin.json").read_text(encoding="utf-8"))
    assert set(origin["sha256"]) == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "config.json",
        "model.safetensors",
    }


def test_info(placed: Path, capsys) -> None:
    assert cli.main(["info", str(placed), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    tensors = load_file(placed / "adapter_model.safetensors")
    assert found["family"] == "PEFT adapter, LoRA of rank 4"
    assert found["parameters"]["total"] == sum(value.numel() for value in tensors.values())
    assert found["base"] == "runs/demo/model"
    assert "problem" not in found
    assert cli.main(["info", str(placed)]) == 0
    assert "base: runs/demo/model" in capsys.readouterr().out
    shutil.rmtree(placed.parents[1] / "demo")
    assert cli.main(["info", str(placed)]) == 0
    assert "cannot run here: " in capsys.readouterr().out


def change(folder: Path, **values: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


def retensor(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "adapter_model.safetensors")


FIRST = "base_model.model.transformer.h.0.attn.c_attn.lora_A.weight"
FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no base": (lambda f: change(f, base_model_name_or_path="../gone"), "its base model ../gone is not here. Write the path"),
    "base unnamed": (lambda f: change(f, base_model_name_or_path=None), "names no base model"),
    "base is itself": (lambda f: change(f, base_model_name_or_path="."), "is an adapter itself. Merge that first"),
    "another kind": (lambda f: change(f, peft_type="IA3"), "only LoRA and DoRA adapters can be read"),
    "no JSON": (lambda f: (f / "adapter_config.json").write_text("{"), "cannot be read as JSON"),
    "no weights": (lambda f: (f / "adapter_model.safetensors").unlink(), "its weights are missing"),
    "a pickle": (
        lambda f: (f / "adapter_model.safetensors").rename(f / "adapter_model.bin"), "adapter_model.bin is a pickle",
    ),
    "half a file": (lambda f: (f / "adapter_model.safetensors").write_bytes(b"1234"), "is not a complete safetensors file"),
    "a tensor missing": (lambda f: retensor(f, lambda t: t.pop(FIRST)), f"1 missing ({FIRST})"),
    "a tensor too many": (lambda f: retensor(f, lambda t: t.update(more=torch.ones(1))), "1 extra (more)"),
    "misshapen": (lambda f: retensor(f, lambda t: t.update({FIRST: torch.ones(4, 5)})), f"1 misshapen ({FIRST})"),
    "other layers": (lambda f: change(f, target_modules=["nothing"]), "PEFT cannot apply it to its base model"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_is_one_line(fault: str, placed: Path, capsys) -> None:
    damage, message = FAULTS[fault]
    damage(placed)
    for words in (["generate", "x", "--model", str(placed)], ["import", str(placed), "--out", "out"]):
        assert cli.main(words) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"gpt3 {words[0]}: ")
        assert message in error
        assert error.count("\n") == 1
        assert not Path("out").exists()


def test_a_merge_that_changes_the_logits_is_not_handed_on(placed: Path, capsys, monkeypatch) -> None:
    from gpt3.model_folder import adapter as adapters

    monkeypatch.setattr(adapters, "merge", lambda adapted: adapted.unload())
    assert cli.main(["generate", "x", "--model", str(placed)]) == 1
    error = capsys.readouterr().err
    assert "merging changed a logit by" in error
    assert error.count("\n") == 1


def test_texts_end_where_the_adapter_says(placed: Path) -> None:
    """Fine-tuning gives an adapter the end of an answer, which its base does not know."""
    (placed / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 9]}), encoding="utf-8")
    assert load(placed, device="cpu")[0].generation_config.eos_token_id == [7, 9]


def test_without_peft(placed: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "peft", None)
    assert cli.main(["generate", "x", "--model", str(placed)]) == 2
    assert f"needs peft; install it with: {install_command('finetune')}" in capsys.readouterr().err
