"""Few-shot learning on a laptop: small models whose accuracy rises with the number of examples they see, as in Figure 1.2.

    python benchmarks/few_shot_learning.py --out runs/few-shot

writes episodes, trains three sizes on them and on encyclopedia text with `gpt3 train`, evaluates words that are in no episode
with `gpt3 eval`, and draws accuracy over K. Run the same command to resume after an interruption. docs/few-shot.md has the
results.

An episode is a document with few-shot examples of one hidden task, in the format of the generated tasks
(gpt3.evaluation.generated_tasks):

    noitats = station
    evitaler = relative

A task is a form of the input (a word backwards, with signs in it, rotated, plain) and a rule from the input to the output
(the same, backwards, without signs, in capitals, ...). The input alone does not determine the rule: examples do, or the
paper's instruction, which comes first in some episodes of the tasks that are evaluated.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from gpt3.durable import replacing, write_text
from gpt3.evaluation import Source
from gpt3.evaluation.generated_tasks import INSTRUCTION, SCRAMBLING, cycled, inserted, reversed_word
from gpt3.report import svg
from gpt3.tables import markdown

SCORED = ("random-insertion", "reversed-words", "cycle-letters")
FORMATS = ("released", "paper")
"""Of the questions: without the instruction and with it."""
SHOTS = {"released": (0, 1, 2, 4, 6), "paper": (0, 1, 2, 4)}
"""Six examples after the instruction exceed the training's windows."""
LIMIT = 250
"""Questions of each task, format and K."""
EPISODES, MOST_EXAMPLES = 40_000, 10
INSTRUCTED = 0.25
"""Share of the episodes of an evaluated task that begin with the instruction."""
TRAINING = [
    *("--model", "17M", "--layers", "4", "--heads", "2", "--context", "256", "--tokenizer", "own:257"),
    *("--optimizer", "muon", "--lr", "6e-3", "--batch-tokens", "2048", "--steps", "2000"),
    *("--checkpoint-every", "400", "--keep-every", "400", "--validate-every", "400", "--validation-tokens", "20000"),
]
"""The preset with other layers and another width. A token is a byte, so that letters can be moved."""
WIDTHS = {"0.09M": 32, "0.28M": 64, "0.96M": 128}
"""Width by number of parameters."""


class Stage(NamedTuple):
    """A checkpoint that is evaluated: a size after some steps of 2,000."""

    size: str
    steps: int
    color: str = ""
    """Of its curves; without one it is in the table only."""

    def __str__(self) -> str:
        return f"{self.size}, {self.steps:,} steps"

    def checkpoint(self, out: Path) -> Path:
        return out / f"run-{self.size}" / "checkpoints" / f"step-{self.steps}"

    def scores(self, out: Path, format: str) -> Path:
        return out / "eval" / f"{self.size}-{self.steps}-{format}"


STAGES = (
    Stage("0.09M", 2000, "#9aa1ad"),
    Stage("0.28M", 800),
    Stage("0.28M", 1200),
    Stage("0.28M", 2000, "#dd6b10"),
    Stage("0.96M", 2000, "#2a63d4"),
)


class Curve(NamedTuple):
    """Accuracy of one model on one task."""

    task: str
    stage: Stage
    instructed: bool
    points: list[tuple[int, float, float]]
    """K, accuracy in per cent, its standard error."""


FORMS: dict[str, Callable[[str, random.Random], str]] = {
    "plain": lambda word, rng: word,
    "backwards": lambda word, rng: reversed_word(word, rng, ""),
    "turned": lambda word, rng: cycled(word, rng, ""),
    "signs": lambda word, rng: inserted(word, rng, rng.choice(FORMATS)),
}
"""Input made of a word."""
RULES: dict[str, Callable[[str, str], str]] = {
    "same": lambda given, word: given,
    "word": lambda given, word: word,
    "word in capitals": lambda given, word: word.upper(),
    "capitals": lambda given, word: given.upper(),
    "backwards": lambda given, word: given[::-1],
}
"""Output made of the input, or of the word it was made of."""
TASKS = {
    "plain": {"same": 1, "capitals": 1, "backwards": 1},
    "backwards": {"same": 3, "word": 2, "capitals": 1},
    "turned": {"same": 3, "word": 2, "capitals": 1},
    "signs": {"same": 3, "word": 2, "word in capitals": 1},
}
"""The hidden tasks: forms, equally likely, and their rules with weights. Repeating the input is the likeliest rule, so that a
model without examples is usually wrong."""
LONGEST = (6, 8, 15)
"""Most letters of an episode's words; equally likely, since short words are learned sooner."""


