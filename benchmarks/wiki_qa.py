"""What fine-tuning on wiki-qa teaches: does the model stop, does it know topics, what did it cost.

    gpt3 train
    gpt3 finetune --model runs/demo --data wiki-qa --out runs/assistant
    python benchmarks/wiki_qa.py runs/demo runs/assistant

Questions are about articles that `gpt3 finetune` holds out (by title, whatever the run), answered greedily.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter

import gpt3
from gpt3.corpus.wiki import articles, document
from gpt3.finetuning.chat import TemplateFraming, has_template
from gpt3.finetuning.conversations import Message
from gpt3.finetuning.gathering import is_held_out
from gpt3.finetuning.wiki_qa import UNCATEGORIZED, about
from gpt3.inference.generation import Job
from gpt3.inference.options import SamplingOptions


def prompts(model, questions: list[str]) -> list[list[int]]:
    """As the model is asked: by its template; a base model in plain text."""
    framing = TemplateFraming(model) if has_template(model) else None
    if framing is None:
        return [model.encode_prompt(f"Q: {question}\nA:") for question in questions]
    return [framing.prompt([Message("user", question)]) for question in questions]


def answers(model, questions: list[str], most: int) -> list:
    """Greedy answers, side by side. A text never writes beyond the context."""
    asked = prompts(model, questions)
    room = min(most, model.engine.context - max(map(len, asked)))
    job = Job(model, asked, SamplingOptions(temperature=0, max_new_tokens=room), slots=16)
    for _ in job:
        pass
    return job.results()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("base")
    parser.add_argument("tuned")
    parser.add_argument("--fraction", type=float, default=0.05, help="the run's --validation-fraction")
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--texts", type=int, default=40, help="held-out articles scored in bits per byte")
    arguments = parser.parse_args()
    held = [article for article in articles() if is_held_out(article.title, arguments.fraction)]
    draw = random.Random(0)
    questions = [item.question for article in held for item in about(article)]
    questions = draw.sample(questions, min(arguments.questions, len(questions)))
    topics = draw.sample([article for article in held if article.topic != UNCATEGORIZED], min(arguments.questions, 200))
    result: dict = {"held_out_articles": len(held)}
    for name in ("base", "tuned"):
        model = gpt3.load(getattr(arguments, name))
        found = answers(model, questions, 128)
        stopped = sum(answer.finish_reason == "stop" for answer in found) / len(found)
        texts = [document(article) for article in held[: arguments.texts]]
        sizes = [len(text.encode()) for text in texts]
        bits = sum(model.score(text).bits_per_byte * size for text, size in zip(texts, sizes, strict=True)) / sum(sizes)
        result[name] = {"stopped": stopped, "bits_per_byte": bits}
        result[name]["samples"] = [[q, a.text.strip()[:150]] for q, a in zip(questions[:8], found[:8], strict=True)]
        if name == "base":
            continue
        names = sorted({article.topic for article in held} - {UNCATEGORIZED})
        said = answers(
            model, [f"Which topic does {article.title} ({article.description}) belong to?" for article in topics], 40
        )
        guesses = [
            next((topic for topic in names if answer.text.strip().endswith(f"{topic}.")), "other") for answer in said
        ]
        right = sum(guess == article.topic for guess, article in zip(guesses, topics, strict=True))
        majority = Counter(article.topic for article in topics).most_common(1)[0]
        result["topics"] = {
            "accuracy": right / len(topics), "majority": [majority[0], majority[1] / len(topics)],
            "confusion": {
                truth: dict(Counter(g for g, a in zip(guesses, topics, strict=True) if a.topic == truth)) for truth in names
            },
        }  # fmt: skip
    json.dump(result, sys.stdout, indent=1, ensure_ascii=False)
    print()


if __name__ == "__main__":
    main()
