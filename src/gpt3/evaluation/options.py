"""The options of ``gpt3 eval``. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gpt3.options import DType, Options, Quantize, option


@dataclass(frozen=True)
class EvalOptions(Options):
    """Score models on tasks zero-, one- and few-shot, as the paper did (section 2.4)."""

    model: list[str] = option([], group="Model", common=True)
    """Model folder, run folder, name of a run in ./runs, or hub id; several are compared. Default: newest run."""
    tasks: str = option("arithmetic,wiki-topic", group="Tasks", common=True)
    """Tasks and groups of tasks, separated by commas; `--list-tasks` shows them."""
    shots: str | None = option(None, common=True)
    """Numbers of few-shot examples; K: the paper's own, or as many as fit. Default: 0,1,K; with --style seed 0."""
    limit: int | None = option(None, least=1, common=True)
    """Use only the first N questions of each task. Default: all."""
    data_dir: str | None = option(None, common=True)
    """Folder with the tasks' files; FOLDER@500: 500 rows of each (docs/evaluation.md). Default: the hub."""
    format: Literal["paper", "released"] = "paper"
    """Generated tasks as the paper describes them, or as in the files that OpenAI released."""
    style: Literal["paper", "lm-eval", "cloze", "seed"] = "paper"
    """Prompts and rules: paper (App. G), lm-eval, cloze (options' texts, all rules), seed (GPT3-dev's MMLU)."""
    seed: int = option(0, least=0)
    """Seed of the draw of few-shot examples and of generated tasks. Default: 0."""
    contamination: str = "auto"
    """Scores without questions in the training text: auto (if the model is a run's), no, or that text (a source)."""
    out: str | None = option(None, group="Output", common=True)
    """Folder for results.json, report.html and all examples; an interrupted one resumes. Default: eval/MODEL."""
    overwrite: bool = False
    """Replace what --out has of another model, or of our files' names and not written by gpt3 eval."""
    json: bool = option(False, common=True)
    """Print what this command found as JSON, in the form of results.json, instead of the table."""
    list_tasks: bool = option(False, common=True)
    """Print the tasks and exit."""
    lm_eval_tasks: bool = False
    """Write these tasks' definitions for lm-eval's --include_path, print their folder and exit."""
    batch: int = option(8, least=1, group="Hardware")
    """Texts generated in parallel; no score depends on it."""
    device: str = "auto"
    """auto (CUDA, then MPS, then CPU), cpu, cuda, cuda:N or mps."""
    dtype: DType = "auto"
    """Number format of weights and arithmetic. auto: on CUDA bf16, or fp16 where it lacks that; else fp32."""
    quantize: Quantize = "none"
    """int8 or int4: 8- or 4-bit weights; int4 on a CPU."""
    threads: str = option("auto")
    """CPU threads: auto adapts to what else the machine does; a number is fixed."""

    def __post_init__(self) -> None:
        if isinstance(self.model, str):
            object.__setattr__(self, "model", [self.model])
        for name in ("tasks", "shots"):  # Python's lists, too
            if isinstance(given := getattr(self, name), (list, tuple)):
                object.__setattr__(self, name, ",".join(map(str, given)))
        super().__post_init__()

    def errors(self) -> list[str]:
        """What the ranges cannot express."""
        found: list[str] = []
        words = _split(self._shots)
        if not words or not all(word == "K" or (word.isascii() and word.isdigit()) for word in words):
            found.append(f"--shots {self.shots!r} must be numbers from 0, or K, separated by commas, such as 0,1,K")
        elif self.style == "seed" and self.shot_counts != (0,):
            found.append(f"--shots {self.shots}: --style seed is zero-shot. Use --shots 0, or another --style")
        if not self.task_names:
            found.append(f"--tasks {self.tasks!r} must be names separated by commas, such as arithmetic,wiki-topic")
        return found

    @property
    def task_names(self) -> tuple[str, ...]:
        """--tasks, split."""
        return _split(self.tasks)

    @property
    def shot_counts(self) -> tuple[int | None, ...]:
        """--shots, split; None is the paper's K."""
        return tuple(dict.fromkeys(None if word == "K" else int(word) for word in _split(self._shots)))

    @property
    def _shots(self) -> str:
        return self.shots if self.shots is not None else "0" if self.style == "seed" else "0,1,K"


def _split(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in str(text).split(",") if word.strip())