def held_out(limit: int = LIMIT) -> set[str]:
    """The words that `gpt3 eval` will use, in both formats, as sorted letters: no anagram of them is in the training text."""
    tasks = [task for task in SCRAMBLING if task.name in SCORED]
    splits = [task.split(Source(format=format)) for task in tasks for format in FORMATS]
    return {"".join(sorted(item.id)) for split in splits for item in split.test[:limit]}


def training_words(held: set[str]) -> list[str]:
    """The embedded corpus' words of 4 to 15 small letters, except those held out."""
    from gpt3.corpus.wiki import articles

    found: set[str] = set()
    for article in articles():
        found.update(re.findall(r"(?<![\w'’-])[a-z]{4,15}(?![\w'’-])", article.text))
    return sorted(word for word in found if "".join(sorted(word)) not in held)


def episodes(words: Sequence[str], count: int, seed: int = 0) -> Iterator[str]:
    """Documents with up to `MOST_EXAMPLES` examples of a hidden task each; the same for the same arguments."""
    rng = random.Random(seed)
    pools = [[word for word in words if len(word) <= longest] for longest in LONGEST]
    for _ in range(count):
        form = rng.choice(list(TASKS))
        [rule] = rng.choices(list(TASKS[form]), list(TASKS[form].values()))
        instructed = rule == "word" and rng.random() < INSTRUCTED
        text = INSTRUCTION if instructed else ""
        for word in rng.sample(rng.choice(pools), rng.randint(1, MOST_EXAMPLES)):
            given = FORMS[form](word, rng)
            text += f"{given} = {RULES[rule](given, word)}\n"
        yield text


def write_episodes(out: Path) -> Path:
    """The episodes, unless they exist, and the mixture that names them. Returns the mixture's path."""
    path, mixture = out / "episodes.jsonl", out / "mixture.yaml"
    if not path.exists():
        held = held_out()
        words = training_words(held)
        print(f"{len(words):,} words to train on, {len(held):,} held out", file=sys.stderr)
        with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
            file.writelines(json.dumps({"text": text}) + "\n" for text in episodes(words, EPISODES))
    sources = [{"name": "wiki", "data": "wiki", "weight": 20}, {"name": "episodes", "data": str(path), "weight": 80}]
    write_text(mixture, json.dumps(sources, indent=1) + "\n")  # JSON is YAML
    return mixture


def gpt3(*arguments: object) -> None:
    """Run a command of the package; its progress and errors are shown as they come."""
    done = subprocess.run([sys.executable, "-m", "gpt3", *map(str, arguments)])
    if done.returncode:
        sys.exit(done.returncode)


def train_and_evaluate(out: Path) -> None:
    """Train each size and evaluate every stage, except what is finished."""
    mixture = write_episodes(out)
    for size, width in WIDTHS.items():
        if not (out / f"run-{size}" / "model").exists():
            gpt3("train", "--mixture", mixture, *TRAINING, "--width", width, "--out", out / f"run-{size}")
    for stage in STAGES:
        for format in FORMATS:
            place = stage.scores(out, format)
            if not (place / "results.json").exists():
                asked = ["--tasks", ",".join(SCORED), "--limit", LIMIT, "--batch", 32, "--model", stage.checkpoint(out)]
                gpt3("eval", *asked, "--format", format, "--shots", ",".join(map(str, SHOTS[format])), "--out", place)


