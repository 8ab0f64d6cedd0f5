"""Texts: greedy and drawn ones of many models and formats, from Python and from the command line, and transformers' own."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.recorder import corpus, models
from benchmarks.recorder.record import Record, digest
from benchmarks.recorder.workshop import Workshop, cut, note

PROMPT = "The blue sea follows the"
PROMPTS = ["", "The sun", "naïve café 🎉", "The rose and the rose and the rose and the", corpus.sentences(8, 4)]
COMBINATIONS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0, "max_new_tokens": 40},
    "own distribution": {"seed": 1},
    "temperature": {"temperature": 0.7, "seed": 2},
    "top-k": {"top_k": 20, "seed": 3},
    "top-p": {"top_p": 0.8, "seed": 4},
    "min-p": {"min_p": 0.1, "seed": 5},
    "typical-p": {"typical_p": 0.7, "seed": 6},
    "repetition penalty": {"temperature": 0, "repetition_penalty": 1.4},
    "presence, frequency": {"presence_penalty": 1.5, "frequency_penalty": 0.7, "seed": 7},
    "no repeated n-grams": {"temperature": 0, "no_repeat_ngram": 2},
    "bias": {"logit_bias": {65: 5.0, 32: -100}, "seed": 8},
    "bad words": {"bad_words": ["the", "sea", "e"], "seed": 9},
    "at least": {"min_new_tokens": 20, "logit_bias": {10: 3}, "seed": 10},
    "stop": {"stop": ["e", "sun"], "seed": 11},
    "samples": {"n": 3, "temperature": 1.3, "seed": 12},
    "log-probabilities": {"logprobs": 3, "temperature": 0.9, "seed": 13, "max_new_tokens": 6},
    "everything": {
        "temperature": 0.8, "top_k": 50, "top_p": 0.95, "min_p": 0.01, "typical_p": 0.95, "repetition_penalty": 1.1,
        "presence_penalty": 0.2, "frequency_penalty": 0.1, "no_repeat_ngram": 4, "n": 2, "logprobs": 1, "seed": 14,
    },
    "long": {"temperature": 0.9, "seed": 15, "max_new_tokens": 150},
}  # fmt: skip


def observe(record: Record, w: Workshop) -> None:
    """Every model with every combination, then the command line on the demo, then transformers on model folders."""
    places = {
        "demo": models.demo(w), "plain": models.plain(w), "unusual": models.unusual(w), "slow": models.slow(w),
        **{name: models.foreign(w, name) for name in ("gpt2", "cerebras", "gpt-neo", "opt", "gpt-neox")},
        "dev-1": models.dev(w, 1), "dev-2": models.dev(w, 2), "adapter": models.adapter(w), "assistant": models.assistant(w),
    }  # fmt: skip
    formats = [(name, {"dtype": "fp32"}) for name in places]
    formats += [("demo", {"dtype": kind}) for kind in ("bf16", "fp16")] + [("demo", {"quantize": "int8"})]
    formats += [("gpt-neox", {"dtype": "bf16"}), ("slow", {"dtype": "bf16"}), ("gpt2", {"quantize": "int8"})]
    for name, options in formats:
        key = f"texts/{name} {next(iter(options.values()))}"
        with record.attempt(key):
            from_python(record, key, places[name], options)
    commands(record, w)
    for name in ("demo", "plain", "unusual"):
        with record.attempt(f"texts/transformers {name}"):
            from_transformers(record, f"texts/transformers {name}", folder_of(places[name]))
    elsewhere(record, w, folder_of(places["demo"]))


def folder_of(place: Path) -> Path:
    """The model folder of a run, or the folder itself."""
    return place / "model" if (place / "model").exists() else place


def from_python(record: Record, key: str, place: Path, options: dict[str, str]) -> None:
    """Record what ``gpt3.load(...)`` writes with each combination, and for many prompts at once."""
    import gpt3

    with contextlib.redirect_stderr(io.StringIO()):
        model = gpt3.load(place, device="cpu", **options)
    for name, chosen in COMBINATIONS.items():
        with record.attempt(f"{key}/{name}"):
            done = model.complete(PROMPT, **{"max_new_tokens": 24, **chosen})
            record.add(f"{key}/{name}", [plain(each) for each in done])
    many = model.complete(PROMPTS, n=2, max_new_tokens=12, temperature=0.9, seed=3)
    record.add(f"{key}/many prompts", [[plain(each) for each in texts] for texts in many])
    record.add(f"{key}/pieces", list(model.stream(PROMPT, max_new_tokens=16, seed=2, stop=["zz"])))


def plain(text: Any) -> dict[str, Any]:
    """A continuation as JSON."""
    found = {name: getattr(text, name) for name in ("index", "prompt_index", "text", "tokens", "finish_reason")}
    if text.logprobs is not None:
        found["logprobs"] = [[each.id, each.text, each.logprob, each.top] for each in text.logprobs]
    return found


def commands(record: Record, w: Workshop) -> None:
    """Record ``gpt3 generate`` in its ways, and ``gpt3 chat``."""
    prompts = w.root / "prompts.jsonl"
    lines = [{"prompt": text, "id": f"p{n}"} for n, text in enumerate(PROMPTS)]
    prompts.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    plainly = w.root / "prompts.txt"
    plainly.write_text("\n".join(PROMPTS[1:4]) + "\n", encoding="utf-8")
    demo, tiny = models.demo(w), models.plain(w)
    short = cut("--max-new-tokens 12 --seed 1 --json --device cpu")
    calls: dict[str, list[Any]] = {
        "greedy": [PROMPT, "--temperature", 0],
        "samples": [PROMPT, "--num-samples", 3, "--temperature", 1.2, "--logprobs", 2],
        "cuts": [PROMPT, "--top-k", 30, "--top-p", 0.7, "--min-p", 0.02, "--typical-p", 0.9],
        "penalties": [
            PROMPT, "--repetition-penalty", 1.3, "--presence-penalty", 0.5, "--frequency-penalty", 0.5, "--no-repeat-ngram", 2,
            "--bad-words", "the", "--stop", "zz", "--stop", "qq", "--logit-bias", '{"5": 3}', "--min-new-tokens", 4,
        ],
        "int8": [PROMPT, "--quantize", "int8"],
        "bf16": [PROMPT, "--dtype", "bf16"],
        "looked up": [PROMPTS[3], "--lookup", "--temperature", 0],
        "drafted": [PROMPT, "--draft", demo],
        "checkpoint": [PROMPT, "--model", demo / "checkpoints" / "step-200"],
        "new document": ["--prompt", ""],
        "too long": [corpus.sentences(40, 5)],
        "list": ["--input", prompts, "--batch", 3, "--num-samples", 2],
        "lines": ["--input", plainly],
        "file": ["--input", prompts, "--output", "out.jsonl", "--batch", 2],
        "prompt file": ["--prompt-file", plainly],
    }  # fmt: skip
    works = []
    for name, words in calls.items():
        model = [] if "--model" in words else ["--model", demo]
        options = [word for word in short if not (name in ("list", "lines", "file") and word == "--json")]
        works.append(partial(w.gpt3, "generate", *words, *model, *options))
    for name, answer in zip(calls, w.all(works), strict=True):
        with record.attempt(f"texts/command/{name}"):
            note(record, f"texts/command/{name}", answer, answer.data())
    with record.attempt("texts/command/file written"):
        record.add("texts/command/file written", (w.root / "out.jsonl").read_text(encoding="utf-8"))
        settings = (w.root / "out.jsonl.settings.json").read_bytes()
        record.add("texts/command/file's settings", json.loads(w.clean(settings)))
    talk = "What is the sea?\n/regenerate\n/save talk.json\nAnd the sun?\n/set temperature 0.5\n/reset\nWho?\n"
    spoken: dict[str, tuple[list[Any], str]] = {
        "plain text": (["generate", PROMPT, "--model", demo, "--max-new-tokens", 20, "--seed", 4], ""),
        "samples as text": (
            ["generate", "--model", tiny, "--max-new-tokens", 9, "--seed", 4, "--num-samples", 2],
            PROMPT,
        ),
        "chat": (["chat", models.assistant(w), "--seed", 3, "--max-new-tokens", 12, "--system", "Be brief."], talk),
        "chat with a base": (["chat", models.wide(w), "--seed", 3, "--max-new-tokens", 12], "What is the sea?\n"),
    }
    answers = w.all([partial(w.gpt3, *words, given=given) for words, given in spoken.values()])
    for name, answer in zip(spoken, answers, strict=True):
        record.add(f"texts/command/{name}", {"exit": answer.code, "out": answer.out})
        record.words(f"texts/command/{name}", answer.err)
    if (w.root / "talk.json").exists():
        record.add("texts/command/saved chat", json.loads((w.root / "talk.json").read_text(encoding="utf-8")))


def from_transformers(record: Record, key: str, folder: Path) -> None:
    """Record what transformers computes with a model folder: logits by each kind of attention, loss, beams, packed documents."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    import gpt3.model  # noqa: F401 - makes the model known to transformers

    words = AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor(
        [words(corpus.sentences(30, 6))["input_ids"][:100], words(corpus.sentences(30, 7))["input_ids"][:100]]
    )
    for kind in ("banded", "sdpa", "eager"):
        model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation=kind).eval()
        with torch.no_grad():
            out = model(ids, labels=ids)
            lean = model(ids, labels=ids, skip_logits=True)
            mask = torch.ones_like(ids)
            mask[0, :30] = 0
            padded = model(ids, attention_mask=mask).logits[:, -1]
            places = torch.cat([torch.arange(40), torch.arange(60)])[None]
            packed = model(ids[:1], position_ids=places).logits
        record.add(
            f"{key}/{kind}",
            {
                "logits": digest(out.logits.numpy().tobytes()),
                "last": out.logits[0, -1, :8].tolist(),
                "loss": out.loss.item(),
                "loss without logits": lean.loss.item(),
                "padded": digest(padded.numpy().tobytes()),
                "packed": digest(packed.numpy().tobytes()),
            },
        )
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    start = ids[:, :10]
    torch.manual_seed(0)
    ways: dict[str, dict[str, Any]] = {
        "greedy": {"do_sample": False},
        "beams": {"num_beams": 3, "do_sample": False},
        "drawn": {"do_sample": True, "top_k": 10},
    }
    for name, way in ways.items():
        made = model.generate(start, attention_mask=torch.ones_like(start), max_new_tokens=12, pad_token_id=0, **way)
        record.add(f"{key}/{name}", made.tolist())
    model.train()
    loss = model(ids, labels=ids).loss
    loss.backward()
    norms = {name: p.grad.norm().item() for name, p in sorted(model.named_parameters()) if p.grad is not None}
    record.add(f"{key}/gradients", norms)
    record.add(f"{key}/parameters", {name: list(p.shape) for name, p in sorted(model.named_parameters())})


def elsewhere(record: Record, w: Workshop, folder: Path) -> None:
    """Record what a process writes that has the model folder and transformers, and not this package."""
    code = (
        "import sys; sys.modules['gpt3'] = None\n"
        "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T\n"
        f"m, t = (X.from_pretrained({str(folder)!r}, trust_remote_code=True) for X in (M, T))\n"
        f"i = t({PROMPT!r}, return_tensors='pt')['input_ids']\n"
        "print(m.generate(i, max_new_tokens=12, do_sample=False, pad_token_id=0).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=w.root, env=w.environment, capture_output=True, text=True)
    record.add("texts/without the package", {"exit": done.returncode, "out": done.stdout.splitlines()[-1:]})
