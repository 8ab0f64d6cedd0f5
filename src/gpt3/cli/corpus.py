"""``gpt3 corpus``: a recipe's sources filtered, deduplicated and mixed, as shards to train on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gpt3.device import usable_cores
from gpt3.options import Options, option

SIZES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass(frozen=True)
class CorpusOptions(Options):
    """Make training text of raw text, as a recipe says: filter, deduplicate, mix (docs/corpus.md)."""

    recipe: str
    """YAML file: sources, language, heuristics, quality, near_duplicates, decontaminate, tokenizer."""
    out: str = "corpus"
    """Folder to make: shards, mixture.yaml, report.html. The same command resumes."""
    plan: bool = False
    """Print what would be read and done, and stop."""
    sample: str = "100%"
    """Share of the documents to read, to try a recipe: 1%, chosen by a hash of their text."""
    workers: int | None = option(None, above=0)
    """Processes; the result does not depend on it. Default: one per core."""
    memory: str = "1G"
    """Memory for comparing documents, in one process: 512M, 4G."""
    accept_loss: bool = False
    """Go ahead where a source loses over 90% of its documents."""

    def errors(self) -> Iterator[str]:
        """Of sizes and shares."""
        if not re.fullmatch(r"\d+(\.\d+)?[KMGT]", self.memory):
            yield f"--memory {self.memory} must be a size such as 4G"
        if not re.fullmatch(r"\d+(\.\d+)?%", self.sample) or not 0 < float(self.sample[:-1]) <= 100:
            yield f"--sample {self.sample} must be a share such as 1%"


def run(options: CorpusOptions) -> None:
    """Make the corpus, then print the funnel.

    Raises:
        InputError: see `gpt3.curation.recipe.read_recipe` and `gpt3.curation.corpus.Corpus.run`.
    """
    from gpt3.curation.corpus import MIXTURE, Corpus
    from gpt3.curation.funnel import PAGE, REPORT, table
    from gpt3.curation.recipe import read_recipe
    from gpt3.curation.stages import Engine
    from gpt3.tables import aligned

    recipe = read_recipe(Path(options.recipe).expanduser())
    out, engine = Path(options.out), Engine(options.workers or usable_cores())
    memory = int(float(options.memory[:-1]) * SIZES[options.memory[-1]])
    corpus = Corpus(recipe, out, engine, memory, float(options.sample[:-1]) / 100, options.accept_loss)
    if options.plan:
        print("\n".join(aligned(corpus.plan(), left=(0, 4))))
        return
    corpus.run()
    rows = table(json.loads((out / REPORT).read_text(encoding="utf-8")))
    print("\n".join(aligned(rows, left=(0, 5))))
    print(f"report: {out / PAGE}\nnext: gpt3 train --mixture {out / MIXTURE}")
