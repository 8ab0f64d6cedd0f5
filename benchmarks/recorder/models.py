"""The models that are observed, each made once at its first use: trained ones by commands, random ones from fixed seeds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.recorder.corpus import documents, questions, sentences
from benchmarks.recorder.workshop import Workshop, cut

DEMO = cut("--steps 200 --dtype fp32 --device cpu --log-every 1 --validate-every 100")
VOCABULARY = 300


def tokenizer(w: Workshop) -> Path:
    """A byte-level BPE of 300 ids."""
    return w.once(
        "tokenizer",
        lambda out: w.gpt3("tokenizer", "train", "--data", documents(w), "--vocab-size", VOCABULARY, "--out", out),
    )


def demo(w: Workshop) -> Path:
    """The demo after 200 steps in fp32: a run folder."""
    return w.once("demo", lambda out: w.gpt3("train", *DEMO, "--out", out))


def randomised(model: Any) -> Any:
    """Every parameter drawn from a seed made of its name, of a spread that makes sharp distributions."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
            values = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
            gain = parameter.ndim == 1 and name.endswith("weight")
            parameter.copy_(1 + 0.3 * values if gain else (0.2 if parameter.ndim > 1 else 0.3) * values)
    return model.eval()


def saved(w: Workshop, name: str, make: Callable[[int, int], Any]) -> Path:
    """The folder of a random model with the tokenizer; `make` takes the vocabulary's size and the id of end-of-text."""

    def build(folder: Path) -> None:
        from transformers import AutoTokenizer

        words = AutoTokenizer.from_pretrained(tokenizer(w))
        randomised(make(len(words), words.eos_token_id)).save_pretrained(folder)
        words.save_pretrained(folder)

    return w.once(name, build)


def ours(w: Workshop, name: str, **changes: Any) -> Path:
    """A random model of this package: 4 layers of 32, context 128, window 12, 4 padding ids."""

    def make(size: int, end: int) -> Any:
        from transformers import AutoConfig, AutoModelForCausalLM

        import gpt3.model  # noqa: F401 - makes "gpt3" known to transformers

        shape = {
            "vocab_size": size + 4, "real_vocab_size": size, "max_position_embeddings": 128, "hidden_size": 32,
            "num_hidden_layers": 4, "num_attention_heads": 2, "sliding_window": 12, "bos_token_id": end, "eos_token_id": end,
        }  # fmt: skip
        return AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt3", **(shape | changes)))

    return saved(w, name, make)


def foreign(w: Workshop, name: str) -> Path:
    """A random model of another family, made with transformers."""

    def make(size: int, end: int) -> Any:
        import transformers as t

        ids = {"vocab_size": size, "bos_token_id": end, "eos_token_id": end}
        gpt2 = {"n_positions": 64, "n_embd": 24, "n_layer": 3, "n_head": 3}
        neo = {"max_position_embeddings": 64, "hidden_size": 24, "num_layers": 4, "num_heads": 3, "window_size": 8}
        opt = {
            "max_position_embeddings": 64, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "ffn_dim": 96,
            "word_embed_proj_dim": 24, "pad_token_id": 1,
        }  # fmt: skip
        neox = {
            "max_position_embeddings": 64, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3,
            "intermediate_size": 48, "rotary_pct": 1.0,
        }  # fmt: skip
        makers: dict[str, Callable[[], Any]] = {
            "gpt2": lambda: t.GPT2LMHeadModel(t.GPT2Config(**gpt2, **ids)),
            "gpt2-scaled": lambda: t.GPT2LMHeadModel(
                t.GPT2Config(**gpt2, **ids, scale_attn_by_inverse_layer_idx=True, n_inner=40)
            ),
            "cerebras": lambda: t.GPT2LMHeadModel(t.GPT2Config(**gpt2, **ids, activation_function="gelu")),
            "gpt-neo": lambda: t.GPTNeoForCausalLM(
                t.GPTNeoConfig(**neo, **ids, attention_types=[[["global", "local"], 2]])
            ),
            "opt": lambda: t.OPTForCausalLM(t.OPTConfig(**opt, **ids)),
            "gpt-neox": lambda: t.GPTNeoXForCausalLM(t.GPTNeoXConfig(**neox, **ids)),
        }
        return makers[name]()

    return saved(w, f"foreign/{name}", make)


