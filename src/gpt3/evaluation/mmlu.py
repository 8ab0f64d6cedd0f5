"""MMLU (Hendrycks et al. 2021): 57 subjects of four options; after the paper, in its authors' format.

Options are listed with their letters and the letter is asked for. Demonstrations are drawn from the subject's own five dev
rows, as the paper draws them; the authors took them in the file's order. The group's accuracy weighs every question the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from gpt3.errors import InputError
from gpt3.evaluation.choice_rows import right_place
from gpt3.evaluation.items import HubData, Item, Source, Split, Task
from gpt3.evaluation.rows import read_items
from gpt3.evaluation.task_data import locate

HUB = HubData("cais/mmlu", ("subject", "question", "choices", "answer"), "test", "dev", "all")
LETTERS = "ABCD"
SUBJECTS = re.findall(
    r"\w+",
    """abstract_algebra anatomy astronomy business_ethics clinical_knowledge college_biology college_chemistry
    college_computer_science college_mathematics college_medicine college_physics computer_security conceptual_physics
    econometrics electrical_engineering elementary_mathematics formal_logic global_facts high_school_biology
    high_school_chemistry high_school_computer_science high_school_european_history high_school_geography
    high_school_government_and_politics high_school_macroeconomics high_school_mathematics high_school_microeconomics
    high_school_physics high_school_psychology high_school_statistics high_school_us_history high_school_world_history
    human_aging human_sexuality international_law jurisprudence logical_fallacies machine_learning management marketing
    medical_genetics miscellaneous moral_disputes moral_scenarios nutrition philosophy prehistory professional_accounting
    professional_law professional_medicine professional_psychology public_relations security_studies sociology
    us_foreign_policy virology world_religions""",
)


def question(row: dict[str, Any]) -> Item:
    """A row of subject, question, four choices and the right one's number."""
    choices = list(row["choices"])
    if len(choices) != len(LETTERS):
        raise ValueError(f"{len(choices)} choices; needs four")
    gold = right_place(row["answer"], choices)
    listed = "".join(f"\n{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=True))
    return Item(f"{row['question'].strip()}{listed}\nAnswer:", tuple(f" {letter}" for letter in LETTERS), gold)


def _split(subject: str) -> Callable[[Source], Split]:
    def split(source: Source) -> Split:
        data = locate("mmlu", ("mmlu",), HUB, source)
        rows = [row for row in _all_rows(str(data.test)) if row[0] == subject]
        test = [item for _, part, item in rows if part == "test"]
        if not test:
            raise InputError(f"mmlu_{subject}: {data.test} has no test rows of that subject")
        dev = [item for _, part, item in rows if part == "dev"]
        if data.shots is not None:
            dev = [item for of, _, item in _all_rows(str(data.shots)) if of == subject]
        about = subject.replace("_", " ")
        return Split(
            test,
            dev,
            instruction=f"The following are multiple choice questions (with answers) about {about}.\n\n",
            origin=data.origin,
        )

    return split


@lru_cache(maxsize=2)
def _all_rows(path: str) -> list[tuple[str, str, Item]]:
    """Read once, not once a subject."""
    return read_items(Path(path), lambda row: (row["subject"], row.get("split", "test"), question(row)))


MMLU = tuple(
    Task(
        f"mmlu_{subject}",
        f"MMLU, {subject.replace('_', ' ')}",
        "choice",
        _split(subject),
        5,
        normalization="sum",
        chance=0.25,
        hub=HUB,
    )
    for subject in SUBJECTS
)
