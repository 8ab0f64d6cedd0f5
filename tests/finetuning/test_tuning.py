"""Training: the loss is the plain cross-entropy, the best model is kept, adapters change nothing else."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from run_files import records, weights
from torch.nn import functional as F

from gpt3.errors import InputError

pytest.importorskip("trl")
pytest.importorskip("peft")

from transformers import TrainerCallback

from gpt3.finetuning import trainers
from gpt3.finetuning.options import FinetuneOptions
from gpt3.finetuning.samples import add_tokens, end_of_answers
from gpt3.finetuning.trainers import with_adapter
from gpt3.finetuning.tuning import Tuning, finetune
from gpt3.tokenizer.chat_template import ChatTemplate
from gpt3.training.panel import Panel
from gpt3.training.step_threads import StepThreads
from gpt3.work_folder import Interruption

CONTEXT = 64
"""Positions of the model; see conftest.py."""


def plain_loss(model, columns: dict[str, list[list[int]]]) -> float:
    """Cross-entropy summed sample by sample over the labelled tokens, divided by their number."""
    total, count = 0.0, 0
    for ids, labels in zip(columns["input_ids"], columns["labels"], strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, :-1].double()
        target = torch.tensor(labels[1:])
        total += F.cross_entropy(logits, target, reduction="sum", ignore_index=-100).item()
        count += int((target != -100).sum())
    return total / count


@pytest.mark.parametrize("packing", [False, True])
def test_losses_are_cross_entropy_over_all_labelled_tokens_under_accumulation(
    tiny, tmp_path, monkeypatch, packing: bool
) -> None:
    """Answers have unequal lengths: a mean of micro-batches' means would be another number. Packed ones do not see each other."""
    run = Tuning(tiny(steps=1, batch=12, micro_batch=1 if packing else 4, packing=packing), tmp_path / "run")
    if packing:
        run.accumulate = 1
        run.micro = 20  # all packed rows in one flattened batch
    torch.manual_seed(1)
    with torch.no_grad():  # so that what a token sees matters
        for parameter in run.model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    shapes = []
    compute_loss = trainers.ConversationTrainer.compute_loss

    def seen(self, model, inputs, *arguments, **keywords):
        shapes.append(tuple(inputs["input_ids"].shape))
        return compute_loss(self, model, inputs, *arguments, **keywords)

    monkeypatch.setattr(trainers.ConversationTrainer, "compute_loss", seen)
    expected = plain_loss(run.model, run.train.columns)
    result = run.run()
    assert records(tmp_path / "run", "loss")[0] == pytest.approx(expected, rel=1e-4)
    assert result.before["val/loss"] == pytest.approx(expected, rel=1e-5)
    assert result.after["val/loss"] < expected
    assert shapes == [(1, run.train.tokens)] if packing else [shape[0] for shape in shapes] == [4, 4, 4]


def test_on_a_cpu_only_labelled_places_go_through_the_head(tiny, tmp_path, monkeypatch) -> None:
    import trl.trainer.utils as theirs

    model = Tuning(tiny(), tmp_path / "run").model.eval()
    kernel, places = theirs._ChunkedLogProbFunction.apply, []

    class Counting:
        @staticmethod
        def apply(hidden: torch.Tensor, *rest: object) -> object:
            places.append(len(hidden))
            return kernel(hidden, *rest)

    monkeypatch.setattr(theirs, "_ChunkedLogProbFunction", Counting)
    theirs.add_fused_lm_head(model)
    ids = torch.arange(12)[None]
    labels = torch.where(ids < 9, -100, ids)
    found = model(input_ids=ids, labels=labels, fused_lm_head=True).log_probs[0]
    expected = F.log_softmax(model(input_ids=ids).logits[0, 8:11], dim=-1)[torch.arange(3), labels[0, 9:]]
    assert places == [3]
    torch.testing.assert_close(found[found != 0], expected)


