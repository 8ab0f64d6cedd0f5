"""`gpt3 generate`: prompts from where the user has them, samples to standard output or a file, notes to standard error."""

from __future__ import annotations

import dataclasses
import json
import secrets
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt3.errors import InputError
from gpt3.inference.options import GenerateOptions, SamplingOptions
from gpt3.inference.sample_printers import JsonPrinter, TextPrinter
from gpt3.inference.standard_streams import STANDARD_INPUT, read_bytes, speak_utf8, write
from gpt3.progress import say

if TYPE_CHECKING:
    from gpt3.inference.decoding import Draft
    from gpt3.inference.generation import GenerationRequest
    from gpt3.inference.language_model import LanguageModel
    from gpt3.inference.many_prompts import Tally
    from gpt3.inference.prompt_list import PromptList

DECIDING = ("device", "dtype", "quantize", "draft", "lookup", "batch")
"""Options, besides the sampling ones, that a file of samples depends on, if only by the last digits of a logit."""


def run(options: GenerateOptions) -> None:
    """Continue a prompt, or those of `options.input`.

    Raises:
        InputError: prompts that cannot be read, an --output of other settings, a draft with another tokenizer, and whatever
            `gpt3.load` raises.
        KeyboardInterrupt: passed on, once what there is is written.
        BrokenPipeError: passed on: nobody reads standard output any more.
    """
    speak_utf8(sys.stdout)
    if options.input is None:
        continue_one(options)
    else:
        continue_many(options)


def continue_one(options: GenerateOptions) -> None:
    """Continue a prompt and write to standard output.

    A single sample is written piece by piece. Of several, each stands below a line that numbers it: the first live, the
    next as far as it has come when its turn is there. With `options.json`, one object a line as each is complete. An interrupted
    sample is written as far as it is (JSON: finish_reason "interrupted").
    """
    prompt = read_prompt(options)  # before the model, whose loading takes seconds

    from gpt3.inference.compilation import told_when_compiling
    from gpt3.inference.generation import GenerationRequest

    model, draft_model = open_models(options)
    job = GenerationRequest(model, [prompt], options, options.batch, new_draft(options, model, draft_model))
    if not prompt:
        say("the prompt is empty: a new document begins")
    kept, dropped = job.prompt_tokens[0], job.dropped[0]
    if dropped:
        say(
            f"the prompt has {dropped + kept:,} tokens, the model's context {kept:,}: "
            f"the newest {kept:,} are kept, the oldest {dropped:,} dropped"
        )
    printer = JsonPrinter(job) if options.json else TextPrinter(job)
    try:
        with told_when_compiling(say) as first_token:
            for sample, piece in job:
                first_token()
                printer.take(sample, piece)
    except KeyboardInterrupt:
        printer.close()
        raise
    printer.close()
    if not options.json:
        say(summary(job))
    if options.stats:
        tell_speed(model, min(result.first_token_seconds for result in job.results()), *job.accepted())


def continue_many(options: GenerateOptions) -> None:
    """Continue the prompts of a file; see many_prompts.py. Without --output the lines go to standard output."""
    from gpt3.inference.prompt_list import read_prompts

    assert options.input is not None
    prompts = read_prompts(options.input)
    count = len(prompts.prompts) * options.num_samples
    seed = secrets.randbits(31) if options.seed is None else options.seed
    file = None
    if options.output is not None:
        from gpt3.inference.sample_file import SampleFile

        if options.input != STANDARD_INPUT and Path(options.output).absolute() == Path(options.input).absolute():
            raise InputError(f"--output {options.output} is the --input itself; choose another --output")
        file = SampleFile(options.output, settings_of(options, prompts), seed, options.overwrite)
        seed = file.settings["seed"]
        if file.count >= count:
            say(f"{options.output} is complete: {len(prompts.prompts):,} prompts; nothing to do")
            return
        if file.count:
            say(f"going on with {options.output} after {file.count:,} of {count:,} samples")

    from gpt3.inference.compilation import told_when_compiling
    from gpt3.inference.many_prompts import continue_all
    from gpt3.inference.sample_file import line_of

    model, draft_model = open_models(options)
    sink: Any = file if file is not None else nullcontext()
    try:
        with sink, told_when_compiling(say) as first_token:
            tally = continue_all(
                model,
                prompts.prompts,
                dataclasses.replace(options, seed=seed),
                batch=options.batch,
                write=file.append if file is not None else lambda records: write("".join(map(line_of, records))),
                written=file.count if file is not None else 0,
                new_draft=lambda: new_draft(options, model, draft_model),
                new_job=getattr(model.engine, "pause", lambda: None),
                first_token=first_token,
            )
    except KeyboardInterrupt:
        if file is not None:
            say(f"{file.count:,} of {count:,} samples are in {options.output}; the same command goes on from there")
        raise
    say(summary_of_many(tally, model, options, seed))
    if options.stats and tally.first_token is not None:
        tell_speed(model, tally.first_token, tally.drafted, tally.accepted)


