"""The options of ``gpt3 paper``. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gpt3.options import Options, option


@dataclass(frozen=True)
class PaperOptions(Options):
    """Repeat the paper's experiments on this machine, and show each result next to the paper's on one HTML page."""

    figures: list[str] = option([], common=True)
    """Figures, tables or sections of the paper; `--list-experiments` shows them. Default: all."""
    minutes: float = option(60.0, above=0, common=True)
    """Minutes of training in all; questions to models come on top. Default: 60."""
    data: list[str] = option(["wiki"], common=True)
    """Training text, as for gpt3 train --data. Default: the Wikipedia of the package."""
    model: list[str] = option([], common=True)
    """Models that the experiments ask, besides those trained here."""
    out: str = option("paper", common=True)
    """Folder for the page, each experiment's JSON, runs and answers; an interrupted one resumes. Default: paper."""
    limit: int = option(200, least=1)
    """Questions of each task. Default: 200."""
    data_dir: str | None = None
    """Folder with files of tasks, as for gpt3 eval. Without it, experiments ask what the package generates."""
    article_words: Literal["200", "500"] = "200"
    """Words of the articles of 3.9.4, about; 500 needs articles of your own in --data-dir."""
    seed: int = option(0, least=0)
    """Seed of trainings and of drawn questions. Default: 0."""
    threads: str = option("auto")
    """CPU threads: auto adapts to what else the machine does; a number is fixed."""
    list_experiments: bool = option(False, common=True)
    """Print the experiments and exit."""

    def errors(self) -> list[str]:
        """What the ranges cannot express."""
        if self.article_words == "500" and self.data_dir is None:
            return [
                "--article-words 500 needs articles of your own: the embedded Wikipedia's are shorter. Use --data-dir with a "
                "folder that has news.jsonl (docs/paper.md)"
            ]
        return []
