"""`gpt3 generate`: prompts from where the user has them, samples to standard output or a file, messages to standard error."""

from __future__ import annotations

import dataclasses
import json
import secrets
import sys
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from gpt3 import work_folder
from gpt3.cli.numba_alone import import_numba
from gpt3.corpus.records import STANDARD_INPUT, decoded, read_bytes
from gpt3.errors import InputError
from gpt3.inference.many_prompts import SampleFile, continue_all, line_of, model_fingerprint, read_prompts
from gpt3.inference.options import GenerateOptions, SamplingOptions
from gpt3.model_folder.locate import locate
from gpt3.progress import say, write
from gpt3.tables import counted

if TYPE_CHECKING:
    from gpt3.inference.decoding import Draft
    from gpt3.inference.generation import GenerationRequest
    from gpt3.inference.language_model import LanguageModel

Chosen = TypeVar("Chosen", bound=SamplingOptions)
UNMET = "ended before the constraint was met: it left no token to choose"
FREE = ("model", "prompt", "prompt_file", "input", "output", "overwrite", "json", "stats", "threads")
"""Options that a file of samples does not depend on, or whose content it records itself."""
COMPILED_IN_BACKGROUND = "fast kernels are being compiled for this machine, once; until then it is slower"


def run(options: GenerateOptions) -> None:
    """Continue a prompt, or those of `options.input`.

    Raises:
        InputError: prompts that cannot be read, an --output of other settings, a draft with another tokenizer, and whatever
            `gpt3.load` raises.
        KeyboardInterrupt: passed on, once what there is is written.
        BrokenPipeError: passed on: nobody reads standard output any more.
    """
    options = with_constraint(options)
    if options.input is None:
        continue_one(options)
    else:
        continue_many(options, options.input)


def with_constraint(options: Chosen) -> Chosen:
    """The options with the schema of --json-schema's file, and --choices a,b as two choices.

    Raises:
        InputError: no such file, or not UTF-8.
    """
    schema, choices = options.json_schema, options.choices
    if schema is not None and not schema.lstrip().startswith("{"):
        try:
            schema = decoded(read_bytes(schema), schema)
        except InputError as error:
            raise InputError(f"--json-schema {error}") from None
    if len(choices) == 1:
        choices = choices[0].split(",")
    return dataclasses.replace(options, json_schema=schema, choices=choices)


def continue_one(options: GenerateOptions) -> None:
    """Continue a prompt on standard output.

    A single sample appears piece by piece. Of several, each is below a line that numbers it: the first live, the next as far as
    it is when its turn comes. With `options.json`, one object per line as each is complete. An interrupted sample is printed
    as far as it is (JSON: finish_reason "interrupted").
    """
    prompt = read_prompt(options)  # before the model, whose loading takes seconds

    from gpt3.inference.generation import GenerationRequest
    from gpt3.inference.speed import compiling, told_when_compiling

    model, draft_model = open_models(options)
    request = GenerationRequest(model, [prompt], options, options.batch, new_draft(options, model, draft_model))
    if not prompt:
        say("the prompt is empty: a new document begins")
    kept, dropped = request.prompt_tokens[0], request.dropped[0]
    if dropped:
        say(
            f"the prompt has {dropped + kept:,} tokens, the model's context {kept:,}: "
            f"the newest {kept:,} are kept, the oldest {dropped:,} dropped"
        )
    with closing(Printer(request, options.json)) as printer, told_when_compiling(say) as first_token:
        for sample, piece in request:
            first_token()
            printer.take(sample, piece)
    results = request.results()
    if not options.json:
        parts = [
            amount(
                sum(result.token_count for result in results),
                max(result.seconds for result in results),
                compiling() and not options.stats,
            )
        ]
        if any(result.finish_reason == "length" and not result.unmet(options) for result in results):
            parts.append(f"ended by --max-new-tokens {options.max_new_tokens}")
        if any(result.unmet(options) for result in results):
            parts.append(UNMET)
        if any(result.restarts for result in results):
            parts.append("longer than the context: the model last saw only the newer half of the text")
        tell(parts, options, request.seed)
    if options.stats:
        tell_speed(model, min(result.first_token_seconds for result in results), *request.accepted())


def continue_many(options: GenerateOptions, source: str) -> None:
    """Continue the prompts of a file; see many_prompts.py. Without --output the lines go to standard output."""

    prompts, sha256 = read_prompts(source)
    count = len(prompts) * options.num_samples
    seed = secrets.randbits(31) if options.seed is None else options.seed
    file = None
    if options.output is not None:
        if source != STANDARD_INPUT and Path(options.output).absolute() == Path(source).absolute():
            raise InputError(f"--output {options.output} is the --input itself. Choose another --output.")
        fingerprint = model_fingerprint(locate(options.model, or_starter=True))
        settings = work_folder.requested(options, FREE) | {"model": fingerprint, "prompts": sha256}
        file = SampleFile(options.output, settings, seed, options.overwrite)
        seed = file.settings["seed"]
        if file.count >= count:
            say(f"{options.output} is complete: {counted(len(prompts), 'prompt')}; nothing to do")
            return
        if file.count:
            say(f"Resuming {options.output} after {file.count:,} of {count:,} samples")

    from gpt3.inference.speed import compiling, told_when_compiling

    model, draft_model = open_models(options)
    sink: Any = file if file is not None else nullcontext()
    try:
        with sink, told_when_compiling(say) as first_token:
            tally = continue_all(
                model,
                prompts,
                dataclasses.replace(options, seed=seed),
                write=file.append if file is not None else lambda records: write("".join(map(line_of, records))),
                done=file.count if file is not None else 0,
                new_draft=lambda: new_draft(options, model, draft_model),
                first_token=first_token,
            )
    except KeyboardInterrupt:
        if file is not None:
            say(f"{file.count:,} of {count:,} samples are in {options.output}. Run the same command to resume.")
        raise
    parts = [
        f"{counted(tally.samples, 'sample')}, {amount(tally.tokens, tally.seconds, compiling() and not options.stats)}"
    ]
    if tally.at_limit:
        parts.append(f"{tally.at_limit:,} ended by --max-new-tokens {options.max_new_tokens}")
    if tally.unmet:
        parts.append(f"{tally.unmet:,} {UNMET}")
    if tally.dropped:
        parts.append(
            f"{tally.dropped:,} prompts longer than the context: their newest {model.engine.context:,} tokens are kept "
            "(see dropped_prompt_tokens)"
        )
    if tally.restarted:
        parts.append(f"{tally.restarted:,} samples longer than the context (see restarts)")
    tell(parts, options, seed)
    if options.stats and tally.first_token is not None:
        tell_speed(model, tally.first_token, tally.drafted, tally.accepted)


