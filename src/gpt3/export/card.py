"""The card of a published model: the front matter that the hub reads, commands with the repository's name, results, files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from gpt3.errors import InputError
from gpt3.export.hub import TAGS, gguf_name
from gpt3.model_folder.locate import read_json
from gpt3.tables import markdown
from gpt3.training.origin import NO_LICENCE

FRONT = re.compile(r"---\n(.*?)\n?---\n", re.DOTALL)
HERE = "PATH_OF_THIS_FOLDER"
"""What a model folder's card has in place of its own path."""


def published_card(
    text: str,
    repository: str,
    *,
    licence: str | None = None,
    ggufs: Mapping[str, Sequence[str]] | None = None,
    results: Mapping[str, Any] | None = None,
) -> str:
    """The card `text` of a model folder as its repository has it.

    Args:
        licence: the hub's id of a licence, such as mit; None keeps the one that the card names.
        ggufs: for each number format of a GGUF file, the lines that its check printed.
        results: the content of an evaluation's results.json.

    Raises:
        InputError: a front matter that is not YAML.
    """
    match = FRONT.match(text)
    try:
        head: Any = yaml.safe_load(match[1]) if match else {}
    except yaml.YAMLError:
        head = "not YAML"
    if not isinstance(head or {}, dict):
        raise InputError(
            "README.md of the model folder: its front matter is not YAML of the form `key: value`. Fix it there"
        )
    head = {"library_name": "transformers", "pipeline_tag": "text-generation", **(head or {})}
    tags = head.get("tags") or []
    tags = [tags] if isinstance(tags, str) else tags
    head["tags"] = list(dict.fromkeys([*tags, "gpt3", *(["gguf"] if ggufs else [])]))
    body = (text[match.end() :] if match else text).rstrip() + "\n"
    if licence is not None:
        head["license"] = licence
        body = body.replace(NO_LICENCE, f"The licence of the weights is {licence}.")
    if results is not None:
        head["model-index"] = [{"name": repository.partition("/")[2], "results": model_index(results)}]
        body += f"\n## Evaluation with gpt3 eval\n\n{results_table(results)}"
    if ggufs:
        body += f"\n## llama.cpp and LM Studio\n\n{gguf_section(repository, ggufs)}"
    front = yaml.safe_dump(head, sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n{body.replace(HERE, repository)}"


def gguf_section(repository: str, ggufs: Mapping[str, Sequence[str]]) -> str:
    """The GGUF files with their checks, and the commands that download and run them."""
    rows = [(f"`{gguf_name(repository, dtype)}`", "; ".join(lines)) for dtype, lines in ggufs.items()]
    dtype = min(ggufs, key=["q8_0", "q4_0", "f16", "bf16", "f32"].index)
    commands = [f'llama-completion -hf {repository}:{TAGS[dtype]} -p "The history of"', f"lms get {repository}@{dtype}"]
    return "\n".join([markdown(("file", "compared with the weights above"), rows), "", "```sh", *commands, "```", ""])


def read_results(folder: Path, repository: str) -> dict[str, Any]:
    """An evaluation's results.json to publish: the model has its new name, and no path of this machine is in it.

    Raises:
        InputError: no results are there.
    """
    path = folder / "results.json"
    found = (read_json(path) if path.is_file() else {}) | {"model": repository}
    if not isinstance(found.get("results"), list):  # lm-eval's is an object
        raise InputError(f"{folder} has no results.json of gpt3 eval. Make it with gpt3 eval --out {folder}")
    for result in found["results"]:
        data = result.get("data") or {}
        data.update({key: Path(data[key]).name for key in ("file", "shots") if isinstance(data.get(key), str)})
    return found


def model_index(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each task's main figure in the hub's ``model-index``: accuracies and their like in percent."""
    return [
        {
            "task": {"type": "text-generation"},
            "dataset": {"name": _name(task), "type": (task.get("data") or {}).get("hub") or task["task"]},
            "metrics": [{"type": task["main"], "name": f"{task['main']}, {task['shots']}-shot", "value": _value(task)}],
        }
        for task in results["results"]
        if "task" in task
    ]


def results_table(results: Mapping[str, Any]) -> str:
    """The same figures with their errors, as Markdown."""
    rows = [
        (
            _name(task),
            str(task["shots"]),
            f"{task['examples']:,}",
            task["main"],
            f"{_value(task):,} ± {_value(task, 'error'):,}",
        )
        for task in results["results"]
        if "task" in task
    ]
    return markdown(("task", "shots", "examples", "metric", "score"), rows) + "\n"


def _name(task: Mapping[str, Any]) -> str:
    """A task, with its style where this is not the paper's."""
    style = task.get("style", "paper")
    return str(task["task"]) + (f" ({style})" if style != "paper" else "")


def _value(task: Mapping[str, Any], part: str = "value") -> float:
    """The main figure or its standard error: a perplexity as it is, others in percent."""
    return round(float(task["metrics"][task["main"]][part]) * (1 if task["main"] == "ppl" else 100), 2)


def results_bytes(results: Mapping[str, Any]) -> bytes:
    """results.json as it is published."""
    return (json.dumps(results, indent=1, ensure_ascii=False) + "\n").encode()
