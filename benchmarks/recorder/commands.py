"""The command line: every command's options with their defaults and choices, and what bad input comes to."""

from __future__ import annotations

import json
import re
from functools import partial
from typing import Any

import yaml
from benchmarks.recorder import corpus, models
from benchmarks.recorder.record import Record
from benchmarks.recorder.workshop import Workshop, note

REQUIRED = {
    "export": "--format gguf --out x",
    "tokenizer train": "--data wiki --vocab-size 300 --out x",
    "import": "x --out y",
}
"""What a command does not print its configuration without."""
BAD = """
trian
tokenizer
bench
train --modle 17M
train --steps many
train --steps
train --steps -3
train --steps 3 --tokens 1M
train --tokens lots
train --model 12M
train --track mlflow
train --config no-such.yaml
train --config unknown.yaml
train --config list.yaml
train --config bytes.yaml
train spare
train --dtype fp64
train --dtype int4 --optimizer sgd
train --heads 5 --width 32
train --context 0
train --context 4096 --model 17M
train --data no/such/file.txt --steps 2
train --val broken --steps 2
train --mixture no-such.yaml
train --resume no/such/checkpoint
train --parallel tensor
train --folds 1
train --fold 4/3
train --early-stop-on nothing
train --out demo --steps 3
train --device cuda
train --device tpu
train --lr nan
train --seed one
train --probe boolq
prepare --data no/such/file.txt --out x
prepare --data broken.jsonl --out x-1
prepare --validation-fraction 2
prepare --tokenizer nowhere --data text.jsonl --out x-2
prepare --data wiki --out list.yaml/x
tokenizer train --data wiki --out t
tokenizer train --data text.jsonl --vocab-size 100 --out t
tokenizer train --data text.jsonl --vocab-size 300 --out demo
generate --top-p 3 x
generate x --top-k 1.5
generate x --no-json=3
generate x --temperature -1 --top-k -1 --min-p 2 --seed -4
generate x --temperature 0 --num-samples 2 --model plain
generate x y
generate x --model no/such/model
generate x --model empty
generate x --model plain --device cuda
generate x --model plain --quantize int4
generate x --model plain --quantize int8 --dtype bf16
generate x --model plain --draft demo
generate x --model foreign/gpt-neox --quantize int8
generate --prompt-file no-such.txt --model plain
generate --input no-such.jsonl --model plain
generate --input badprompts.jsonl --model plain
generate x --model plain --stop a --bad-words a
generate x --model plain --min-new-tokens 9 --max-new-tokens 3
generate x --model plain --logit-bias {"9999":1}
score
score no-such.txt
score bytes.yaml --model plain
score --text x --context 4 --stride 5
score --text x --context 9999 --model plain
eval --tasks aritmetic
eval --tasks boolq --data-dir no/such/folder
eval --tasks boolq --data-dir empty --model plain
eval --shots many --model plain
eval --tasks arithmetic-2d+ --shots 500 --limit 2 --model plain
eval --limit 0
eval --batch 0
serve no/such/model
serve plain --host 0.0.0.0
serve plain --host nowhere.invalid
serve plain --slots 0
serve plain --port 99999
export --format gguf --out x.gguf --model no/such/model
export --format onnx --out x
export --out x
export --format gguf --out x.gguf --model unusual
export --format gpt2 --out y --model plain
export --format gpt2 --dtype q8_0 --out y --model plain
export --format gpt-neo --out demo --model plain
export --format gguf --context 999 --out x.gguf --model plain
import no/such/folder --out z
import foreign/gpt-neox --out z
import foreign/gpt2 --out demo
import foreign/gpt2
info no/such/folder
info empty
report no/such/run
report plain
contamination --data wiki
contamination --data wiki --tasks nil
contamination --data wiki --tasks no-such.jsonl
finetune --steps 0
finetune --model no/such/model
finetune --model plain --data no-such.json
finetune --model plain --data text.jsonl --steps 1
finetune --model plain --data questions.json --chat-template nowhere.jinja --steps 1
finetune --model plain --method dpo --data questions.json --steps 1
finetune --model plain --filter sense
finetune --batch 3 --micro-batch 2
chat --model no/such/model
chat assistant --load no-such.json
chat assistant --few-shot --system Brief
ladder --gpus 8
ladder --gpus 0 --gpu H100
ladder --gpus 2.5 --gpu H100
ladder --gpus 8 --gpu H1000
ladder --gpus 8 --gpu-memory lots
ladder --gpus 8 --gpu-memory 0
ladder --gpus 8 --gpu H100 --mfu 40
ladder --gpus 8 --gpu H100 --gpu-flops 989
ladder --gpus 8 --gpu V100 --dtype bf16
bench train --rounds 0
bench generate --cases nothing
bench serve --formats fp64
bench contexts --contexts none
bench formats no-such.txt
"""
"""Command lines that must be refused, each in the scratch folder."""
GOOD = """
--version
help
ladder --json
ladder --gpus 8 --gpu H100 --json
ladder --gpus 1 --gpu-memory 24 --mfu 0.5 --parallel ddp --dtype fp32 --json
eval --list-tasks
info plain --json
info demo --json
info adapter --json
info foreign/opt --json
info foreign/gpt-neox --json
"""
"""Command lines whose output is data."""


