"""`gpt3 paper`: the paper's experiments; the page's place to standard output, progress to standard error."""

from __future__ import annotations

from gpt3.paper.options import PaperOptions


def run(options: PaperOptions) -> int:
    """Run the experiments, or list them. Returns the exit code.

    Raises:
        InputError: see `gpt3.paper.run.run_experiments`.
    """
    from gpt3.paper.experiments import chosen
    from gpt3.paper.run import run_experiments

    if options.list_experiments:
        for one in chosen(options.figures):
            print(f"{one.figure:<8}{one.title}")
        return 0
    return run_experiments(options)
