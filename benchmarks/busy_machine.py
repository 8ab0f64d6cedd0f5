"""Speed on a machine that is also used for other things: one thread, all cores, and ``--threads auto``.

    python benchmarks/busy_machine.py [--rounds 3] [--seconds 6] [--busy 0 1 2] [--work train|generate|score]

It takes about five minutes. Next to 0, 1 and 2 busy processes, one thread, all cores and `auto` work in turn, three rounds of
each: they train the demo, or generate texts or score one with 17M in fp32. The server generates, an evaluation does both. The
table has tokens/s: medians with fixed threads, and the mean of one minute with `auto`. The minute begins as a run does
on whose machine other processes begin to compute at that moment: with all cores, and nothing known of them. A busy process is a
loop of Python that never waits. Run it on a machine that does nothing else, and without OMP_NUM_THREADS.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import torch

from gpt3.adaptive_threads import AUTO, AdaptiveThreads, set_threads
from gpt3.device import usable_cores
from gpt3.inference.engine import Engine
from gpt3.inference.language_model import LanguageModel
from gpt3.ladder.presets import preset
from gpt3.model import GPT3ForCausalLM
from gpt3.tables import aligned
from gpt3.tokenizer.gpt2 import gpt2_tokenizer
from gpt3.training.data import open_on_every_rank
from gpt3.training.distributed import ALONE, agree_on_compute
from gpt3.training.model_building import build_model
from gpt3.training.options import TrainOptions
from gpt3.training.plan import make_plan, shape_of
from gpt3.training.trainer import Trainer

Work = Callable[[AdaptiveThreads | None], int]
"""A piece of the work, of less than a second; returns its tokens."""
TEXT_TOKENS = 128
"""Generated, or scored, in a piece."""
TOKENS = 3_000_000
"""Of the planned run, about the demo's; its batch is the demo's."""


@contextlib.contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Other processes that compute without a pause."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def demo_trainer() -> Trainer:
    """The demo's trainer at its first step."""
    options = TrainOptions(threads="1")
    data = open_on_every_rank(options, shape_of(options), ALONE.agree)
    plan = make_plan(options, data.tokens, TOKENS)
    compute, end_of_text = agree_on_compute(options, ALONE), data.shards[0].end_of_text
    model, forward = build_model(options, shape_of(options), end_of_text, compute, ALONE)
    model.train()
    return Trainer(options, plan, model, forward, data.mixture(plan.context, options.seed), end_of_text, compute, ALONE)


def training() -> Work:
    """Steps of the demo's training, the first ones again and again."""
    trainer = demo_trainer()

    def step(adaptive: AdaptiveThreads | None) -> int:
        trainer.step %= 1000
        before = time.perf_counter()
        tokens: int = trainer.one_step()["batch_tokens"]
        if adaptive is not None:
            adaptive.after(time.perf_counter() - before, trainer.plan.batch_tokens)
        return tokens

    return step


def inference(generate: bool) -> Work:
    """Texts of a random 17M: generated greedily one by one, or scored."""
    tokenizer = gpt2_tokenizer()
    model = LanguageModel(GPT3ForCausalLM(preset("17M").config()).eval(), tokenizer)
    text = tokenizer.decode(range(1000, 1000 + TEXT_TOKENS))

    def piece(adaptive: AdaptiveThreads | None) -> int:
        Engine.adaptive = adaptive  # it looks after each forward
        if not generate:
            return model.score(text).count
        return len(model.complete("The sea", max_new_tokens=TEXT_TOKENS, temperature=0)[0].tokens)

    return piece


def speed(work: Work, adaptive: AdaptiveThreads | None, seconds: float) -> float:
    """Tokens/s of pieces for this long."""
    tokens, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        tokens += work(adaptive)
    return tokens / elapsed


def measure(work: Work, busy: int, rounds: int, seconds: float) -> list[str]:
    """A row of the table."""
    fixed: dict[str, list[float]] = {"1": [], str(usable_cores()): []}
    autos, adaptive = [], None
    with busy_processes(busy):
        for number in range(rounds):
            for threads, speeds in fixed.items():
                set_threads(threads)
                speeds.append(speed(work, None, seconds))
            if adaptive is None:
                adaptive = set_threads(AUTO)  # it knows nothing yet of the busy processes
            else:
                adaptive.switch(adaptive.threads)
            autos.append(speed(work, adaptive, 60 / rounds))
            shown = [f"threads {threads} {speeds[-1]:,.0f}" for threads, speeds in fixed.items()]
            print(f"{busy} busy, round {number + 1}: {', '.join(shown)}, auto {autos[-1]:,.0f}", flush=True)
    medians, auto = [statistics.median(speeds) for speeds in fixed.values()], statistics.fmean(autos)
    return [str(busy), *(f"{median:,.0f}" for median in medians), f"{auto:,.0f}", f"{auto / max(medians):.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6, help="of a measurement with fixed threads")
    parser.add_argument("--busy", type=int, nargs="*", default=[0, 1, 2], help="numbers of busy processes")
    parser.add_argument("--work", choices=("train", "generate", "score"), default="train")
    arguments = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS"):
        sys.exit("OMP_NUM_THREADS fixes the number of threads; unset it")
    most = usable_cores()
    work = training() if arguments.work == "train" else inference(arguments.work == "generate")
    for threads in (1, most):  # warm up
        torch.set_num_threads(threads)
        speed(work, None, 2)
    rows = [["busy processes", "threads 1", f"threads {most}", "auto", "auto / better of the two"]]
    rows += [measure(work, busy, arguments.rounds, arguments.seconds) for busy in arguments.busy]
    print("\n".join(aligned(rows, left=())))


if __name__ == "__main__":
    main()
