"""`gpt3 eval`: models on tasks; a table to standard output, results.json and every example to a folder."""

from __future__ import annotations

import json

from gpt3.evaluation.options import EvalOptions


def run(options: EvalOptions) -> None:
    """Score models and print the results.

    Raises:
        InputError: unknown tasks, missing or bad data, too many few-shot examples, no model.
        KeyboardInterrupt: passed on; the same command resumes.
    """
    from gpt3.contamination.overlap import measure_overlap
    from gpt3.evaluation import tasks
    from gpt3.evaluation.results import table
    from gpt3.evaluation.runner import evaluate

    if options.list_tasks:
        print(tasks.listing())
        return
    if options.lm_eval_tasks:
        print(tasks.write_lm_eval_definitions())
        return
    found = evaluate(options, measure_overlap, None if options.json else lambda found: print(table(found.results)))
    if options.json:
        print(json.dumps(found[0].as_dict() if len(found) == 1 else [one.as_dict() for one in found], indent=1))
