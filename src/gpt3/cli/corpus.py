"""``gpt3 corpus``: a recipe's sources filtered, deduplicated and mixed, as shards to train on; and its workers elsewhere."""

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
    workers: int | None = option(None, least=0)
    """Processes here; the result does not depend on it. Default: one per core."""
    memory: str = "1G"
    """Memory for comparing documents, in one process, and of each worker of Dask: 512M, 4G."""
    accept_loss: bool = False
    """Go ahead where a source loses over 90% of its documents."""
    engine: str = option("processes", group="Other machines")
    """processes; dask, which others join by gpt3 corpus worker OUT; or a scheduler, dask://HOST:PORT."""
    host: str = "127.0.0.1"
    """Address of this machine at which the scheduler listens; beyond loopback with --tls-… only."""
    tls_cert: str | None = None
    """Certificate of this machine, a PEM file."""
    tls_key: str | None = None
    """Its key, a PEM file."""
    tls_ca: str | None = None
    """Certificate of the authority that signed those of all machines, a PEM file."""

    def errors(self) -> Iterator[str]:
        """Of sizes and shares, and of the engine."""
        from gpt3.curation.engines import engine_errors, tls_errors

        yield from size_errors(self.memory)
        if not re.fullmatch(r"\d+(\.\d+)?%", self.sample) or not 0 < float(self.sample[:-1]) <= 100:
            yield f"--sample {self.sample} must be a share such as 1%"
        files = self.tls_cert, self.tls_key, self.tls_ca
        yield from engine_errors(self.engine, self.host, self.workers, any(files))
        yield from tls_errors(*files)


@dataclass(frozen=True)
class WorkerOptions(Options):
    """Work for a gpt3 corpus --engine dask that runs elsewhere, until it ends (docs/corpus.md)."""

    out: str
    """Its --out, on a disk that both machines share."""
    workers: int | None = option(None, above=0)
    """Processes. Default: one per core."""
    memory: str = "1G"
    """Memory of each; one that takes more is started again."""
    wait: float = option(600.0, least=0)
    """Seconds to wait for the scheduler: at first, and where it is killed."""
    tls_cert: str | None = None
    """Certificate of this machine, a PEM file."""
    tls_key: str | None = None
    """Its key, a PEM file."""
    tls_ca: str | None = None
    """Certificate of the authority that signed those of all machines, a PEM file."""

    def errors(self) -> Iterator[str]:
        """Of the size and the files."""
        from gpt3.curation.engines import tls_errors

        yield from size_errors(self.memory)
        yield from tls_errors(self.tls_cert, self.tls_key, self.tls_ca)


def size_errors(memory: str) -> Iterator[str]:
    """What is wrong with ``--memory``."""
    if not re.fullmatch(r"\d+(\.\d+)?[KMGT]", memory):
        yield f"--memory {memory} must be a size such as 4G"


def size(memory: str) -> int:
    """Its bytes."""
    return int(float(memory[:-1]) * SIZES[memory[-1]])


def run(options: CorpusOptions) -> None:
    """Make the corpus, then print the funnel.

    Raises:
        InputError: see `gpt3.curation.recipe.read_recipe` and `gpt3.curation.corpus.Corpus.run`.
    """
    from gpt3.curation.corpus import MIXTURE, Corpus
    from gpt3.curation.engines import Settings, open_engine, read_tls
    from gpt3.curation.funnel import PAGE, REPORT, table
    from gpt3.curation.recipe import read_recipe
    from gpt3.tables import aligned

    recipe = read_recipe(Path(options.recipe).expanduser())
    out, memory = Path(options.out), size(options.memory)
    workers = usable_cores() if options.workers is None else options.workers
    tls = read_tls(options.tls_cert, options.tls_key, options.tls_ca)
    settings = Settings(out, workers, memory, options.engine.partition("://")[2], options.host, tls)
    opening = open_engine(options.engine, settings)
    corpus = Corpus(recipe, out, opening, memory, float(options.sample[:-1]) / 100, options.accept_loss)
    if options.plan:
        print("\n".join(aligned(corpus.plan(), left=(0, 4))))
        return
    corpus.run()
    rows = table(json.loads((out / REPORT).read_text(encoding="utf-8")))
    print("\n".join(aligned(rows, left=(0, 5))))
    print(f"report: {out / PAGE}\nnext: gpt3 train --mixture {out / MIXTURE}")


def work(options: WorkerOptions) -> None:
    """Work until the command ends.

    Raises:
        InputError: see `gpt3.curation.dask_cluster.work`.
    """
    from gpt3.curation.dask_cluster import work as work_for
    from gpt3.curation.engines import read_tls

    tls = read_tls(options.tls_cert, options.tls_key, options.tls_ca)
    work_for(Path(options.out), options.workers or usable_cores(), size(options.memory), tls, options.wait)