def after_an_article(out: Path) -> str:
    """A control for K = 0 without the instruction: the question after 100 bytes of an article and EOS, as in training, where
    hardly any document begins at the first position.
    """
    from gpt3.corpus.wiki import articles
    from gpt3.evaluation.results import mean
    from gpt3.inference.generation import GenerationRequest
    from gpt3.inference.language_model import load
    from gpt3.inference.options import SamplingOptions

    texts = [article.text.encode()[:100].decode(errors="ignore") for article in articles()][:LIMIT]
    rows = []
    for stage in STAGES:
        model = load(stage.checkpoint(out))
        for task in (task for task in SCRAMBLING if task.name in SCORED):
            items = task.split(Source(format="released")).test[:LIMIT]
            prompts = [
                [*model.encode_prompt(text), model.tokenizer.eos_token_id, *model.encode_prompt(item.context)]
                for text, item in zip(texts, items, strict=True)
            ]
            options = SamplingOptions(temperature=0, max_new_tokens=20, stop=["\n"])
            answers = zip(GenerationRequest(model, prompts, options, slots=32).complete(), items, strict=True)
            right = mean([float(made.text.strip() == item.completions[0].strip()) for made, item in answers])
            rows.append([task.name, str(stage), f"{100 * right.value:.1f} ± {100 * right.error:.1f}"])
    return markdown(["task", "model", "after an article"], rows)


def curves(out: Path) -> list[Curve]:
    """What was measured, in the order of `STAGES`."""
    found = []
    for stage in STAGES:
        for format in FORMATS:
            results = json.loads((stage.scores(out, format) / "results.json").read_text(encoding="utf-8"))["results"]
            for task in SCORED:
                entries = [e for e in results if e.get("task") == task and e["shots"] in SHOTS[format]]
                figures = [(entry["shots"], entry["metrics"]["acc"]) for entry in entries]
                points = [(shots, 100 * figure["value"], 100 * figure["error"]) for shots, figure in figures]
                found.append(Curve(task, stage, format == "paper", points))
    return found


def table(found: Sequence[Curve]) -> str:
    """The results in Markdown."""
    rows = []
    for curve in sorted(found, key=lambda curve: (SCORED.index(curve.task), curve.instructed)):
        cells = [f"{score:.1f} ± {error:.1f}" for _, score, error in curve.points]
        cells += [""] * (len(SHOTS["released"]) - len(cells))
        rows.append([curve.task, str(curve.stage), "yes" if curve.instructed else "no", *cells])
    return markdown(["task", "model", "instruction", *(f"K = {shots}" for shots in SHOTS["released"])], rows)


def draw(found: Sequence[Curve]) -> str:
    """Accuracy over K as an SVG, one panel per task; dashed without the instruction, as in Figure 1.2."""
    panels = []
    for task in SCORED:
        drawn = [curve for curve in found if curve.task == task and curve.stage.color]
        curves = [svg.Line("", curve.points, curve.stage.color, not curve.instructed) for curve in drawn]
        panels.append(svg.Axes(task, curves, "examples K", y_text="{:g}%".format, top=100.0))
    legend = [svg.Line(f"{stage.size} parameters", [], stage.color) for stage in STAGES if stage.color]
    legend += [
        svg.Line("instruction", [], "currentColor"),
        svg.Line("no instruction", [], "currentColor", dashed=True),
    ]
    title = "Words restored from their letters: accuracy over the number of examples in the context"
    return svg.svg(panels, title, legend, width=287, height=270)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/few-shot"), help="folder for episodes, runs, scores")
    parser.add_argument("--figure", type=Path, help="SVG file to write; default: few-shot.svg in --out")
    arguments = parser.parse_args()
    train_and_evaluate(arguments.out)
    found = curves(arguments.out)
    write_text(arguments.figure or arguments.out / "few-shot.svg", draw(found))
    print(table(found), after_an_article(arguments.out), sep="\n\n")


if __name__ == "__main__":
    main()