def open_models(options: GenerateOptions) -> tuple[LanguageModel, LanguageModel | None]:
    """The model, its engine metered if --stats asks for it, and --draft's.

    Raises:
        InputError: what `gpt3.load` raises; a draft with another tokenizer.
    """
    from gpt3.inference.compilation import told_when_compiling
    from gpt3.inference.language_model import load
    from gpt3.model_folder.locate import locate

    place = locate(options.model)
    if options.model is None:
        say(f"model: {place}")
    draft_place = None if options.draft is None else named("--draft", locate, options.draft)
    model = load(place, device=options.device, dtype=options.dtype, quantize=options.quantize)
    draft = None
    if draft_place is not None:
        draft = named(
            "--draft", load, draft_place, device=options.device, dtype=options.dtype, quantize=options.quantize
        )
    if options.stats:
        from gpt3.inference.speed import Meter, warm_up

        with told_when_compiling(say):
            for engine in [model.engine, *([draft.engine] if draft is not None else [])]:
                warm_up(engine)
        model.engine = Meter(model.engine)
    return model, draft


def named(option: str, function: Any, *arguments: Any, **keywords: Any) -> Any:
    """What `function` returns; a model it complains about is called by the option that named it."""
    try:
        return function(*arguments, **keywords)
    except InputError as error:
        raise InputError(str(error).replace("--model", option)) from None


def new_draft(options: GenerateOptions, model: LanguageModel, draft_model: LanguageModel | None) -> Draft | None:
    """What guesses ahead in a job: the text itself, a smaller model, or nothing.

    Raises:
        InputError: the smaller model has another tokenizer.
    """
    from gpt3.inference.speculation import PromptLookup, model_draft

    if draft_model is not None:
        return model_draft(model, draft_model)
    return PromptLookup() if options.lookup else None


def settings_of(options: GenerateOptions, prompts: PromptList) -> dict[str, Any]:
    """What decides the content of --output. A seed that is not given is None."""
    from gpt3.inference.sample_file import model_fingerprint
    from gpt3.model_folder.locate import locate

    sampling = {field.name: getattr(options, field.name) for field in dataclasses.fields(SamplingOptions)}
    settings = {
        "model": model_fingerprint(locate(options.model)),
        "prompts": prompts.sha256,
        **sampling,
        **{name: getattr(options, name) for name in DECIDING},
    }
    stored: dict[str, Any] = json.loads(
        json.dumps(settings)
    )  # keys of logit_bias become texts, as they are in the file
    return stored


def read_prompt(options: GenerateOptions) -> str:
    """The text to continue: --prompt, --prompt-file, piped standard input, or "" (a new document) on a terminal.

    One line end at the end of a file or of piped text is left out: editors and echo put it there.

    Raises:
        InputError: no such file, or not UTF-8 (the byte is named).
    """
    if options.prompt is not None and options.prompt != STANDARD_INPUT:
        return options.prompt
    if options.prompt_file is not None and options.prompt_file != STANDARD_INPUT:
        name = options.prompt_file
        try:
            content = Path(name).read_bytes()
        except OSError as error:
            raise InputError(f"--prompt-file {name} cannot be read ({error.strerror}); give a text file") from None
    else:
        name = "standard input"
        asked = STANDARD_INPUT in (options.prompt, options.prompt_file)
        if sys.stdin is None or (sys.stdin.isatty() and not asked):
            return ""
        content = read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not UTF-8 at byte {error.start}; convert it to UTF-8") from None
    return text.removesuffix("\n").removesuffix("\r")


def summary(job: GenerationRequest) -> str:
    """The closing note: how much, how fast, why it ended, and the seed that gives it again."""
    results = job.results()
    tokens = sum(result.token_count for result in results)
    seconds = max(result.seconds for result in results)
    parts = [amount(tokens, seconds)]
    if any(result.finish_reason == "length" for result in results):
        parts.append(f"ended by --max-new-tokens {job.options.max_new_tokens}")
    if any(result.restarts for result in results):
        parts.append("longer than the context: the model last saw only the newer half of the text")
    if job.options.temperature > 0:
        parts.append(f"--seed {job.seed} gives the same again")
    return "; ".join(parts)


def summary_of_many(tally: Tally, model: LanguageModel, options: GenerateOptions, seed: int) -> str:
    """The closing note of many prompts."""
    parts = [f"{tally.samples:,} samples, {amount(tally.tokens, tally.seconds)}"]
    if tally.lengthened:
        parts.append(f"{tally.lengthened:,} ended by --max-new-tokens {options.max_new_tokens}")
    if tally.dropped:
        parts.append(
            f"{tally.dropped:,} prompts longer than the context: their newest {model.engine.context:,} tokens are kept "
            "(see dropped_prompt_tokens)"
        )
    if tally.restarted:
        parts.append(f"{tally.restarted:,} samples longer than the context (see restarts)")
    if options.temperature > 0:
        parts.append(f"--seed {seed} gives the same again")
    return "; ".join(parts)


def amount(tokens: int, seconds: float) -> str:
    """Tokens, seconds, and their ratio."""
    return f"{tokens:,} tokens in {seconds:.1f} s" + (f" ({tokens / seconds:.1f} tokens/s)" if seconds else "")


def tell_speed(model: LanguageModel, first_token: float, drafted: int, accepted: int) -> None:
    """The lines of --stats."""
    from gpt3.inference.speed import Meter, report

    assert isinstance(model.engine, Meter)
    for line in report(model.engine, first_token, drafted, accepted):
        say(line)
