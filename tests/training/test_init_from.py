"""Training from other weights: transformers' own losses, step for step; what comes with the weights; what is refused."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from kill_server import Server
from safetensors.torch import load_file, save_file
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from gpt3.cli import main as cli
from gpt3.cli.train import run
from gpt3.corpus.prepare import prepare_cached
from gpt3.errors import InputError
from gpt3.ladder.presets import PRESETS
from gpt3.model_folder.load import load_transformers
from gpt3.report.run_folder import read_metrics
from gpt3.tokenizer.loading import tokenizer_hash
from gpt3.tokenizer.train import train_tokenizer
from gpt3.training import continuing
from gpt3.training.checkpoint import checkpoints
from gpt3.training.data import open_data
from gpt3.training.distributed import ALONE, Compute
from gpt3.training.init_from import open_initial
from gpt3.training.model_building import build_model
from gpt3.training.options import TrainOptions
from gpt3.training.plan import make_plan
from gpt3.training.run import train

SMALL = {"layers": None, "width": None, "heads": None, "window": None, "tokenizer": None}
"""Leaves out what comes with the weights."""


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(["The ships on the sea were small and the captain looked at the old sea again. " * 20], 300)


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast | None, folder: Path) -> Path:
    model.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return folder


def gpt2_model(tokenizer: PreTrainedTokenizerFast, **changes: Any) -> GPT2LMHeadModel:
    """transformers' GPT-2 with its own random initial weights."""
    torch.manual_seed(0)
    end = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
    shape = {"vocab_size": len(tokenizer), "n_positions": 64, "n_embd": 48, "n_layer": 3, "n_head": 3}
    return GPT2LMHeadModel(GPT2Config(**(shape | end | changes)))


