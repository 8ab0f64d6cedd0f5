"""Few-shot learning on a laptop: small models whose accuracy rises with the solved examples they are shown, as in Figure 1.2.

    python benchmarks/few_shot_learning.py --out runs/few-shot

writes episodes, trains three sizes on them and on encyclopedia text with `gpt3 train`, asks `gpt3 eval` about words that stand in
no episode, and draws accuracy over K. The same command goes on where a killed one stopped. docs/few-shot.md has what came out.

An episode is a document of solved examples of one hidden task, in the format of gpt3.evaluation.generated_tasks:

    noitats = station
    evitaler = relative

A task is a form of the input (a word backwards, with signs in it, turned round, plain) and a rule that makes the output of the
input (the same again, backwards, without signs, in capitals, ...). No input tells the rule: examples do, or the paper's
instruction, which stands above a part of the episodes of the tasks that `gpt3 eval` asks.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpt3.durable import replacing, write_text
from gpt3.evaluation.generated_tasks import INSTRUCTION, SCRAMBLING, cycled, inserted, reversed_word
from gpt3.evaluation.items import Source

DASHED = ' stroke-dasharray="5 4"'
SCORED = ("random-insertion", "reversed-words", "cycle-letters")
FORMATS = ("released", "paper")
"""Of the questions: without the instruction and with it."""
SHOTS = {"released": (0, 1, 2, 4, 6), "paper": (0, 1, 2, 4)}
"""Six examples below the instruction are longer than the training's windows."""
LIMIT = 250
"""Questions of each task, format and K."""
EPISODES, MOST_EXAMPLES = 40_000, 10
INSTRUCTED = 0.25
"""Share of the episodes of a scored task with the instruction above."""
TRAINING = [
    *("--model", "17M", "--layers", "4", "--heads", "2", "--context", "256", "--tokenizer", "own:257"),
    *("--optimizer", "muon", "--lr", "6e-3", "--batch-tokens", "2048", "--steps", "2000"),
    *("--checkpoint-every", "400", "--keep-every", "400", "--validate-every", "400", "--validation-tokens", "20000"),
]
"""The preset with other layers and another width. A token is a byte, so that letters can be moved."""


@dataclass(frozen=True)
class Stage:
    """A model that is asked: a size after so many steps."""

    size: str
    steps: int
    colour: str = ""
    """Of its curves; without one it is in the table alone."""

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.size}, {self.steps:,} steps"


WIDTHS = {"0.09M": 32, "0.28M": 64, "0.96M": 128}
"""Sizes, as parameters, and their widths."""
STAGES = (
    Stage("0.09M", 2000, "#9aa1ad"),
    Stage("0.28M", 800),
    Stage("0.28M", 1200),
    Stage("0.28M", 2000, "#dd6b10"),
    Stage("0.96M", 2000, "#2a63d4"),
)
"""2,000 steps are the end of training."""


@dataclass(frozen=True)
class Curve:
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
"""Output made of the input, or of the word behind it."""
TASKS = {
    "plain": {"same": 1, "capitals": 1, "backwards": 1},
    "backwards": {"same": 3, "word": 2, "capitals": 1},
    "turned": {"same": 3, "word": 2, "capitals": 1},
    "signs": {"same": 3, "word": 2, "word in capitals": 1},
}
"""The hidden tasks: forms, drawn alike, and their rules with weights. That the input comes back as it is is likeliest, so a model
without examples is best advised to repeat it."""
LONGEST = (6, 8, 15)
"""Letters that an episode's words have at most; drawn alike, since short words teach sooner."""


def held_out(limit: int = LIMIT) -> set[str]:
    """The words that `gpt3 eval` will ask, in both formats, as their letters in order: no anagram of them is trained on."""
    tasks = [task for task in SCRAMBLING if task.name in SCORED]
    splits = [task.split(Source(format=format)) for task in tasks for format in FORMATS]
    return {"".join(sorted(item.id)) for split in splits for item in split.test[:limit]}


def training_words(held: set[str]) -> list[str]:
    """The embedded corpus' words of 4 to 15 small letters, but for those held out."""
    from gpt3.corpus.wiki import articles

    found: set[str] = set()
    for article in articles():
        found.update(re.findall(r"(?<![\w'’-])[a-z]{4,15}(?![\w'’-])", article.text))
    return sorted(word for word in found if "".join(sorted(word)) not in held)


