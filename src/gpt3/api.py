"""The commands as Python functions, typed from their options: ``gpt3.train(steps=3)`` takes what ``gpt3 train --steps 3`` takes.

Each function's signature is that of its options dataclass, so that an editor completes the options and mypy checks them,
with no second list of them. Errors are `gpt3.errors.InputError` with the command's text.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from gpt3.cli.serve import run
from gpt3.evaluation.options import EvalOptions
from gpt3.finetuning.options import FinetuneOptions
from gpt3.options import check_names
from gpt3.serving.options import ServeOptions
from gpt3.training.options import TrainOptions

if TYPE_CHECKING:
    from gpt3.evaluation.results import Evaluation
    from gpt3.finetuning.tuning import FinetuneResult
    from gpt3.training.evaluator import Evaluator
    from gpt3.training.run_folder import RunResult

P = ParamSpec("P")
OptionsT = TypeVar("OptionsT")
R = TypeVar("R")


def _with_options_of(options: Callable[P, OptionsT]) -> Callable[[Callable[[OptionsT], R]], Callable[P, R]]:
    """Turn a function of an options object into one of its fields, given by name."""
    names = {field.name for field in dataclasses.fields(options)}  # type: ignore[arg-type]
    fields_of = inspect.signature(options).parameters.values()

    def decorate(run: Callable[..., R]) -> Callable[P, R]:
        @functools.wraps(run)
        def function(*args: P.args, **fields: P.kwargs) -> R:
            if args and isinstance(args[0], options):  # type: ignore[arg-type]  # made before
                return run(*args, **fields)
            further = {name: fields.pop(name) for name in list(fields) if name in further_names}
            check_names(options, fields)  # type: ignore[arg-type]
            return run(options(*args, **fields), **further)

        whole = inspect.signature(run)
        further_names = set(whole.parameters) - names - {"options"}
        others = [whole.parameters[name].replace(kind=inspect.Parameter.KEYWORD_ONLY) for name in sorted(further_names)]
        # what help() and a notebook show and complete
        function.__signature__ = whole.replace(parameters=[*fields_of, *others])  # type: ignore[attr-defined]
        return function

    return decorate


@_with_options_of(TrainOptions)
def train(options: TrainOptions, evaluators: Sequence[Evaluator] = ()) -> RunResult:
    """Pretrain a model, as ``gpt3 train`` does. Under torchrun every process calls it.

    `evaluators` are further measurements while training (gpt3.training.evaluator.Evaluator); typed code passes them to
    `gpt3.training.run.train`, since they are no option of the command.
    """
    from gpt3.training.run import train as run

    return run(options, evaluators=evaluators)


@_with_options_of(EvalOptions)
def evaluate(options: EvalOptions) -> list[Evaluation]:
    """Score models on tasks, as ``gpt3 eval`` does; one result per model, whose repr is the table."""
    from gpt3.contamination.overlap import measure_overlap
    from gpt3.evaluation.runner import evaluate as run
    from gpt3.finetuning.training_text import parts_of_tuned

    return run(options, functools.partial(measure_overlap, tuned=parts_of_tuned))


@_with_options_of(FinetuneOptions)
def finetune(options: FinetuneOptions) -> FinetuneResult:
    """Fine-tune a model, as ``gpt3 finetune`` does."""
    from gpt3.finetuning.tuning import finetune as run

    return run(options)


@_with_options_of(ServeOptions)
def serve(options: ServeOptions) -> None:
    """Serve models over HTTP, as ``gpt3 serve`` does, until SIGINT or SIGTERM."""

    run(options)
