"""Files: exports, imports, shards, tokenizers and model folders, by the hashes of their bytes."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.recorder import corpus, models
from benchmarks.recorder.record import Record, digest
from benchmarks.recorder.workshop import Workshop, files, note

ONE = ["--workers", 1]


def observe(record: Record, w: Workshop) -> None:
    """Everything that is written for other programs or for later."""
    exports(record, w)
    imports(record, w)
    shards(record, w)
    tokenizers(record, w)
    reports(record, w)
    with record.attempt("files/model folder"):
        files(record, w, "files/model folder", models.demo(w) / "model")


def exports(record: Record, w: Workshop) -> None:
    """Record each format and number format, and models that are imported or adapted on the way."""
    demo, plain = models.demo(w), models.plain(w)
    quick = ["--verify", "no"]
    calls: dict[str, list[Any]] = {
        **{
            f"gguf {kind}": ["--format", "gguf", "--dtype", kind, "--model", demo, *quick]
            for kind in ("f16", "bf16", "q8_0")
        },
        "gguf f32, verified": ["--format", "gguf", "--model", demo],
        "gguf random": ["--format", "gguf", "--dtype", "q8_0", "--model", plain, *quick],
        "gguf short": ["--format", "gguf", "--context", 8, "--model", plain, *quick],
        "gguf gpt2": ["--format", "gguf", "--model", models.foreign(w, "gpt2"), *quick],
        "gguf assistant": ["--format", "gguf", "--model", models.assistant(w), *quick],
        "gpt2": ["--format", "gpt2", "--model", plain, "--context", 12],
        "gpt2 f16": ["--format", "gpt2", "--model", plain, "--context", 12, "--dtype", "f16"],
        "gpt-neo demo": ["--format", "gpt-neo", "--model", demo],
        "gpt-neo": ["--format", "gpt-neo", "--model", plain],
        "gpt-neo bf16": ["--format", "gpt-neo", "--model", plain, "--dtype", "bf16"],
        "gpt-neo adapter": ["--format", "gpt-neo", "--model", models.adapter(w), *quick],
    }
    works, places = [], []
    for name, words in calls.items():
        out = w.root / "exports" / (name.replace(" ", "-").replace(",", "") + (".gguf" if words[1] == "gguf" else ""))
        out.parent.mkdir(exist_ok=True)
        places.append(out)
        works.append(partial(w.gpt3, "export", *words, "--out", out))
    for name, place, answer in zip(calls, places, w.all(works), strict=True):
        with record.attempt(f"files/export/{name}"):
            note(record, f"files/export/{name}/command", answer)
            files(record, w, f"files/export/{name}", place)


def imports(record: Record, w: Workshop) -> None:
    """Record the model folder that each foreign family becomes."""
    sources = {name: models.foreign(w, name) for name in ("gpt2", "gpt2-scaled", "cerebras", "gpt-neo", "opt")}
    sources |= {"dev-1": models.dev(w, 1), "dev-2": models.dev(w, 2), "adapter": models.adapter(w)}
    sources["pickle"] = pickled(w)
    sources["headless, cased"] = headless(w)
    works = []
    for name, source in sources.items():
        more = ["--allow-pickle"] if name == "pickle" else []
        works.append(partial(w.gpt3, "import", source, "--out", w.root / "imports" / name, *more))
    for name, answer in zip(sources, w.all(works), strict=True):
        with record.attempt(f"files/import/{name}"):
            note(record, f"files/import/{name}/command", answer)
            folder = w.root / "imports" / name
            files(record, w, f"files/import/{name}", folder)
            record.add(
                f"files/import/{name}/config.json", json.loads((folder / "config.json").read_text(encoding="utf-8"))
            )


def pickled(w: Workshop) -> Path:
    """GPT-2 in a pytorch_model.bin."""

    def make(folder: Path) -> None:
        import torch
        from safetensors.torch import load_file

        source = models.foreign(w, "gpt2")
        folder.mkdir()
        for path in source.iterdir():
            if path.suffix != ".safetensors":
                (folder / path.name).write_bytes(path.read_bytes())
        torch.save(load_file(source / "model.safetensors"), folder / "pytorch_model.bin")

    return w.once("foreign/pickle", make)


def headless(w: Workshop) -> Path:
    """GPT-2 in float16 under names without a prefix, with the saved masks, and with a card and a licence."""

    def make(folder: Path) -> None:
        import torch
        from safetensors.torch import load_file, save_file

        source = models.foreign(w, "gpt2")
        folder.mkdir()
        for path in source.iterdir():
            if path.suffix != ".safetensors":
                (folder / path.name).write_bytes(path.read_bytes())
        weights = load_file(source / "model.safetensors")
        bare = {n.removeprefix("transformer."): v.half() for n, v in weights.items() if n != "lm_head.weight"}
        bare["h.0.attn.bias"] = torch.ones(64, 64, dtype=torch.bool).tril()[None, None]
        save_file(bare, str(folder / "model.safetensors"), metadata={"format": "pt"})
        (folder / "README.md").write_text("---\nlicense: mit\n---\n# Bare\n", encoding="utf-8")
        (folder / "LICENSE").write_text("MIT\n", encoding="utf-8")

    return w.once("foreign/headless", make)


def shards(record: Record, w: Workshop) -> None:
    """Record shard folders of several sources, tokenizers and splits."""
    text, own = corpus.documents(w), models.tokenizer(w)
    plain = w.root / "texts"
    plain.mkdir(exist_ok=True)
    for number in range(6):
        (plain / f"{number}.txt").write_text(corpus.sentences(5, 40 + number), encoding="utf-8")
    (plain / "rows.csv").write_text('id,text\n1,"The sea, calm."\n2,The sun\n', encoding="utf-8")
    calls: dict[str, list[Any]] = {
        "wiki": ["--data", "wiki"],
        "own": ["--data", text, "--tokenizer", own],
        "small shards": ["--data", text, "--tokenizer", own, "--shard-tokens", 900, "--validation-fraction", 0.2],
        "fold": ["--data", text, "--tokenizer", own, "--fold", "2/5"],
        "none held out": ["--data", text, "--tokenizer", own, "--validation-fraction", 0],
        "several": ["--data", text, "--data", plain, "--tokenizer", "gpt2"],
        "pattern": ["--data", str(plain / "*.txt")],
    }
    works = [
        partial(w.gpt3, "prepare", *words, *ONE, "--out", w.root / "shards" / name.replace(" ", "-"))
        for name, words in calls.items()
    ]
    for name, answer in zip(calls, w.all(works), strict=True):
        folder = w.root / "shards" / name.replace(" ", "-")
        with record.attempt(f"files/shards/{name}"):
            note(record, f"files/shards/{name}/command", answer)
            manifest = json.loads(w.clean((folder / "manifest.json").read_bytes()))
            record.add(f"files/shards/{name}/manifest.json", manifest)
            found = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "manifest.json"]
            record.add(
                f"files/shards/{name}", {p.relative_to(folder).as_posix(): digest(p.read_bytes()) for p in found}
            )
    again = w.gpt3("prepare", "--data", text, "--tokenizer", own, *ONE, "--out", w.root / "shards" / "own")
    note(record, "files/shards/again", again)


def tokenizers(record: Record, w: Workshop) -> None:
    """Record trained tokenizers and what they and GPT-2's make of difficult texts."""
    calls = {"small": (corpus.documents(w), 300), "wiki": ("wiki", 2000), "too large": (corpus.heldout(w), 5000)}
    works = [
        partial(w.gpt3, "tokenizer", "train", "--data", data, "--vocab-size", size, "--out", w.root / "bpe" / name)
        for name, (data, size) in calls.items()
    ]
    for name, answer in zip(calls, w.all(works), strict=True):
        with record.attempt(f"files/tokenizer/{name}"):
            note(record, f"files/tokenizer/{name}/command", answer)
            files(record, w, f"files/tokenizer/{name}", w.root / "bpe" / name)
    with record.attempt("files/tokenizer/ids"):
        from transformers import AutoTokenizer

        hard = [
            corpus.FOREIGN_SIGNS,
            "  two\n\n\tlines ",
            "it's 12345, don't!",
            "a<|endoftext|>b",
            "\u0000\u200d\u00ad",
            "𝔘𝔫𝔦 ﬁ ŀ",
        ]
        for name, place in {
            "gpt2": w.root / "shards" / "wiki" / "tokenizer",
            "small": w.root / "bpe" / "small",
        }.items():
            words = AutoTokenizer.from_pretrained(place)
            record.add(f"files/tokenizer/ids/{name}", [words(text)["input_ids"] for text in hard])


def reports(record: Record, w: Workshop) -> None:
    """Record that pages are written; their prose and pictures are no behaviour."""
    demo = models.demo(w)
    for name, words in {
        "one": [demo, "--out", "one.html"],
        "two": [demo, models.assistant(w), "--out", "two.html"],
    }.items():
        answer = w.gpt3("report", *words)
        page = w.root / f"{name}.html"
        note(record, f"files/report/{name}", answer, {"svg or script": "<script" in page.read_text(encoding="utf-8")})