def episodes(words: Sequence[str], count: int, seed: int = 0) -> Iterator[str]:
    """Documents of up to `MOST_EXAMPLES` solved examples of a hidden task each; the same for the same arguments."""
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
    """The episodes' file and the mixture that names it, where they are not there yet."""
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
    """Run a command of the package; its progress and its faults are shown as they come."""
    done = subprocess.run([sys.executable, "-m", "gpt3", *map(str, arguments)])
    if done.returncode:
        sys.exit(done.returncode)


def run_of(out: Path, size: str) -> Path:
    """The folder of a size's training."""
    return out / f"run-{size}"


def train(out: Path, mixture: Path) -> None:
    """Train each size, or go on with its run, unless it is finished."""
    for size, width in WIDTHS.items():
        if not (run_of(out, size) / "model").exists():
            gpt3("train", "--mixture", mixture, *TRAINING, "--width", width, "--out", run_of(out, size))


def model_of(out: Path, stage: Stage) -> Path:
    """The checkpoint that is asked."""
    return run_of(out, stage.size) / "checkpoints" / f"step-{stage.steps}"


def scores_of(out: Path, stage: Stage, format: str) -> Path:
    """Where its scores lie."""
    return out / "eval" / f"{stage.size}-{stage.steps}-{format}"


def evaluate(out: Path) -> None:
    """Ask every stage all questions, or those that are missing."""
    asked = ["--tasks", ",".join(SCORED), "--limit", LIMIT, "--batch", 32]
    for stage in STAGES:
        for format in FORMATS:
            place = scores_of(out, stage, format)
            if not (place / "results.json").exists():
                shots = ",".join(map(str, SHOTS[format]))
                what = ["--model", model_of(out, stage), "--format", format, "--shots", shots]
                gpt3("eval", *asked, *what, "--out", place)


def behind_an_article(out: Path) -> str:
    """A control of K = 0 without the instruction: the question behind 100 bytes of an article and end-of-text, as documents lie
    in training, where hardly any begins at the first position.
    """
    from gpt3.corpus.wiki import articles
    from gpt3.evaluation.results import mean
    from gpt3.inference.generation import GenerationRequest
    from gpt3.inference.language_model import load
    from gpt3.inference.options import SamplingOptions

    texts = [article.text.encode()[:100].decode(errors="ignore") for article in articles()][:LIMIT]
    lines = ["| task | model | behind an article |", "|---|---|---|"]
    for stage in STAGES:
        model = load(model_of(out, stage))
        for task in (task for task in SCRAMBLING if task.name in SCORED):
            items = task.split(Source(format="released")).test[:LIMIT]
            prompts = [
                [*model.encode_prompt(text), model.tokenizer.eos_token_id, *model.encode_prompt(item.context)]
                for text, item in zip(texts, items, strict=True)
            ]
            options = SamplingOptions(temperature=0, max_new_tokens=20, stop=["\n"])
            answers = zip(GenerationRequest(model, prompts, options, slots=32).complete(), items, strict=True)
            right = mean([float(made.text.strip() == item.completions[0].strip()) for made, item in answers])
            lines.append(f"| {task.name} | {stage.name} | {100 * right.value:.1f} ± {100 * right.error:.1f} |")
    return "\n".join(lines)


def curves(out: Path) -> list[Curve]:
    """What was measured, in the order of `STAGES`."""
    found = []
    for stage in STAGES:
        for format in FORMATS:
            results = json.loads((scores_of(out, stage, format) / "results.json").read_text(encoding="utf-8"))
            for task in SCORED:
                entries = [entry for entry in results["results"] if entry.get("task") == task]
                figures = [
                    (entry["shots"], entry["metrics"]["acc"]) for entry in entries if entry["shots"] in SHOTS[format]
                ]
                points = [(shots, 100 * figure["value"], 100 * figure["error"]) for shots, figure in figures]
                found.append(Curve(task, stage, format == "paper", points))
    return found