@pytest.fixture
def weights(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
    """A GPT-2-shaped folder with a card and a licence."""
    folder = save(gpt2_model(tokenizer), tokenizer, tmp_path / "sea")
    (folder / "README.md").write_text("---\nlicense: mit\ntags: [x]\n---\n# Sea\n", encoding="utf-8")
    (folder / "LICENSE").write_text("MIT\n", encoding="utf-8")
    return folder


def plain_losses(folder: Path, options: TrainOptions) -> list[float]:
    """The losses of transformers' model in a plain loop with torch's AdamW, on the sequences that the run sees."""
    model = GPT2LMHeadModel.from_pretrained(folder, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0).train()
    data = open_data(dataclasses.replace(options, tokenizer=str(folder)), PRESETS["demo"])
    windows = data.mixture(int(options.context or 0), options.seed)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=float(options.lr or 0), betas=(0.9, 0.95), eps=1e-8)
    losses = []
    batch = int(options.batch_tokens or 0) // windows.context
    for step in range(int(options.steps or 0)):
        ids = torch.from_numpy(windows.batch(range(step * batch, (step + 1) * batch)))
        logits = model(ids[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        losses.append(float(loss.detach()))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return losses


def test_the_losses_are_those_of_a_plain_transformers_loop(tiny, weights: Path, tmp_path: Path) -> None:
    options = tiny(
        **SMALL, init_from=str(weights), steps=20, lr=1e-3, warmup_tokens=0, min_lr_ratio=1.0, beta2=0.95, micro_batch=4,
        spike_sigmas=0.0,
    )  # fmt: skip
    train(options)
    ours = [record["loss"] for record in read_metrics(tmp_path / "run" / "metrics.jsonl") if "loss" in record]
    theirs = plain_losses(weights, options)
    assert len(ours) == len(theirs) == 20
    assert abs(ours[0] - theirs[0]) <= 1e-5
    assert max(abs(one - other) for one, other in zip(ours, theirs, strict=True)) <= 1e-4
    assert theirs[-1] < theirs[0] - 0.5  # they are learning


def test_the_result_is_a_model_folder_that_names_origin_and_licence(
    tiny, weights: Path, tmp_path: Path, capsys
) -> None:
    train(tiny(**SMALL, init_from=str(weights), steps=2, ema=0.5, dropout=0.1))
    model, tokenizer = load_transformers(tmp_path / "run")
    config = model.config
    assert (config.model_type, config.max_position_embeddings, config.activation_function) == ("gpt3", 64, "gelu_new")
    assert (config.resid_pdrop, config.layer_types) == (0.1, ["full_attention"] * 3)
    folder = tmp_path / "run" / "model"
    assert tokenizer_hash(tokenizer) == tokenizer_hash(load_transformers(weights)[1])
    origin = json.loads((folder / "origin.json").read_text(encoding="utf-8"))
    assert (origin["family"], origin["source"], origin["run"]) == ("GPT-2", "sea", "run")
    assert set(origin["sha256"]) == {"config.json", "model.safetensors"}
    assert str(tmp_path) not in json.dumps(origin)
    assert (folder / "LICENSE").read_text(encoding="utf-8") == "MIT\n"
    card = ModelCard.load(folder / "README.md")
    assert card.data.license == "mit"
    assert "trained from the weights of sea (GPT-2)" in card.text
    assert (
        "The licence of the initial weights (sea) is named at the top of this file, and its text is in `LICENSE`"
        in card.text
    )
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (saved["init_from"], saved["context"], saved["ramp_tokens"]) == (str(weights), 32, 0)
    capsys.readouterr()
    assert cli.main(["info", str(tmp_path / "run")]) == 0
    assert "source sea" in capsys.readouterr().out
    for name in ("run", "run/checkpoints/step-2"):  # a checkpoint has no card
        initial = open_initial(tiny(**SMALL, init_from=str(tmp_path / name)), None, ALONE.agree)
        found = initial.origin()
        assert (found["family"], found["source"], found["origin"]["source"]) == ("gpt3", "run", "sea")
        assert (found["licence"], found["licence_files"]) == (["license: mit"], {"LICENSE": "MIT\n"})


def opt_model(tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    end = tokenizer.eos_token_id
    shape = {"vocab_size": 320, "hidden_size": 48, "num_attention_heads": 3, "ffn_dim": 64, "num_hidden_layers": 2}
    ids = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": 1}
    return OPTForCausalLM(OPTConfig(**shape, **ids, max_position_embeddings=64, word_embed_proj_dim=48))


def neo_model(tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    end = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
    shape = {"hidden_size": 48, "num_layers": 2, "num_heads": 3, "window_size": 8, "max_position_embeddings": 64}
    kinds = [[["global", "local"], 1]]
    return GPTNeoForCausalLM(GPTNeoConfig(vocab_size=len(tokenizer), attention_types=kinds, **shape, **end))


@pytest.mark.parametrize("make", [gpt2_model, opt_model, neo_model])
def test_every_family_starts_with_its_own_logits(make, tiny, tokenizer, tmp_path: Path) -> None:
    """The model that a run builds, before its first step, against transformers' class; an embedding may be larger than needed."""
    theirs = make(tokenizer).eval()
    options = tiny(**SMALL, init_from=str(save(theirs, tokenizer, tmp_path / "theirs")))
    model = first_model(options)
    ids = torch.randint(3, 280, (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, theirs(ids).logits, atol=1e-5, rtol=0)
    assert model.dtype == torch.float32


def first_model(options: TrainOptions) -> Any:
    initial = open_initial(options, None, ALONE.agree)
    assert initial is not None
    compute = Compute(torch.device("cpu"), torch.float32, 1.0)
    shape, end_of_text = initial.shape(options), initial.tokenizer.eos_token_id
    return build_model(options, shape, end_of_text, compute, ALONE, initial.weight)[0]


def test_a_run_a_checkpoint_and_an_adapter_are_weights_too(tiny, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    train(tiny(steps=4, checkpoint_every=2, keep_checkpoints=9, out=str(tmp_path / "first"), pre_layernorm=False))
    for name in ("first", "first/checkpoints/step-2"):
        model = first_model(tiny(**SMALL, init_from=str(tmp_path / name)))
        folder = tmp_path / (f"{name}/model" if name == "first" else name)
        theirs = load_file(folder / "model.safetensors")
        assert all(torch.equal(model.get_parameter(key), value) for key, value in theirs.items())
        assert (model.config.use_pre_layernorm, model.config.sliding_window) == (False, 8)
    adapted = peft.get_peft_model(
        load_transformers(tmp_path / "first")[0], peft.LoraConfig(r=2, target_modules=["c_attn"])
    )
    torch.nn.init.normal_(adapted.base_model.model.transformer.h[0].attn.c_attn.lora_B.default.weight)
    adapted.peft_config["default"].base_model_name_or_path = str(tmp_path / "first")
    adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    model = first_model(tiny(**SMALL, init_from=str(tmp_path / "adapter")))
    ids = torch.randint(3, 280, (2, 20), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(ids).logits, adapted.eval()(ids).logits, atol=1e-5, rtol=0)


def test_a_killed_run_resumes_without_the_weights_it_began_with(tiny, weights: Path, tmp_path: Path) -> None:
    options = tiny(**SMALL, init_from=str(weights), steps=6, checkpoint_every=3, keep_checkpoints=9)
    train(dataclasses.replace(options, out=str(tmp_path / "whole")))
    shutil.copytree(tmp_path / "whole", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "model")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-6")
    shutil.rmtree(weights)
    assert train(options).finished
    one, other = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "run"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    cards = [(tmp_path / name / "model" / "README.md").read_text(encoding="utf-8") for name in ("whole", "run")]
    assert all("trained from the weights of sea (GPT-2)" in card for card in cards)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="ranks are forked, so that Python starts once")
def test_several_processes_start_from_the_same_weights(
    tiny, server: Server, weights: Path, tmp_path: Path, shared_cache: Path
) -> None:
    """FSDP on two, block by block, and one process: the same losses up to the order of sums."""
    options = tiny(**SMALL, init_from=str(weights), steps=3, validate_every=100, micro_batch=4)
    ranks = dataclasses.replace(options, nproc=2, parallel="fsdp", out=str(tmp_path / "two"))
    assert server.sit(dataclasses.asdict(ranks), shared_cache) == 0, server.log.read_text()
    train(options)
    two, one = (
        [record["loss"] for record in read_metrics(tmp_path / name / "metrics.jsonl") if "loss" in record]
        for name in ("two", "run")
    )
    assert two == pytest.approx(one, abs=1e-5)


def test_the_plan_shows_the_rule(tiny, weights: Path, tmp_path: Path, capsys) -> None:
    assert run(tiny(**SMALL, init_from=str(weights), steps=200, lr=None, plan=True, out=None)) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= max(80, 15 + len(f"{weights};"))
    assert f"GPT-2 from {weights}; 64 positions, gelu_new, tokenizer of" in " ".join(shown.split())
    for name, rule in continuing.RULES.items():
        assert " ".join(f"{name}: {rule}".split()) in " ".join(shown.split())
    assert not (tmp_path / "runs").exists()


def test_the_rule_in_numbers(tiny, weights: Path) -> None:
    initial = open_initial(tiny(**SMALL, init_from=str(weights)), None, ALONE.agree)
    options = TrainOptions(init_from=str(weights), tokens="10M")
    plan = make_plan(options, 10**6, shape=initial.shape(options))
    assert plan.context == 64  # all positions of the weights
    assert plan.ramp_tokens == 0
    assert plan.decay_tokens == plan.tokens
    assert plan.warmup_tokens == pytest.approx(plan.tokens / 10, abs=1)
    for preset in PRESETS.values():
        assert continuing.peak_rate(preset.parameters) == pytest.approx(continuing.PEAK_SHARE * preset.learning_rate)
        assert continuing.batch_tokens(preset.parameters) == preset.batch_tokens
    assert continuing.peak_rate(124_439_808) == pytest.approx(
        continuing.PEAK_SHARE * 6e-4, rel=0.01
    )  # GPT-2's own size
    assert PRESETS["125M"].learning_rate > continuing.peak_rate(200_000_000) / continuing.PEAK_SHARE > 3e-4


def test_replay_is_short_for_a_mixture(tiny, weights: Path, tmp_path: Path, text_file: Path, capsys) -> None:
    lines = text_file.read_text(encoding="utf-8").splitlines(keepends=True)
    for name, part in (("new", lines[:50]), ("old", lines[50:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(part), encoding="utf-8")
    old, new = (str(tmp_path / f"{name}.jsonl") for name in ("old", "new"))
    mixture = tmp_path / "mixture.yaml"
    entries = [{"name": "data", "data": new, "weight": 0.75}, {"name": "old", "data": old, "weight": 0.25}]
    mixture.write_text(yaml.safe_dump(entries))
    common = {**SMALL, "init_from": str(weights), "steps": 32}
    train(tiny(**common, data=[new], replay=[f"{old}=25%"]))
    assert f"source {new}: " in " ".join(capsys.readouterr().err.split())
    train(tiny(**common, data=["wiki"], mixture=str(mixture), out=str(tmp_path / "mixed")))
    rows = json.loads((tmp_path / "run" / "data.json").read_text())["sources"]
    assert [(row["name"], row["share"]) for row in rows] == [("data", 0.75), ("old", 0.25)]
    one, other = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("run", "mixed"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    record = [r for r in read_metrics(tmp_path / "run" / "metrics.jsonl") if "val/loss" in r][-1]
    assert {"val/data/loss", "val/old/loss"} <= record.keys()


@pytest.mark.parametrize(
    ("replay", "message"),
    [
        (["wiki"], r"--replay 'wiki' must be SOURCE=SHARE, such as wiki=5%"),
        (["wiki=lots"], r"the share 'lots' must be above 0% and below 100%"),
        (["wiki=0%"], r"the share '0%' must be above 0%"),
        (["wiki=nan"], r"the share 'nan' must be above 0%"),
        (["wiki=60%", "fineweb=0.4"], r"shares of 100% leave nothing for --data"),
    ],
)
def test_shares_that_are_none(replay: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainOptions(replay=replay)


def refused(capsys: pytest.CaptureFixture[str], options: dict[str, Any], *words: str) -> str:
    """What the command says; exit code 2, one line, and no run folder."""
    capsys.readouterr()  # transformers' bars
    given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    assert cli.main(["train", *given, *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("gpt3 train: ")
    assert error.count("\n") == 1
    assert not Path("runs").exists() or not any(Path("runs").iterdir())
    return error


@pytest.fixture
def bad(tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working folder, with the test's cache."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def test_options_that_the_weights_leave_no_room_for(bad, weights: Path, capsys) -> None:
    start = {"init_from": str(weights)}
    assert "--model 17M and --init-from" in refused(capsys, start | {"model": "17M"})
    shape = {"layers": 2, "width": 8, "heads": 2, "window": 4, "positions": 99}
    error = refused(capsys, start | shape, "--no-pre-layernorm")
    for name in ("layers 2", "width 8", "heads 2", "window 4", "positions 99", "no-pre-layernorm"):
        assert f"--{name} does not apply" in error
    error = refused(capsys, start | {"context": 65, "data": "wiki"})
    assert "--context 65 exceeds the 64 positions of --init-from" in error
    assert "positions are learned, and it has learned no others. Use --context 64 or less." in error
    assert "is short for a mixture" in refused(capsys, {"replay": "wiki=5%", "mixture": "m.yaml"})
    assert f"gpt3 train --init-from {weights}" in refused(capsys, {"model": str(weights)})
    assert "gpt3 train --init-from gpt2" in refused(capsys, {"model": "gpt2"})


def test_weights_that_cannot_be_used(bad, weights: Path, tokenizer, tmp_path: Path, capsys) -> None:
    llama = LlamaForCausalLM(
        LlamaConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    )
    error = refused(capsys, {"init_from": str(save(llama, tokenizer, tmp_path / "llama"))})
    assert "config.json has model_type 'llama'; known families: gpt2" in error
    bare = save(gpt2_model(tokenizer), None, tmp_path / "bare")
    error = refused(capsys, {"init_from": str(bare)})
    assert "has no tokenizer" in error
    assert "Name the model's own with --tokenizer (gpt2, or a folder)" in error
    error = refused(capsys, {"init_from": str(bare), "tokenizer": "gpt2"})
    assert f"--tokenizer gpt2 has 50,257 ids, --init-from {bare} {len(tokenizer)}. Name the tokenizer" in error
    small = save(gpt2_model(tokenizer, vocab_size=250, bos_token_id=0, eos_token_id=0), tokenizer, tmp_path / "small")
    assert f"its tokenizer has {len(tokenizer)} ids, its model 250" in refused(capsys, {"init_from": str(small)})
    torn = shutil.copytree(weights, tmp_path / "torn")
    kept = {name: value for name, value in load_file(torn / "model.safetensors").items() if "h.1.ln_2" not in name}
    save_file(kept, torn / "model.safetensors", metadata={"format": "pt"})
    assert "2 missing (h.1.ln_2.weight, h.1.ln_2.bias)" in refused(capsys, {"init_from": str(torn)})
    assert "Did you mean gpt2-xl" in refused(capsys, {"init_from": "gpt2-xll"})
    assert "17M is a model size" in refused(capsys, {"init_from": "17M"})


def test_another_tokenizer_is_refused_with_both_hashes(bad, weights: Path, tokenizer, text_file: Path, capsys) -> None:
    own = tokenizer_hash(tokenizer)[:12]
    start = {"init_from": str(weights), "data": str(text_file)}
    error = refused(capsys, start | {"tokenizer": "gpt2"})
    assert own in error
    assert "--tokenizer gpt2 (50,257 ids, hash " in error
    assert "Leave out --tokenizer" in error
    assert own in refused(capsys, start | {"tokenizer": "own:300"})
    shards = prepare_cached([str(text_file)], "gpt2", workers=1)
    for options in ({"data": str(shards)}, {"replay": f"{shards}=5%"}):
        capsys.readouterr()
        error = refused(capsys, start | options)
        assert f"the shards in {shards} were made by another tokenizer (50,257 ids, hash " in error
        assert f"hash {own}" in error
        assert "gpt3 prepare --data TEXT --tokenizer " in error


def test_the_tokenizer_by_another_name_and_its_shards_are_taken(
    tiny, weights: Path, text_file: Path, tmp_path: Path
) -> None:
    shards = prepare_cached([str(text_file)], weights, validation_fraction=0.1, workers=1)
    common = {**SMALL, "init_from": str(weights), "steps": 2}
    train(tiny(**(common | {"tokenizer": str(weights)}), data=[str(shards)]))
    train(tiny(**common, out=str(tmp_path / "text")))
    bare = shutil.copytree(weights, tmp_path / "bare", ignore=shutil.ignore_patterns("*token*"))
    train(tiny(**{**common, "init_from": str(bare), "tokenizer": str(weights)}, out=str(tmp_path / "named")))
    one, *others = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("run", "text", "named"))
    assert all(torch.equal(one[name], other[name]) for other in others for name in one)
    assert len(checkpoints(tmp_path / "run" / "checkpoints")) == 2