def test_the_model_folder_has_what_a_run_needs(tiny, tmp_path) -> None:
    import gpt3

    finetune(tiny())
    folder = tmp_path / "run"
    model = gpt3.load(folder)
    end = end_of_answers(ChatTemplate(model.tokenizer))
    assert end in model.ends
    assert json.loads((folder / "model/generation_config.json").read_text())["eos_token_id"][0] == end
    assert {"config.yaml", "data.json", "environment.json", "metrics.jsonl", "report.html", "model"} <= {
        path.name for path in folder.iterdir()
    }
    assert not (folder / "checkpoints").exists()
    assert "| held-out loss |" in (folder / "model/README.md").read_text()
    with pytest.raises(InputError, match="is finished"):
        finetune(tiny())


def test_the_card_names_a_base_on_the_hub(tiny, tmp_path) -> None:
    run = Tuning(tiny(steps=1), tmp_path / "run")
    result = SimpleNamespace(folder=tmp_path / "run", steps=1, seconds=1.0, held_out=list)
    assert "base_model:" not in run._card(result, "transformers")
    run.base = "someone/base"
    assert "\nbase_model: someone/base\n---\n" in run._card(result, "transformers")


def test_new_tokens_begin_as_the_mean_and_padding_rows_go(base) -> None:
    from gpt3.finetuning.samples import prepare_tokenizer, read_template
    from gpt3.model_folder.load import load_transformers

    model, tokenizer = load_transformers(base)
    real = len(tokenizer)
    before = model.transformer.wte.weight[:real].detach().clone()
    ids = add_tokens(model, tokenizer, prepare_tokenizer(tokenizer, read_template("harmony", tokenizer)))
    rows = model.transformer.wte.weight
    assert rows.shape[0] == model.config.vocab_size == real + 3
    assert model.config.real_vocab_size is None
    assert ids == [real, real + 1, real + 2]
    torch.testing.assert_close(rows[ids], before.mean(0).expand(3, -1))
    assert torch.equal(rows[:real], before)
    assert model.lm_head.weight is rows


def test_the_best_model_is_kept_and_training_stops_early(tiny, tmp_path) -> None:
    """At a learning rate that destroys the model, the evaluations only get worse after the first."""
    result = finetune(tiny(lr=0.5, steps=20, early_stop=2))
    losses = records(tmp_path / "run", "val/loss")
    assert result.steps == 6  # the best was at step 2, then two evaluations without a better one
    assert result.after["val/loss"] == min(losses[1:])
    run = Tuning(tiny(out=str(tmp_path / "other"), model=str(tmp_path / "run/model")), tmp_path / "other")
    assert plain_loss(run.model, run.validation.columns) == pytest.approx(min(losses[1:]), rel=1e-4)