def table(found: Sequence[Curve]) -> str:
    """The figures in Markdown."""
    most = SHOTS["released"]
    lines = [
        f"| task | model | instruction | {' | '.join(f'K = {shots}' for shots in most)} |",
        "|---" * (3 + len(most)) + "|",
    ]
    for curve in sorted(found, key=lambda curve: (SCORED.index(curve.task), curve.instructed)):
        scores = " | ".join(
            [f"{score:.1f} ± {error:.1f}" for _, score, error in curve.points] + [""] * (len(most) - len(curve.points))
        )
        lines.append(f"| {curve.task} | {curve.stage.name} | {'yes' if curve.instructed else 'no'} | {scores} |")
    return "\n".join(lines)


def draw(found: Sequence[Curve]) -> str:
    """Accuracy over K as an SVG, a panel a task; dashed without the instruction, as in Figure 1.2."""
    ink, soft, grid, top, bottom, wide = "#171a21", "#5b6472", "#e2e5ea", 78, 262, 210
    title = "A word's letters put right: accuracy over the number of solved examples in the context"
    lines = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 330" width="860" height="330" '
        'font-family="system-ui, sans-serif" font-size="12"><rect width="860" height="330" fill="#ffffff"/>',
        f'<text x="16" y="26" font-size="15" font-weight="600" fill="{ink}">{title}</text>',
    ]
    keys = [(f"{stage.size} parameters", stage.colour, "") for stage in STAGES if stage.colour]
    keys += [("instruction", ink, ""), ("no instruction", ink, DASHED)]
    for place, (words, colour, dash) in enumerate(keys):
        x = 16 + 150 * place
        lines.append(f'<line x1="{x}" x2="{x + 26}" y1="44" y2="44" stroke="{colour}" stroke-width="2"{dash}/>')
        lines.append(f'<text x="{x + 32}" y="48" fill="{soft}">{words}</text>')
    for panel, task in enumerate(SCORED):
        left = 50 + panel * (wide + 65)
        lines.append(f'<text x="{left}" y="{top - 10}" font-weight="600" fill="{ink}">{task}</text>')

        def across(shots: int, left: int = left) -> float:
            return left + wide * shots / max(map(max, SHOTS.values()))

        def up(score: float) -> float:
            return bottom - (bottom - top) * score / 100

        for shots in SHOTS["released"]:
            lines.append(
                f'<text x="{across(shots):.1f}" y="{bottom + 17}" text-anchor="middle" fill="{soft}">{shots}</text>'
            )
        lines.append(
            f'<text x="{left + wide / 2}" y="{bottom + 36}" text-anchor="middle" fill="{soft}">examples K</text>'
        )
        for mark in range(0, 101, 20):
            lines.append(
                f'<line x1="{left}" x2="{left + wide}" y1="{up(mark):.1f}" y2="{up(mark):.1f}" stroke="{grid}"/>'
            )
            lines.append(f'<text x="{left - 6}" y="{up(mark) + 4:.1f}" text-anchor="end" fill="{soft}">{mark}%</text>')
        for curve in (curve for curve in found if curve.task == task and curve.stage.colour):
            colour, dash = curve.stage.colour, "" if curve.instructed else DASHED
            path = " ".join(f"{across(shots):.1f},{up(score):.1f}" for shots, score, _ in curve.points)
            lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
            for shots, score, error in curve.points:
                x, bar = across(shots), f"{up(max(0.0, score - error)):.1f}V{up(score + error):.1f}"
                lines.append(f'<path d="M{x:.1f} {bar}" stroke="{colour}"/>')
                lines.append(f'<circle cx="{x:.1f}" cy="{up(score):.1f}" r="3" fill="{colour}"/>')
    return "\n".join([*lines, "</svg>\n"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/few-shot"), help="for episodes, run, scores")
    parser.add_argument("--figure", type=Path, help="the SVG to write; default: few-shot.svg in --out")
    asked = parser.parse_args()
    train(asked.out, write_episodes(asked.out))
    evaluate(asked.out)
    found = curves(asked.out)
    write_text(asked.figure or asked.out / "few-shot.svg", draw(found))
    print(table(found), behind_an_article(asked.out), sep="\n\n")


if __name__ == "__main__":
    main()
