"""What fine-tuning on wiki-qa teaches: whether answers end, whether topics are known, and what it costs.

    gpt3 train
    gpt3 finetune --model runs/demo --data wiki-qa --out runs/assistant
    python benchmarks/wiki_qa.py runs/demo runs/assistant

Questions are about articles that `gpt3 finetune` holds out (by title, whatever the run), answered greedily. A question for the
topic has one of three forms: with the title only, from whose words a model must guess; with the article's short description;
with its first sentence. The base was trained on these articles' texts, as on most others, but on no topics.

Bits per byte are those of two sets of articles: those that `gpt3 train` holds out by default, which neither model was trained on,
and those that only `gpt3 finetune` holds out. A base that was trained on the latter several times has memorized parts of
them, which it forgets first.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from typing import Any

from gpt3.corpus.wiki import Article, articles, document
from gpt3.finetuning.catalogue import UNCATEGORIZED, about, first_sentence, is_validation
from gpt3.finetuning.gathering import is_held_out
from gpt3.inference.generation import GenerationRequest
from gpt3.inference.language_model import load
from gpt3.inference.options import SamplingOptions
from gpt3.tokenizer.chat_template import ChatTemplate, Message, has_template

ASKED = {
    "title": "Which topic does {title} belong to?",
    "description": "Which topic does {title} ({description}) belong to?",
    "sentence": "Which topic does this belong to? {sentence}",
}
OTHER = "(no topic)"


def prompts(model: Any, questions: list[str]) -> list[list[int]]:
    """With the model's template; for a base model in plain text."""
    if not has_template(model.tokenizer):
        return [model.encode_prompt(f"Q: {question}\nA:") for question in questions]
    template = ChatTemplate(model.tokenizer)
    return [template.prompt([Message("user", question)]) for question in questions]


def answers(model: Any, questions: list[str], most: int) -> list[Any]:
    """Greedy answers, batched. None is longer than the context allows."""
    asked = prompts(model, questions)
    limit = min(most, model.engine.context - max(map(len, asked)))
    options = SamplingOptions(temperature=0, max_new_tokens=limit)
    return GenerationRequest(model, asked, options, slots=16).complete()


def topics(model: Any, asked: list[Article], form: str) -> list[str]:
    """The topic the model names for each article; OTHER where it names none."""
    names = {article.topic for article in asked}
    questions = [
        ASKED[form].format(title=a.title, description=a.description.rstrip("."), sentence=first_sentence(a.text))
        for a in asked
    ]
    stated = [answer.text.strip().rstrip(".") for answer in answers(model, questions, 16)]
    return [name if name in names else OTHER for name in stated]


def confusion(truth: list[str], guesses: list[str]) -> str:
    """A table: one row per topic, one column per guess, in the same order."""
    names = [name for name, _ in Counter(truth).most_common()]
    columns = [*names, OTHER]
    counts = Counter(zip(truth, guesses, strict=True))
    lines = [f"{'topic':<28}" + "".join(f"{name.replace('(', '')[:4]:>6}" for name in columns)]
    lines += [f"{name:<28}" + "".join(f"{counts[name, guess] or '.':>6}" for guess in columns) for name in names]
    return "\n".join(lines)


def bits_per_byte(model: Any, texts: list[str]) -> float:
    """Over all texts together."""
    sizes = [len(text.encode()) for text in texts]
    return sum(model.score(t).bits_per_byte * size for t, size in zip(texts, sizes, strict=True)) / sum(sizes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("tuned")
    parser.add_argument("--fraction", type=float, default=0.05, help="the run's --validation-fraction")
    parser.add_argument("--questions", type=int, default=200, help="held-out questions to answer")
    parser.add_argument("--texts", type=int, default=100, help="articles of the base's training text to score")
    arguments = parser.parse_args()
    every = list(articles())
    held = [a for a in every if is_held_out(a.title, arguments.fraction) and not is_validation(a)]
    draw = random.Random(0)
    questions = [item.question for article in held for item in about(article)]
    questions = draw.sample(questions, min(arguments.questions, len(questions)))
    texts = {
        "bits_per_byte": [document(article) for article in every if is_validation(article)],
        "bits_per_byte_read": [document(article) for article in draw.sample(held, min(arguments.texts, len(held)))],
    }
    asked = [a for a in held if a.topic != UNCATEGORIZED and a.description and first_sentence(a.text)]
    truth = [article.topic for article in asked]
    result: dict[str, Any] = {"held_out_articles": len(held), "asked_for_topics": len(asked)}
    for name in ("base", "tuned"):
        model = load(getattr(arguments, name))
        found = answers(model, questions, 128)
        stopped = sum(answer.finish_reason == "stop" for answer in found) / len(found)
        result[name] = {"stopped": stopped} | {kind: bits_per_byte(model, some) for kind, some in texts.items()}
        result[name]["answers"] = [
            f"{q} -> {a.text.strip()[:150]}" for q, a in zip(questions[:8], found[:8], strict=True)
        ]
    majority, count = Counter(truth).most_common(1)[0]
    result["majority"] = {"topic": majority, "accuracy": count / len(truth)}
    for kind in texts:
        result[f"{kind}_rise"] = result["tuned"][kind] / result["base"][kind] - 1
    for form in ASKED:
        guesses = topics(model, asked, form)
        right = sum(guess == topic for guess, topic in zip(guesses, truth, strict=True))
        result[f"topic_by_{form}"] = right / len(truth)
        print(f"topic by {form}: {right} of {len(truth)} right\n{confusion(truth, guesses)}\n", file=sys.stderr)
    json.dump(result, sys.stdout, indent=1, ensure_ascii=False)
    print()


if __name__ == "__main__":
    main()
