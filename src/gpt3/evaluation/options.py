"""What a user may ask of ``gpt3 eval``. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from gpt3.errors import InputError
from gpt3.inference.options import DTYPES, QUANTIZE, DType, Quantize

Format = Literal["paper", "released"]
FORMATS: tuple[str, ...] = get_args(Format)
Style = Literal["paper", "lm-eval"]
STYLES: tuple[str, ...] = get_args(Style)


@dataclass(frozen=True)
class EvalOptions:
    """Score models on tasks with no, one or more solved examples before each question, as the paper did (section 2.4)."""

    model: list[str] = field(default_factory=list)
    """A model folder, a run folder, a run's name in ./runs, or a hub id; several are compared. Default: the newest run."""
    tasks: str = "arithmetic,wiki-topic"
    """Names of tasks and groups, with commas between. `--list-tasks` shows them all."""
    shots: str = "0,1,K"
    """Numbers of solved examples, with commas between; K is the paper's own number for each task, or what fits the model."""
    limit: int | None = None
    """Test examples of each task, the first so many; 1 and up. Default: all."""
    data_dir: str | None = None
    """A folder with the tasks' files (docs/evaluation.md names the layouts). Generated tasks need none."""
    format: Format = "paper"
    """Generated tasks as the paper's text has them, or as the released files have them (they differ, see docs/evaluation.md)."""
    style: Style = "paper"
    """Prompts and normalisations: the paper's (App. G), or lm-eval's for the tasks it shares (docs/evaluation.md)."""
    seed: int = 0
    """Draws the solved examples and the generated tasks; 0 and up."""
    batch: int = 8
    """Texts written side by side; the scores do not depend on it. 1 and up."""
    contamination: str = "auto"
    """Scores without the questions that the training text holds: auto (if the model is a run's), no, or that text (a source)."""
    out: str | None = None
    """Folder for results.json, report.html and every example; what is there is gone on with. Default: eval/NAME-OF-THE-MODEL."""
    list_tasks: bool = False
    """Print the tasks and end."""
    lm_eval_tasks: bool = False
    """Print the folder of these tasks' definitions for lm-eval's --include_path, and end."""
    json: bool = False
    """Print results.json in place of the table."""
    device: str = "auto"
    """auto (CUDA, then MPS, then CPU), cpu, cuda, cuda:N or mps."""
    dtype: DType = "auto"
    """Number format of weights and arithmetic. auto: bf16 on CUDA that has it, fp32 elsewhere."""
    quantize: Quantize = "none"
    """Weights as they are, or int8 with a scale for each channel."""

    def __post_init__(self) -> None:
        if isinstance(self.model, str):
            object.__setattr__(self, "model", [self.model])
        found: list[str] = []
        try:
            counts = self.shot_counts
        except ValueError:
            counts = ()
        if not counts or any(count is not None and count < 0 for count in counts):
            found.append(f"--shots is {self.shots!r}; give whole numbers from 0, or K, with commas between, as 0,1,K")
        if not self.task_names:
            found.append(f"--tasks is {self.tasks!r}; give names with commas between, as arithmetic,wiki-topic")
        if self.limit is not None and self.limit < 1:
            found.append(f"--limit is {self.limit}; give a whole number from 1, or leave it out for all examples")
        if self.batch < 1:
            found.append(f"--batch is {self.batch}; give a whole number from 1")
        if self.seed < 0:
            found.append(f"--seed is {self.seed}; give a whole number from 0")
        for name, allowed in (("format", FORMATS), ("style", STYLES), ("dtype", DTYPES), ("quantize", QUANTIZE)):
            if getattr(self, name) not in allowed:
                found.append(f"--{name} is {getattr(self, name)!r}; give one of {', '.join(allowed)}")
        if found:
            raise InputError("; ".join(found))

    @property
    def task_names(self) -> tuple[str, ...]:
        """--tasks, split."""
        return tuple(name.strip() for name in self.tasks.split(",") if name.strip())

    @property
    def shot_counts(self) -> tuple[int | None, ...]:
        """--shots, split; None stands for the paper's K."""
        words = [word.strip() for word in self.shots.split(",") if word.strip()]
        return tuple(dict.fromkeys(None if word == "K" else int(word) for word in words))