@pytest.mark.parametrize("dora", [False, True])
def test_lora_changes_adapters_and_new_tokens_only_and_merges_exactly(tiny, base, tmp_path, dora: bool) -> None:
    from peft import PeftModel

    from gpt3.model_folder.load import load_transformers

    shape = {"lora_rank": 4, "lora_alpha": 6, "lora_dropout": 0.1}
    run = Tuning(tiny(lora=True, dora=dora, **shape), tmp_path / "run")
    first = {name: tensor.detach().clone() for name, tensor in run.model.named_parameters()}
    run.run()
    plain, _ = load_transformers(base)
    add_tokens(plain, run.tokenizer, ["<|start|>", "<|message|>", "<|end|>"])
    assert all(torch.equal(first[name], tensor) for name, tensor in plain.named_parameters())  # the same beginning
    adapted = PeftModel.from_pretrained(plain, tmp_path / "run/adapter").eval()
    for name, tensor in adapted.named_parameters():
        if "lora_B" in name:
            assert tensor.abs().sum() > 0, name  # begins as zero, so it was trained
        if "lora" not in name and "trainable_tokens" not in name:
            key = name.removeprefix("base_model.model.").replace(".base_layer", "").replace(".token_adapter", "")
            assert torch.equal(tensor, first[key]), name
    written = json.loads((tmp_path / "run/adapter/adapter_config.json").read_text(encoding="utf-8"))
    assert (written["r"], written["lora_alpha"], written["lora_dropout"], written["use_dora"]) == (4, 6, 0.1, dora)
    merged, _ = load_transformers(tmp_path / "run/model")
    ids = torch.tensor(run.train.columns["input_ids"][:1])
    trained = {
        name.rpartition(".lora_B")[0].rpartition(".")[2] for name, _ in adapted.named_parameters() if "lora_B" in name
    }
    assert trained == {"c_attn", "c_proj", "c_fc"}  # all matrices of the layers
    torch.testing.assert_close(adapted(ids).logits, merged(ids).logits, rtol=1e-4, atol=1e-5)
    again, tokenizer = load_transformers(tmp_path / "run/adapter")  # on its base, which the adapter names
    torch.testing.assert_close(again(ids).logits, merged(ids).logits, rtol=1e-4, atol=1e-5)
    assert again.generation_config.eos_token_id == merged.generation_config.eos_token_id
    assert tokenizer.chat_template == run.tokenizer.chat_template
    assert not torch.equal(merged.transformer.wte.weight[run.new_ids], first["transformer.wte.weight"][run.new_ids])
    assert torch.equal(
        merged.transformer.wte.weight[: min(run.new_ids)], first["transformer.wte.weight"][: min(run.new_ids)]
    )


@pytest.fixture(scope="module")
def untied(base, tmp_path_factory):
    """The base with a head of its own."""
    from gpt3.model import GPT3Config, GPT3ForCausalLM
    from gpt3.tokenizer.loading import load_tokenizer

    torch.manual_seed(3)
    model = GPT3ForCausalLM(GPT3Config.from_pretrained(base, tie_word_embeddings=False))
    torch.nn.init.normal_(model.lm_head.weight, mean=0.05, std=0.02)  # large ones cancel out, and rounding is left
    folder = tmp_path_factory.mktemp("untied")
    model.save_pretrained(folder)
    load_tokenizer(base).save_pretrained(folder)
    return folder


def test_lora_trains_the_head_of_new_tokens_where_it_is_not_tied(untied, tiny, tmp_path) -> None:
    """Else the model could not tell the end of an answer from the two other new tokens, whose rows begin as the same mean."""
    from peft import PeftModel

    from gpt3.model_folder.load import load_transformers

    run = Tuning(tiny(model=str(untied), lora=True, lora_rank=4), tmp_path / "run")
    known, new = min(run.new_ids), run.new_ids
    first = {name: run.model.state_dict()[name].clone() for name in ("transformer.wte.weight", "lm_head.weight")}
    for matrix in first.values():  # each begins as the mean of its own
        torch.testing.assert_close(matrix[new], matrix[:known].mean(0).expand(len(new), -1))
    run.run()
    merged, tokenizer = load_transformers(tmp_path / "run/model")
    for name, before in first.items():
        after = merged.state_dict()[name]
        assert torch.equal(after[:known], before[:known])
        assert not torch.equal(after[new[2]], after[new[0]])  # <|end|> and <|start|>
    plain, _ = load_transformers(untied)
    add_tokens(plain, tokenizer, ["<|start|>", "<|message|>", "<|end|>"])
    adapted = PeftModel.from_pretrained(plain, tmp_path / "run/adapter").eval()
    ids = torch.tensor(run.train.columns["input_ids"][:1])
    again, _ = load_transformers(tmp_path / "run/adapter")
    for model in (merged, again):
        torch.testing.assert_close(model(ids).logits, adapted(ids).logits, rtol=1e-4, atol=1e-5)
    saved = weights(tmp_path / "run/adapter", "adapter_model.safetensors")
    assert max(tensor.shape[0] for tensor in saved.values()) <= 4 * 32  # rows, no whole matrix


