"""Pronouns: the sentences, the figures by right option and pronoun, and the authors' file."""

import re
from collections import Counter

import pytest

from gpt3.cli import main as cli
from gpt3.errors import InputError
from gpt3.evaluation import Result, Source, winogender
from gpt3.evaluation.gender import OCCUPATIONS
from gpt3.evaluation.results import figures
from gpt3.evaluation.tasks import TASKS


def test_every_occupation_is_asked_with_three_pronouns_and_both_answers():
    items = TASKS["pronouns"].split(Source()).test
    assert len(items) == 6 * len(OCCUPATIONS)
    cells = Counter((item.id.split(".")[0], item.gold, item.id.split(".")[3]) for item in items)
    assert set(cells.values()) == {1}
    assert {name for name, _, _ in cells} == set(OCCUPATIONS)
    for item in items:
        occupation, participant, gold, gender = item.id.split(".")
        assert item.completions == (f" {occupation}", f" {participant}")
        assert item.gold == int(gold)
        sentence, pronoun = re.fullmatch(r"(.*\.) '(\w+)' refers to the", item.context).groups()
        assert pronoun == {"male": "He", "female": "She", "neutral": "They"}[gender]
        assert Counter(re.findall(r"\w+", sentence))[pronoun.lower()] == 1
        assert ("were" in sentence.split()) <= (gender == "neutral")


def test_sentences_of_a_pair_differ_and_so_do_their_answers():
    items = TASKS["pronouns"].split(Source()).test
    for number in range(0, len(items), 6):
        first, second = items[number : number + 3], items[number + 3 : number + 6]
        assert [item.gold for item in (*first, *second)] == [0, 0, 0, 1, 1, 1]
        assert all(
            a.context != b.context and a.completions == b.completions for a, b in zip(first, second, strict=True)
        )


def test_figures_are_means_of_their_cells():
    ids = ["cook.guest.0.male", "cook.guest.0.male", "cook.guest.0.female", "cook.guest.1.neutral"]
    results = [Result(n, id, {"acc": float(n != 1)}) for n, id in enumerate(ids)]
    found = figures(TASKS["winogender"], results)
    assert {name: figure.value for name, figure in found.items()} == {
        "acc": 0.75, "occupation_male": 0.5, "occupation_female": 1.0, "participant_neutral": 1.0
    }  # fmt: skip
    assert found["occupation_male"].error == pytest.approx(0.5)


def test_the_authors_file(tmp_path, folder, capsys):
    lines = ["sentid\tsentence", "nurse.someone.0.neutral.txt\tThe nurse told someone that their shift was over."]
    lines += [f"cook.guest.{gold}.{gender}.txt\tThe cook saw the guest when {word} came."
              for gold in (0, 1) for gender, word in winogender.GENDERS.items()]  # fmt: skip
    (tmp_path / "all_sentences.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    first, *_ = TASKS["winogender"].split(Source(str(tmp_path))).test
    assert first.context == "The nurse told someone that their shift was over. 'Their' refers to the"
    command = ["eval", "--model", str(folder), "--tasks", "winogender", "--shots", "0", "--data-dir", str(tmp_path)]
    assert cli.main([*command, "--dtype", "fp32", "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^winogender +0 +7 +acc ", shown, flags=re.M)
    assert all(re.search(rf"^ +{cell} +\d", shown, flags=re.M) for cell in winogender.CELLS)


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ("cook.guest.0.txt\tThe cook is late.", "sentid is 'cook.guest.0.txt'; it must be such as"),
        ("cook.guest.2.male.txt\tHe is late.", "sentid is 'cook.guest.2.male.txt'"),
        ("cook.guest.0.male.txt\tThe cook is late.", "no pronoun in 'The cook is late.'"),
    ],
)
def test_rows_that_do_not_do(row, error, tmp_path):
    (tmp_path / "winogender.tsv").write_text(f"sentid\tsentence\n{row}\n")
    with pytest.raises(InputError, match=re.escape(error)):
        TASKS["winogender"].split(Source(str(tmp_path)))
