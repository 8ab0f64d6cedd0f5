"""Few-shot learning on a laptop: a small model whose accuracy rises with the solved examples it is shown, as in Figure 1.2.

    python benchmarks/few_shot_learning.py --out runs/few-shot

writes episodes, trains each size on them and on encyclopedia text with `gpt3 train`, asks `gpt3 eval` about words that
stand in no episode, and draws accuracy over K. Every stage goes on where a killed one stopped. `--sizes small` takes one size;
`--until episodes` or `--until train` ends early.

An episode is a document of solved examples of one hidden task, in the format of the generated tasks (gpt3.evaluation.scrambling):

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
from gpt3.evaluation.items import Source
from gpt3.evaluation.scrambling import INSTRUCTION, SCRAMBLING, cycled, inserted, reversed_word

SCORED = ("random-insertion", "reversed-words", "cycle-letters")
FORMATS = ("released", "paper")
"""Of the questions: without the instruction and with it."""
SHOTS = (0, 1, 2, 4, 6)
LIMIT = 250
"""Questions of each task, format and K."""
EPISODES, MOST_EXAMPLES = 40_000, 10
INSTRUCTED = 0.25
"""Share of the episodes of a scored task with the instruction above."""
SIZES = {
    "small": ["--layers", "4", "--width", "64", "--heads", "2", "--lr", "6e-3", "--steps", "2000"],
    "large": ["--layers", "4", "--width", "128", "--heads", "4", "--lr", "4e-3", "--steps", "1500"],
}
TRAINING = [
    "--model",
    "17M",
    "--tokenizer",
    "own:257",
    "--context",
    "256",
    "--batch-tokens",
    "2048",
    "--optimizer",
    "muon",
]
"""A token is a byte, so that letters can be moved; the layers and the width are those of the size."""


@dataclass(frozen=True)
class Curve:
    """Accuracy of one model on one task."""

    task: str
    size: str
    parameters: int
    instructed: bool
    points: list[tuple[int, float, float]]
    """K, accuracy in per cent, its standard error."""

    @property
    def millions(self) -> str:
        """The model's size in words."""
        return f"{self.parameters / 1e6:.2g}M parameters"


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


def train(out: Path, size: str, mixture: Path) -> None:
    """Train a size, or go on with its run."""
    if not (out / size / "model").exists():
        gpt3("train", "--mixture", mixture, *TRAINING, *SIZES[size], "--out", out / size)


def evaluate(out: Path, size: str) -> None:
    """Ask a size all questions, or those that are missing."""
    asked = ["--tasks", ",".join(SCORED), "--shots", ",".join(map(str, SHOTS)), "--limit", LIMIT]
    for format in FORMATS:
        place = out / "eval" / f"{size}-{format}"
        gpt3("eval", "--model", out / size / "model", *asked, "--format", format, "--batch", 32, "--out", place)


def curves(out: Path) -> list[Curve]:
    """What was measured of every size, the smallest first."""
    found = []
    for size in SIZES:
        for format in FORMATS:
            path = out / "eval" / f"{size}-{format}" / "results.json"
            if path.exists():
                results = json.loads(path.read_text(encoding="utf-8"))
                for task in SCORED:
                    entries = [entry for entry in results["results"] if entry.get("task") == task]
                    points = [
                        (entry["shots"], 100 * entry["metrics"]["acc"]["value"], 100 * entry["metrics"]["acc"]["error"])
                        for entry in entries
                    ]
                    found.append(Curve(task, size, results["parameters"], format == "paper", points))
    return found


def table(found: Sequence[Curve]) -> str:
    """The figures in Markdown."""
    lines = [
        f"| task | model | instruction | {' | '.join(f'K={shots}' for shots in SHOTS)} |",
        "|---" * (3 + len(SHOTS)) + "|",
    ]
    for curve in sorted(found, key=lambda curve: SCORED.index(curve.task)):
        scores = " | ".join(f"{score:.1f} ± {error:.1f}" for _, score, error in curve.points)
        lines.append(f"| {curve.task} | {curve.millions} | {'yes' if curve.instructed else 'no'} | {scores} |")
    return "\n".join(lines)


def draw(found: Sequence[Curve]) -> str:
    """Accuracy over K as an SVG, a panel a task; dashed without the instruction, as in Figure 1.2."""
    ink, soft, grid, top, bottom, wide = "#171a21", "#5b6472", "#e2e5ea", 78, 262, 210
    colours = dict(zip(SIZES, ("#dd6b10", "#2a63d4"), strict=True))
    title = "A word's letters put right: accuracy over the number of solved examples in the context"
    lines = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 330" width="860" height="330" '
        'font-family="system-ui, sans-serif" font-size="12"><rect width="860" height="330" fill="#ffffff"/>',
        f'<text x="16" y="26" font-size="15" font-weight="600" fill="{ink}">{title}</text>',
    ]
    labels = {curve.size: curve.millions for curve in found}
    for place, (size, label) in enumerate(labels.items()):
        for dashed, x in ((False, 16 + 330 * place), (True, 176 + 330 * place)):
            stroke = f'stroke="{colours[size]}" stroke-width="2"' + (' stroke-dasharray="5 4"' if dashed else "")
            words = f"{label}, {'no instruction' if dashed else 'instruction'}"
            lines.append(f'<line x1="{x}" x2="{x + 26}" y1="44" y2="44" {stroke}/>')
            lines.append(f'<text x="{x + 32}" y="48" fill="{soft}">{words}</text>')
    for panel, task in enumerate(SCORED):
        left = 50 + panel * (wide + 65)
        lines.append(f'<text x="{left}" y="{top - 10}" font-weight="600" fill="{ink}">{task}</text>')
        for mark in range(0, 101, 20):
            y = bottom - (bottom - top) * mark / 100
            lines.append(f'<line x1="{left}" x2="{left + wide}" y1="{y:.1f}" y2="{y:.1f}" stroke="{grid}"/>')
            lines.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end" fill="{soft}">{mark}%</text>')
        for shots in SHOTS:
            x = left + wide * shots / SHOTS[-1]
            lines.append(f'<text x="{x:.1f}" y="{bottom + 17}" text-anchor="middle" fill="{soft}">{shots}</text>')
        lines.append(
            f'<text x="{left + wide / 2}" y="{bottom + 36}" text-anchor="middle" fill="{soft}">examples K</text>'
        )
        for curve in (curve for curve in found if curve.task == task):
            colour, dash = colours[curve.size], "" if curve.instructed else ' stroke-dasharray="5 4"'
            places = [
                (
                    left + wide * shots / SHOTS[-1],
                    *(bottom - (bottom - top) * y / 100 for y in (score, score - error, score + error)),
                )
                for shots, score, error in curve.points
            ]
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in places)
            lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
            for x, y, low, high in places:
                lines.append(f'<path d="M{x:.1f} {low:.1f}V{high:.1f}" stroke="{colour}"/>')
                lines.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
    return "\n".join([*lines, "</svg>\n"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/few-shot"), help="episodes, runs, scores")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--until", choices=("episodes", "train", "figure"), default="figure", help="the last stage")
    parser.add_argument("--figure", type=Path, help="the SVG; default: few-shot.svg in --out")
    asked = parser.parse_args()
    mixture = write_episodes(asked.out)
    for size in asked.sizes if asked.until != "episodes" else ():
        train(asked.out, size, mixture)
        if asked.until == "figure":
            evaluate(asked.out, size)
    if asked.until == "figure":
        found = curves(asked.out)
        write_text(asked.figure or asked.out / "few-shot.svg", draw(found))
        print(table(found))


if __name__ == "__main__":
    main()
