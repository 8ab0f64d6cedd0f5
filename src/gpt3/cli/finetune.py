"""`gpt3 finetune`: train, then say what was made and what to do next; or show samples."""

from __future__ import annotations

import shlex
import textwrap
from pathlib import Path

from gpt3.finetuning.options import FinetuneOptions
from gpt3.model_folder.locate import locate
from gpt3.progress import say
from gpt3.tokenizer.loading import load_tokenizer

LONGEST_QUESTION = 100
"""Characters of the question that is proposed next."""


def run(options: FinetuneOptions) -> int:
    """Fine-tune a model and print its evaluation, or print samples with ``--show``.

    Raises:
        InputError: see `gpt3.finetuning.tuning.finetune`.
    """
    if options.show is not None:
        show(options, options.show)
        return 0
    from gpt3.finetuning.tuning import ADAPTER, MODEL, finetune

    result = finetune(options)
    if not result.finished:
        how = "the same command" if options.resume == "auto" else "the same command without --resume"
        say(f"Saved to {result.folder} at step {result.steps:,}. Run {how} to resume.")
        return result.exit_code
    made = result.folder / (MODEL if options.merge or not options.lora else ADAPTER)
    print(f"\nmodel: {made}   ({result.seconds:.0f} s)")
    for name, before, after in result.held_out():
        print(f"held-out {name}: {before:.3f} -> {after:.3f}")
    print(f"report: {result.folder / 'report.html'}")
    question = textwrap.shorten(result.question, LONGEST_QUESTION, placeholder=" …")
    print(f"try next: gpt3 chat --model {shlex.quote(str(result.folder))}")
    print(f"and ask: {question}")
    return 0


def show(options: FinetuneOptions, count: int) -> None:
    """Print the report of the data and its first `count` samples as they are trained."""
    from gpt3.finetuning.gathering import gather
    from gpt3.finetuning.samples import IGNORED, learned_template, samples_for, shown
    from gpt3.model_folder.load import load_transformers

    place = locate(options.model)
    tokenizer = load_tokenizer(place) if isinstance(place, Path) else load_transformers(place)[1]
    template, _, _ = learned_template(options.chat_template, tokenizer)
    collection = gather(options)
    for report in collection.reports:
        print(report.line())
    columns = samples_for(options, collection.train[:count], template, options.context or 10**9).columns
    if options.method == "dpo":
        for prompt, chosen, rejected in zip(*columns.values(), strict=True):
            for name, answer in (("chosen", chosen), ("rejected", rejected)):
                labels = [IGNORED] * len(prompt) + answer
                print(f"--- {name} ---\n{shown(template, prompt + answer, labels)}")
        return
    for number, (ids, labels) in enumerate(zip(*columns.values(), strict=True), 1):
        print(f"--- sample {number}: {len(ids)} tokens, {sum(label >= 0 for label in labels)} trained ---")
        print(shown(template, ids, labels))
