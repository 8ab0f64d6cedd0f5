"""``gpt3 paper`` from top to bottom: each experiment measures, its JSON is kept, and the page is drawn from all that is there."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

from gpt3.durable import write_text
from gpt3.errors import InputError
from gpt3.evaluation.task_rows import check_folder
from gpt3.paper.experiment import Experiment, Interrupted, Measured, Work
from gpt3.paper.experiments import EXPERIMENTS, chosen
from gpt3.paper.models import models
from gpt3.paper.options import PaperOptions
from gpt3.paper.page import page, pictures
from gpt3.progress import clock, say
from gpt3.work_folder import choose_folder, locked_folder, requested, stored

PAGE, SETTINGS = "paper.html", "settings.json"
FREE = ("figures", "model", "out", "threads", "list_experiments")
"""Options that may change when a work is resumed."""


def run_experiments(options: PaperOptions) -> int:
    """Run the experiments that are chosen and not finished, then draw the page. Returns the exit code.

    Raises:
        InputError: an unknown figure or model, bad data, a folder of other work.
    """
    asked, settings = chosen(options.figures), requested(options, FREE)
    out, _ = choose_folder(
        options.out,
        Path(options.out),
        settings,
        before=lambda folder: stored(folder / SETTINGS),
        finished=lambda _: False,
    )
    if options.data_dir is not None:
        check_folder(options.data_dir)
    with locked_folder(out):
        models(options.model, {})  # a name without a model is refused before anything runs
        write_text(out / SETTINGS, json.dumps(settings, indent=1) + "\n")
        try:
            for number, one in enumerate(asked, 1):
                say(f"{number}/{len(asked)}: {one.figure}, {one.title}")
                measure(one, options, out, asked)
                found = results(out)
                write_text(out / PAGE, page(found))
                for name, picture in pictures(one.figure, found[one.figure]).items():
                    write_text(out / name, picture)
        except (Interrupted, KeyboardInterrupt) as ended:
            say(f"Saved to {out}. Run the same command to resume.")
            return ended.exit_code if isinstance(ended, Interrupted) else 130
    print(out / PAGE)
    return 0


def measure(one: Experiment, options: PaperOptions, out: Path, asked: Sequence[Experiment]) -> None:
    """Run one experiment and keep its JSON, unless it is finished for these models: of others it asks the new ones."""
    earlier = {figure: found for figure, found in results(out).items() if figure != one.figure}
    given = models(options.model, earlier)
    names = [[model.name, str(model.place), model.written] for model in given]
    path = out / f"{one.figure}.json"
    kept = stored(path)
    if kept is not None and not one.again and kept.get("asked") == names:
        say(f"  already measured: {path}")
        return
    whole = sum(each.share for each in asked) or 1.0
    began = time.monotonic()
    work = Work(
        out / one.figure, given, options.data, options.minutes * one.share / whole, options.limit, options.seed,
        options.threads, options.data_dir, int(options.article_words),
    )  # fmt: skip
    found = one.measure(work)
    content = {"figure": one.figure, "asked": names, "seconds": round(time.monotonic() - began, 1), **found}
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    say(f"  measured in {clock(time.monotonic() - began)}: {path}")


def results(out: Path) -> dict[str, Measured]:
    """What was measured in `out`, by figure, in the order of the paper's experiments.

    Raises:
        InputError: a file that is no such result.
    """
    found = {}
    for figure in EXPERIMENTS:
        path = out / f"{figure}.json"
        if path.is_file():
            content = stored(path)
            if content is None or content.get("figure") != figure:
                raise InputError(f"{path} is no result of gpt3 paper. Remove it, or choose another --out.")
            found[figure] = content
    return found
