"""GGUF: names are the gguf package's own, values the model's, special tokens and chat template where llama.cpp looks."""

from __future__ import annotations

from copy import deepcopy

import gguf
import pytest
import torch
from tokenizers import pre_tokenizers

from gpt3.errors import InputError
from gpt3.export.gguf import read_gguf, tensor_names, write_gguf
from gpt3.inference.cpu_engine import CpuEngine
from gpt3.inference.four_bit import dequantized

DENSE = {"layer_types": ["full_attention"] * 4}


def field(path, name):
    return gguf.GGUFReader(path).get_field(name).contents()


def logits(model, ids, rows):
    with torch.no_grad():
        return model(ids).logits[..., :rows]


def test_names_are_those_that_llama_cpp_reads(new_model):
    block = {
        "ln_1": "attn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "ln_2": "ffn_norm", "mlp.c_fc": "ffn_up",
        "mlp.c_proj": "ffn_down",
    }  # fmt: skip
    names = {"wte.weight": "token_embd.weight", "wpe.weight": "position_embd.weight"}
    names |= {f"ln_f.{kind}": f"output_norm.{kind}" for kind in ("weight", "bias")}
    for layer in range(4):
        names |= {f"h.{layer}.{o}.{k}": f"blk.{layer}.{t}.{k}" for o, t in block.items() for k in ("weight", "bias")}
    names = {f"transformer.{ours}": theirs for ours, theirs in names.items()} | {"lm_head.weight": "output.weight"}
    found = tensor_names((name for name, _ in new_model(tie_word_embeddings=False).named_parameters()), 4)
    assert found == names


@pytest.mark.parametrize(
    ("dtype", "bound"),
    [("f32", 0.0), ("f16", 2**-11), ("bf16", 2**-8), ("q8_0", 1 / 127), ("q4_0", 0.16)],
    ids=lambda x: str(x),
)
def test_values_are_the_models_as_far_as_the_format_goes(new_model, tokenizer, tmp_path, dtype, bound):
    model = new_model(**DENSE, tie_word_embeddings=False)
    write_gguf(model, tokenizer, tmp_path / "m.gguf", dtype=dtype)
    parameters = dict(model.named_parameters())
    ours = {name: parameters[key].detach() for key, name in tensor_names(parameters, 4).items()}
    tensors = gguf.GGUFReader(tmp_path / "m.gguf").tensors
    assert {tensor.name for tensor in tensors} == set(ours)
    for tensor in tensors:
        value = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy())
        wanted = ours[tensor.name][: len(value)]  # without the padding ids
        exact = wanted.ndim < 2 or tensor.name == "position_embd.weight"
        assert (value - wanted).abs().max() <= (0 if exact else bound * wanted.abs().max()), tensor.name
    kinds = {t.name: t.tensor_type.name for t in tensors}
    assert kinds["blk.0.ffn_up.weight"] == dtype.upper()
    assert kinds["token_embd.weight"] == ("Q8_0" if dtype == "q4_0" else dtype.upper())


def test_q4_0_holds_the_weights_of_the_engine(new_model, tokenizer, tmp_path):
    """The file's values are those that `--quantize int4` computes with."""
    model = new_model(**DENSE)
    write_gguf(model, tokenizer, tmp_path / "m.gguf", dtype="q4_0")
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    ours = CpuEngine(model, "int4").weights
    for layer in range(4):
        for name, stack in {
            "attn_qkv": ours.qkv,
            "attn_output": ours.proj,
            "ffn_up": ours.fc,
            "ffn_down": ours.out,
        }.items():
            tensor = tensors[f"blk.{layer}.{name}.weight"]
            assert (gguf.dequantize(tensor.data, tensor.tensor_type) == dequantized(stack[layer])).all()


def test_q4_0_falls_back_where_rows_or_columns_do_not_divide(new_model, tokenizer, tmp_path):
    write_gguf(new_model(**DENSE, intermediate_size=100), tokenizer, tmp_path / "m.gguf", dtype="q4_0")
    kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    assert [kinds[f"blk.0.{name}.weight"] for name in ("attn_qkv", "ffn_up", "ffn_down")] == ["Q4_0", "Q8_0", "F16"]


@pytest.mark.parametrize(
    "shape",
    [
        DENSE,
        {"sliding_window": 96, "tie_word_embeddings": False, "intermediate_size": 100},
        {
            "num_attention_heads": 2,
            "num_hidden_layers": 3,
            "activation_function": "gelu_new",
            **DENSE,
            "layer_types": None,
        },
    ],
    ids=["dense", "untied", "banded"],
)
def test_read_back_it_is_gpt2_with_the_models_logits(new_model, tokenizer, tmp_path, shape):
    model = new_model(**{"activation_function": "gelu_new"} | shape)
    context = write_gguf(model, tokenizer, tmp_path / "m.gguf")
    ids = torch.randint(len(tokenizer), (2, context))
    torch.testing.assert_close(
        logits(read_gguf(tmp_path / "m.gguf"), ids, 300), logits(model, ids, 300), atol=1e-5, rtol=1e-5
    )


