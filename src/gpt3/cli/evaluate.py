"""`gpt3 eval`: models on tasks; a table to standard output, results.json and every example to a folder."""

from __future__ import annotations

import json
from functools import partial

from gpt3.evaluation.options import EvalOptions


def run(options: EvalOptions) -> None:
    """Score models and print the results.

    Raises:
        InputError: unknown tasks, missing or bad data, too many few-shot examples, no model.
        KeyboardInterrupt: passed on; the same command resumes.
    """
    from gpt3.contamination.overlap import measure_overlap
    from gpt3.evaluation import tasks
    from gpt3.evaluation.comparison import Comparison
    from gpt3.evaluation.report_card import card
    from gpt3.evaluation.results import Evaluation, table
    from gpt3.evaluation.runner import evaluate
    from gpt3.finetuning.training_text import parts_of_tuned
    from gpt3.model_folder.locate import name_of

    def show(found: Evaluation | Comparison) -> None:
        print(table(found.results) if isinstance(found, Evaluation) else found)
        if isinstance(found, Evaluation) and (shown := card(name_of(found.model), found.parameters, found.results)):
            print(f"\n{shown}")

    if options.list_tasks:
        print(tasks.listing())
        return
    if options.lm_eval_tasks:
        print(tasks.write_lm_eval_definitions())
        return
    overlap = partial(measure_overlap, tuned=parts_of_tuned)
    found = evaluate(options, overlap, None if options.json else show)
    if options.json:
        print(json.dumps(found[0].as_dict() if len(found) == 1 else [one.as_dict() for one in found], indent=1))