def observe(record: Record, w: Workshop) -> None:
    """Commands, their options, and how they answer."""
    shown = w.gpt3("--help")
    names = re.findall(r"^  ([a-z]+(?: [a-z]+)?)  ", shown.out, re.MULTILINE)
    record.add("commands/names", names)
    record.words("commands/names", shown.out)
    plain = [partial(w.gpt3, *name.split(), *REQUIRED.get(name, "").split(), "--print_config") for name in names]
    helps = [partial(w.gpt3, *name.split(), "--help") for name in names]
    for name, answer, told in zip(names, w.all(plain), w.all(helps), strict=True):
        with record.attempt(f"commands/{name}"):
            note(record, f"commands/{name}/configuration", answer, yaml.safe_load(answer.out))
            record.add(f"commands/{name}/choices", choices(told.out))
            record.words(f"commands/{name}/help", told.out)
    prepare(w)
    good = [line.split() for line in GOOD.split("\n") if line]
    for words, answer in zip(good, w.all([partial(w.gpt3, *words) for words in good]), strict=True):
        with record.attempt(f"commands/good/{' '.join(words)}"):
            note(record, f"commands/good/{' '.join(words)}", answer, data(words, answer.out))
    bad = [line.split() for line in BAD.split("\n") if line]
    before = everything(w)
    answers = w.all([partial(w.gpt3, *words) for words in bad])
    for words, answer in zip(bad, answers, strict=True):
        key = f"commands/bad/{' '.join(words)}"
        record.add(key, {"exit": answer.code, "output": bool(answer.out), "trace": "Traceback" in answer.err})
        record.words(key, answer.err)
    record.add("commands/bad/left behind", sorted(everything(w) - before))


def everything(w: Workshop) -> set[str]:
    """What lies in the scratch folder, two levels deep, but for caches."""
    paths = [*w.root.glob("*"), *w.root.glob("*/*")]
    return {p.relative_to(w.root).as_posix() for p in paths if p.relative_to(w.root).parts[0] not in ("cache", "hf")}


def choices(text: str) -> dict[str, str]:
    """The values that options may have, as the help lists them."""
    return dict(re.findall(r"^  (--[a-z0-9-]+) \{([^}]*)\}", text, re.MULTILINE))


def data(words: list[str], out: str) -> Any:
    """What counts of a command's output: JSON, or of a table its first columns."""
    if "--json" in words:
        return without_prose(json.loads(out))
    if words[0] == "eval":
        return [line.split()[0] for line in out.splitlines() if line.strip()]
    return out if words == ["--version"] else bool(out)


def without_prose(value: Any) -> Any:
    """What ``gpt3 info`` says, without files that may be reworded."""
    if isinstance(value, list):
        return [without_prose(inner) for inner in value if not is_prose(inner)]
    return {name: without_prose(inner) for name, inner in value.items()} if isinstance(value, dict) else value


def is_prose(value: Any) -> bool:
    """Whether a value describes a file of code or prose."""
    return isinstance(value, dict) and str(value.get("name")).endswith((".py", ".md"))


def prepare(w: Workshop) -> None:
    """The models and damaged files that the lines above name."""
    models.demo(w), models.plain(w), models.unusual(w), models.assistant(w), models.adapter(w), corpus.questions(w)
    for name in ("gpt-neox", "gpt2", "opt"):
        models.foreign(w, name)
    texts = {
        "unknown.yaml": "stepz: 3\n",
        "list.yaml": "- a\n",
        "broken.jsonl": '{"text": "fine"}\n{"text": \n',
        "badprompts.jsonl": '{"prompt": "x", "temperature": 1}\n',
    }
    for name, text in texts.items():
        (w.root / name).write_text(text, encoding="utf-8")
    (w.root / "bytes.yaml").write_bytes(b"\xff\xfe")
    (w.root / "empty").mkdir(exist_ok=True)