def open_models(options: GenerateOptions) -> tuple[LanguageModel, LanguageModel | None]:
    """The model, its engine metered if --stats asks for it, and --draft's.

    Raises:
        InputError: what `gpt3.load` raises.
    """
    import_numba()
    from gpt3.inference.language_model import load
    from gpt3.inference.speed import Meter, told_when_compiling, warm_up

    places = [locate(options.model, or_starter=True)]
    if options.model is None:
        say(f"model: {places[0]}")
    try:
        places += [] if options.draft is None else [locate(options.draft)]
        how = {"device": options.device, "dtype": options.dtype, "quantize": options.quantize}
        how["threads"] = options.threads
        model, *drafts = [load(place, **how) for place in places]
    except InputError as error:
        raise InputError(str(error).replace(f"--model {options.draft}", f"--draft {options.draft}")) from None
    # a file of samples is the same to the last byte however often it was interrupted, so one way computes all of it
    for one in (model, *drafts) if options.input is None and not options.stats else ():
        if one.engine.compile_in_background():
            say(COMPILED_IN_BACKGROUND)
    if options.stats:
        with told_when_compiling(say):
            for one in (model, *drafts):
                warm_up(one.engine)
        model.engine = Meter(model.engine)
    return model, drafts[0] if drafts else None


def new_draft(options: GenerateOptions, model: LanguageModel, draft_model: LanguageModel | None) -> Draft | None:
    """What guesses ahead in a request: the text itself, a smaller model, or nothing.

    Raises:
        InputError: the smaller model has another tokenizer.
    """
    from gpt3.inference.decoding import PromptLookup, model_draft

    if draft_model is not None:
        return model_draft(model, draft_model)
    return PromptLookup() if options.lookup else None


def read_prompt(options: GenerateOptions) -> str:
    """The text to continue: --prompt, --prompt-file, piped standard input, or "" (a new document) on a terminal.

    One line end at the end of a file or of piped text is left out: editors and echo put it there.

    Raises:
        InputError: no such file, or not UTF-8 (the byte is named).
    """
    if options.prompt is not None and options.prompt != STANDARD_INPUT:
        return options.prompt
    name = options.prompt_file or options.prompt
    if name is None and (sys.stdin is None or sys.stdin.isatty()):
        return ""
    name = name or STANDARD_INPUT
    return decoded(read_bytes(name), name).removesuffix("\n").removesuffix("\r")


def amount(tokens: int, seconds: float, compiled: bool = False) -> str:
    """Tokens, seconds, and their ratio, which means nothing where kernels were compiled in that time."""
    speed = f" ({tokens / seconds:.1f} tokens/s)" if seconds else ""
    return f"{tokens:,} tokens in {seconds:.1f} s" + (", compiling included" if compiled else speed)


def tell(parts: list[str], options: GenerateOptions, seed: int) -> None:
    """The closing message: how much, how fast, why it ended, and the seed that repeats it."""
    say("; ".join([*parts, *([f"--seed {seed} gives the same again"] if options.temperature > 0 else [])]))


def tell_speed(model: LanguageModel, first_token: float, drafted: int, accepted: int) -> None:
    """The lines of --stats."""
    from gpt3.inference.speed import Meter, report

    assert isinstance(model.engine, Meter)
    for line in report(model.engine, first_token, drafted, accepted):
        say(line)


class Printer:
    """Samples in their order. As text, one appears live and the others wait for their turn; as JSON, each when it is complete."""

    def __init__(self, request: GenerationRequest, as_json: bool) -> None:
        self._request, self._json = request, as_json
        self._waiting = [""] * request.options.num_samples
        self._now = 0  # the sample being printed
        self._line_open = False
        self._head()

    def take(self, sample: int, piece: str) -> None:
        """A piece of a sample; as text printed at once if it is that sample's turn."""
        self._waiting[sample] += piece
        self._live()
        while self._now < len(self._waiting) and self._request.finished(self._now):
            self._end()

    def close(self) -> None:
        """Print the rest, complete or not."""
        while self._now < len(self._waiting):
            self._live()
            self._end()

    def _head(self) -> None:
        if not self._json and len(self._waiting) > 1:
            write(f"--- sample {self._now + 1} of {len(self._waiting)} ---\n")

    def _live(self) -> None:
        if not self._json and (text := self._waiting[self._now]):
            write(text)
            self._waiting[self._now] = ""
            self._line_open = not text.endswith("\n")

    def _end(self) -> None:
        """End the sample whose turn it is, and begin the next."""
        if self._json:
            write(json.dumps(self._request.result(self._now).as_dict(), ensure_ascii=False) + "\n")
        elif self._line_open:
            write("\n")
        self._line_open = False
        self._now += 1
        if not self._json and self._now < len(self._waiting):
            write("\n")
            self._head()
            self._live()