def dev(w: Workshop, version: int) -> Path:
    """A random checkpoint of GPT3-dev, written from its format: version 1 is dense, untied and post-LN, version 2 alternates."""

    def build(folder: Path) -> None:
        import torch
        from safetensors.torch import save_file
        from transformers import AutoTokenizer

        words = AutoTokenizer.from_pretrained(tokenizer(w))
        words.save_pretrained(folder)
        raw: dict[str, Any] = {
            "vocab_size": len(words), "n_positions": 64, "n_embd": 24, "n_layer": 2, "n_head": 2,
            "bos_token_id": words.eos_token_id, "eos_token_id": words.eos_token_id,
        }  # fmt: skip
        raw |= (
            {"model_type": "gpt3dev", "window_size": 8}
            if version == 2
            else {"model_type": "custom_gpt2", "d_head": 16, "use_pre_layernorm": False, "tie_word_embeddings": False}
        )
        (folder / "config.json").write_text(json.dumps(raw), encoding="utf-8")
        width, wide = 24, 2 * raw.get("d_head", 12)
        shapes: dict[str, tuple[int, ...]] = {"wte.weight": (len(words), width), "wpe.weight": (64, width)}
        for h in ("h.0", "h.1"):
            for name, (out, into) in {
                "attn.c_attn": (3 * wide, width), "attn.c_proj": (width, wide), "mlp.c_fc": (4 * width, width),
                "mlp.c_proj": (width, 4 * width),
            }.items():  # fmt: skip
                shapes |= {f"{h}.{name}.weight": (out, into), f"{h}.{name}.bias": (out,)}
            shapes |= {f"{h}.{norm}.{kind}": (width,) for norm in ("ln_1", "ln_2") for kind in ("weight", "bias")}
        shapes |= {"ln_f.weight": (width,), "ln_f.bias": (width,)}
        generator = torch.Generator().manual_seed(5)
        weights = {}
        for name, shape in shapes.items():
            values = torch.randn(shape, generator=generator)
            gain = len(shape) == 1 and name.endswith("weight")
            weights[f"transformer.{name}"] = 1 + 0.3 * values if gain else (0.2 if len(shape) > 1 else 0.3) * values
        tied = weights["transformer.wte.weight"].clone()
        weights["lm_head.weight"] = tied if version == 2 else 0.2 * torch.randn(tied.shape, generator=generator)
        save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})

    return w.once(f"foreign/dev-{version}", build)


def adapter(w: Workshop) -> Path:
    """A LoRA adapter with random weights, on a random model of this package."""

    def build(folder: Path) -> None:
        import torch
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        base = plain(w)
        import gpt3.model  # noqa: F401

        torch.manual_seed(0)
        config = LoraConfig(r=4, lora_alpha=8, target_modules=["c_attn", "c_proj", "c_fc"], task_type="CAUSAL_LM")
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for _, parameter in sorted((n, p) for n, p in model.named_parameters() if p.requires_grad):
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
        model.save_pretrained(folder)
        path = folder / "adapter_config.json"
        raw = json.loads(path.read_text(encoding="utf-8"))
        raw |= {"base_model_name_or_path": "../plain", "target_modules": sorted(raw["target_modules"])}
        path.write_text(json.dumps(raw), encoding="utf-8")

    return w.once("adapter", build)


def plain(w: Workshop) -> Path:
    """A random model of this package in its usual form."""
    return ours(w, "plain")


def wide(w: Workshop) -> Path:
    """A random model whose 1,024 positions hold examples."""
    return ours(w, "wide", max_position_embeddings=1024, sliding_window=64)


def unusual(w: Workshop) -> Path:
    """Post-LN, an untied head, heads of another width, banded layers first."""
    kinds = ["sliding_attention", "full_attention"] * 2
    return ours(w, "unusual", use_pre_layernorm=False, tie_word_embeddings=False, head_dim=24, layer_types=kinds)


def slow(w: Workshop) -> Path:
    """An activation that only the model's own forward has."""
    return ours(w, "slow", activation_function="silu", intermediate_size=80)


TUNING = cut("--steps 6 --batch 4 --micro-batch 2 --lr 3e-3 --evaluate-every 2 --device cpu --filter none")


def assistant(w: Workshop) -> Path:
    """The random model after six steps on questions, with a chat template: a run folder."""
    data = ["--data", questions(w), "--val", questions(w)]
    return w.once("assistant", lambda out: w.gpt3("finetune", "--model", plain(w), *data, *TUNING, "--out", out))


def warm(w: Workshop) -> None:
    """Let the CPU's kernels be compiled and kept, in each format, before anything that uses them is observed."""

    def make(mark: Path) -> None:
        formats = [("--dtype", "fp32"), ("--dtype", "bf16"), ("--dtype", "fp16"), ("--quantize", "int8")]
        for chosen in formats:
            w.gpt3("generate", "x", "--model", plain(w), *chosen, "--max-new-tokens", 4)
            w.gpt3("score", "--text", sentences(9, 1), "--model", plain(w), *chosen)
        mark.touch()

    w.once("warm", make)