def test_an_adapter_without_the_head_of_new_tokens_is_read_as_it_was_trained(
    untied, tiny, tmp_path, monkeypatch
) -> None:
    """Earlier versions trained new rows of the embedding alone; the head's were its mean, and were not saved."""
    import gpt3.finetuning.tuning as tuning
    from gpt3.model_folder.load import load_transformers

    def old_rows(model, tokenizer, new):
        ids = add_tokens(model, tokenizer, new)
        model.lm_head.weight.data[ids] = model.transformer.wte.weight.data[ids]
        return ids

    def old_adapter(model, options, ids):
        from peft import LoraConfig, get_peft_model

        kept = {"target_modules": ["c_attn"], "trainable_token_indices": {"wte": ids}}
        return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=4, **kept))

    monkeypatch.setattr(tuning, "add_tokens", old_rows)
    monkeypatch.setattr(trainers, "with_adapter", old_adapter)
    run = Tuning(tiny(model=str(untied), lora=True, steps=2), tmp_path / "run")
    run.run()
    ids = torch.tensor(run.train.columns["input_ids"][:1])
    merged, again = (load_transformers(tmp_path / "run" / name)[0](ids).logits for name in ("model", "adapter"))
    torch.testing.assert_close(again, merged, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lora", [False, True])
def test_dpo_raises_the_margin(tiny, pairs, tmp_path, lora: bool) -> None:
    changes = {"method": "dpo", "data": [str(pairs)], "val": [str(pairs)], "lr": 1e-2 if lora else 3e-3, "lora": lora}
    result = finetune(tiny(steps=8, **changes))
    assert result.before["val/loss"] == pytest.approx(0.6931, abs=1e-3)  # log 2: the model is its own reference
    assert result.before["val/reward_margin"] == pytest.approx(0, abs=1e-4)
    assert result.after["val/reward_margin"] > 0.1
    assert result.after["val/reward_accuracy"] == 1.0


@pytest.mark.parametrize(
    ("changes", "needle"),
    [
        ({"batch": 6, "micro_batch": 4}, "--batch 6 is not a multiple of --micro-batch 4"),
        ({"filter": ["funny"]}, "--filter funny"),
        ({"chat_template": "no-such"}, "--chat-template no-such"),
        ({"context": 3}, "longer than the context of 3"),
        ({"method": "dpo"}, "chosen and rejected"),
        ({"data": ["nowhere.json"]}, "nowhere.json"),
        ({"track": ["mlflow"]}, "--track mlflow"),
        ({"model": "nowhere"}, "--model nowhere"),
    ],
)
def test_bad_input_is_one_line(tiny, changes: dict, needle: str, tmp_path) -> None:
    with pytest.raises(InputError) as caught:
        finetune(tiny(val=[], **changes))
    assert needle in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_options_decide_samples_and_steps(tiny, tmp_path) -> None:
    plain = Tuning(tiny(steps=None, epochs=2.5, context=1000), tmp_path)
    assert plain.context == CONTEXT  # no more than the model has
    assert plain.steps == 8  # 12 samples are 3 batches of 4
    samples, tokens = plain.train.samples, plain.train.tokens
    everything = Tuning(tiny(train_on="all"), tmp_path).train.columns
    assert everything["labels"] == everything["input_ids"]
    packed = Tuning(tiny(steps=None, packing=True, batch=1, micro_batch=1), tmp_path)
    assert packed.steps == tokens // CONTEXT
    more = Tuning(tiny(rehearse=0.5), tmp_path).train
    assert more.columns["input_ids"][:samples] == plain.train.columns["input_ids"]
    assert sum(map(len, more.columns["input_ids"])) - tokens == round(0.5 * tokens / CONTEXT) * CONTEXT > 0
    assert more.columns["labels"][samples:] == more.columns["input_ids"][samples:]


def test_threads_are_those_asked_for_recorded_and_put_back(tiny, tmp_path) -> None:
    torch.set_num_threads(2)
    try:
        finetune(tiny(threads="1", steps=2))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert json.loads((tmp_path / "run/threads.jsonl").read_text()) == {"step": 1, "threads": 1}
    with pytest.raises(InputError, match="--threads 'many' must be auto or a whole number"):
        tiny(threads="many")


def test_options_become_trls_arguments(tiny, pairs, tmp_path) -> None:
    callback = TrainerCallback()
    args = Tuning(tiny(weight_decay=0.1, seed=3, lr=0.25, packing=True), tmp_path)._trainer(callback, True).args
    assert (args.weight_decay, args.seed, args.learning_rate, args.packing) == (0.1, 3, 0.25, True)
    assert (args.per_device_train_batch_size, args.gradient_accumulation_steps, args.bf16) == (2, 2, False)
    changes = {
        "method": "dpo",
        "data": [str(pairs)],
        "val": [],
        "validation_fraction": 0.0,
        "beta": 0.7,
        "dtype": "bf16",
    }
    args = Tuning(tiny(**changes), tmp_path)._trainer(callback, True).args
    assert (args.beta, args.bf16, args.load_best_model_at_end) == (0.7, True, False)


def test_the_panel_follows_every_step_and_shows_accuracies(tmp_path) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    panel = Panel("fine-tuning assistant", 10, console=console)
    recorder = trainers.Recorder([], panel, 0.0, Interruption(), StepThreads(tmp_path, 0, None))
    logged = SimpleNamespace(global_step=4)
    recorder.on_log(None, logged, None, {"loss": 2.25, "mean_token_accuracy": 0.5, "num_tokens": 99})
    recorder.on_log(None, logged, None, {"eval_loss": 1.5, "eval_mean_token_accuracy": 0.25})
    recorder.on_step_end(None, SimpleNamespace(global_step=7), None)
    console.print(panel.render())
    shown = console.file.getvalue()
    for part in ("loss 2.250", "accuracy 50.0%", "loss 1.500  accuracy 25.0%", "step 7 of 10", "ETA"):
        assert part in shown


def test_of_other_models_all_linear_layers_but_the_head_get_adapters() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {
        "vocab_size": 40,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    adapted = with_adapter(LlamaForCausalLM(LlamaConfig(**shape)), FinetuneOptions(lora=True), [38, 39])
    names = {
        name.partition(".lora_A")[0].rpartition(".")[2] for name, _ in adapted.named_parameters() if "lora_A" in name
    }
    assert names == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_a_head_with_a_bias_is_trained_whole() -> None:
    """GPT-J's; of a head's rows PEFT forgets the bias."""
    from transformers import GPTJConfig, GPTJForCausalLM

    shape = {"vocab_size": 40, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16, "rotary_dim": 4}
    torch.manual_seed(0)
    model = GPTJForCausalLM(GPTJConfig(**shape)).eval()
    torch.nn.init.normal_(model.lm_head.bias)
    ids = torch.arange(8)[None]
    before = model(ids).logits
    adapted = with_adapter(model, FinetuneOptions(lora=True), [38, 39]).eval()
    torch.testing.assert_close(adapted(ids).logits, before)
    assert {"weight", "bias"} <= {
        name.rpartition(".")[2] for name, each in adapted.named_parameters() if each.requires_grad
    }


def test_an_adapter_alone(tiny, tmp_path) -> None:
    """--merge false writes adapter/ and no model/; the run folder is a model all the same."""
    from gpt3.model_folder.load import load_transformers

    finetune(tiny(lora=True, merge=False, steps=2))
    assert not (tmp_path / "run/model").exists()
    card = (tmp_path / "run/adapter/README.md").read_text(encoding="utf-8")
    assert "library_name: peft" in card
    assert "LoRA of rank 16" in card
    finetune(tiny(lora=True, steps=2, out=str(tmp_path / "merged")))
    adapted, _ = load_transformers(tmp_path / "run")
    merged = weights(tmp_path / "merged/model")
    for name, value in adapted.state_dict().items():
        if name in merged:
            torch.testing.assert_close(value, merged[name], rtol=1e-5, atol=1e-6)
