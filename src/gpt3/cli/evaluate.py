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
    from gpt3.evaluation.runner import evaluate_each

    if options.list_tasks:
        print(tasks.listing())
        return
    if options.lm_eval_tasks:
        print(tasks.write_lm_eval_definitions())
        return
    found = []
    for evaluation in evaluate_each(options, measure_overlap):
        found.append(evaluation.as_dict())
        if not options.json:
            print(table(evaluation.results))
    if options.json:
        print(json.dumps(found[0] if len(found) == 1 else found, indent=1))