def test_a_banded_models_file_ends_at_its_window(new_model, tokenizer, tmp_path):
    assert write_gguf(new_model(), tokenizer, tmp_path / "m.gguf") == 16
    assert field(tmp_path / "m.gguf", "gpt2.context_length") == 16
    assert read_gguf(tmp_path / "m.gguf").transformer.wpe.weight.shape[0] == 16
    with pytest.raises(InputError, match=r"see only 16 tokens: --context 17 would be wrong. Use --context 16 or"):
        write_gguf(new_model(), tokenizer, tmp_path / "n.gguf", context=17)
    assert [file.name for file in tmp_path.iterdir()] == ["m.gguf"]


def test_tokens_merges_and_chat_template(new_model, tokenizer, tmp_path):
    tokenizer = deepcopy(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
    model = new_model(vocab_size=303, real_vocab_size=None, eos_token_id=[299, 301])
    write_gguf(model, tokenizer, tmp_path / "m.gguf", name="Tiny")
    reader = gguf.GGUFReader(tmp_path / "m.gguf")

    def value(name):
        return reader.get_field(name).contents()

    tokens, kinds = value("tokenizer.ggml.tokens"), value("tokenizer.ggml.token_type")
    assert tokens[:299] == [tokenizer.convert_ids_to_tokens(i) for i in range(299)]
    assert tokens[299:] == ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "[PAD302]"]
    assert kinds == [gguf.TokenType.NORMAL] * 299 + [gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.UNUSED]
    assert value("tokenizer.ggml.merges")[0].replace(" ", "") == tokens[256]
    assert (value("tokenizer.ggml.model"), value("tokenizer.ggml.pre")) == ("gpt2", "gpt-2")
    assert [value(f"tokenizer.ggml.{kind}_token_id") for kind in ("bos", "eos", "eot")] == [299, 299, 301]
    assert value("tokenizer.chat_template") == tokenizer.chat_template
    assert value("tokenizer.ggml.add_bos_token") is False
    assert value("general.name") == "Tiny"


@pytest.mark.parametrize("name", ["harmony", "chatml"])
def test_exported_templates_are_plain_jinja(new_model, tokenizer, tmp_path, name):
    """jinja2 without transformers' extensions, as llama-cpp-python has it, renders what transformers does."""
    import jinja2
    from transformers import AutoTokenizer

    from gpt3.export.stock import save, to_gpt2
    from gpt3.finetuning.samples import PROBE, prepare_tokenizer, read_template

    tokenizer = deepcopy(tokenizer)
    prepare_tokenizer(tokenizer, read_template(name, tokenizer))
    model = new_model(**DENSE, vocab_size=len(tokenizer), real_vocab_size=None)
    write_gguf(model, tokenizer, tmp_path / "m.gguf")
    save(to_gpt2(model, context=8, rows=300), tokenizer, tmp_path / "hf", torch.float32)
    assert "endgeneration" in tokenizer.chat_template  # the one that trains keeps its marks
    messages = [{"role": each.role, "content": each.content} for each in PROBE]
    for template in (
        field(tmp_path / "m.gguf", "tokenizer.chat_template"),
        AutoTokenizer.from_pretrained(tmp_path / "hf").chat_template,
    ):
        for blocks in (False, True):
            environment = jinja2.Environment(trim_blocks=blocks, lstrip_blocks=blocks)
            for count, ask in ((5, False), (4, True)):
                found = environment.from_string(template).render(messages=messages[:count], add_generation_prompt=ask)
                assert found == tokenizer.apply_chat_template(
                    messages[:count], tokenize=False, add_generation_prompt=ask
                )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_pre_layernorm": False}, "norms come after each sum"),
        ({"head_dim": 8}, "4 heads of 8 make 32, and hidden_size is 64"),
        ({"activation_function": "relu"}, "activation is relu"),
        ({"real_vocab_size": None, "vocab_size": 299}, "300 ids, the model 299"),
    ],
)
def test_what_llama_cpp_cannot_hold(new_model, tokenizer, tmp_path, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        write_gguf(new_model(**changes), tokenizer, tmp_path / "m.gguf")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_another_split_into_words_is_refused(new_model, tokenizer, tmp_path):
    other = deepcopy(tokenizer)
    other.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    with pytest.raises(InputError, match="not a byte-level BPE with GPT-2's split"):
        write_gguf(new_model(), other, tmp_path / "m.gguf")


def test_a_file_that_breaks_off_leaves_the_earlier_one(new_model, tokenizer, tmp_path, monkeypatch):
    path = tmp_path / "m.gguf"
    write_gguf(new_model(), tokenizer, path, context=8)
    before = path.read_bytes()

    def dies(*arguments):
        raise RuntimeError("power cut")

    monkeypatch.setattr(gguf, "quantize", dies)
    with pytest.raises(RuntimeError, match="power cut"):
        write_gguf(new_model(), tokenizer, path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["m.gguf"]
