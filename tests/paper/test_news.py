"""News (3.9.4): the statistics are SciPy's, in Python and in the quiz's page; articles, answers and what is shown of them."""

import dataclasses
import html
import json
import random
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from gpt3.cli.main import main
from gpt3.errors import InputError
from gpt3.paper import detection, news, quiz
from gpt3.paper.experiment import Work
from gpt3.paper.models import models
from gpt3.paper.page import section

SCRIPT = quiz.ASSETS / "quiz.js"


def sessions_of(seed=0):
    """Readers of a good model, a bad one and the control."""
    rng = random.Random(seed)
    found = []
    for model, skill, count in (("tiny", 0.55, 6), ("larger", 0.45, 5), ("control", 0.85, 7)):
        for number in range(count):
            answers = []
            for title in range(12):
                machine = rng.random() < 0.5
                right = rng.random() < skill
                answer = 2 if rng.random() < 0.1 else rng.choice([3, 4] if machine == right else [0, 1])
                answers.append({"title": str(title), "machine": machine, "answer": answer, "seconds": 9.5})
            found.append({"id": f"{model}-{number}", "model": model, "articles": "a", "answers": answers})
    return found


def in_node(code, value):
    """What an expression of the page's script gives for `value`."""
    node = shutil.which("node") or pytest.skip("needs node")
    program = f"const q = require({json.dumps(str(SCRIPT))}); const value = {json.dumps(value)};"
    done = subprocess.run(
        [node, "-e", f"{program} console.log(JSON.stringify({code}))"],
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    return json.loads(done.stdout)


def expected(session):
    """The paper's accuracy: right over not neutral."""
    decided = [(one["answer"] > 2) == one["machine"] for one in session["answers"] if one["answer"] != 2]
    return sum(decided) / len(decided)


def test_accuracy_is_right_over_decided():
    for session in sessions_of():
        assert detection.accuracy(session) == pytest.approx(expected(session))
    assert detection.accuracy({"answers": [{"answer": 2, "machine": True}]}) is None


@pytest.mark.parametrize(("some", "others"), [("control", "tiny"), ("tiny", "larger")])
def test_the_t_test_is_scipys(some, others):
    sessions = sessions_of()
    values = [detection.accuracies(sessions, name) for name in (some, others)]
    assert detection.t_test(*values) == pytest.approx(tuple(stats.ttest_ind(*values)), rel=1e-9)


def test_margin_and_law_are_scipys_and_numpys():
    values = detection.accuracies(sessions_of(), "control")
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    assert detection.margin(values) == pytest.approx((high - low) / 2)
    points = [(size, 3 * size**-0.05 * wiggle) for size, wiggle in ((1e6, 1.01), (1e7, 0.98), (1e9, 1.0))]
    fit = stats.linregress(np.log([x for x, _ in points]), np.log([y for _, y in points]))
    assert detection.power_law(points) == pytest.approx((np.exp(fit.intercept), fit.slope))
    assert detection.power_law(points[:1]) is detection.t_test([0.5], values) is detection.margin([1.0]) is None
    assert detection.t_test([0.5, 0.5], [0.5, 0.5]) is None


def test_the_page_computes_the_same():
    sessions = sessions_of()
    names = ("tiny", "larger", "control")
    points = [(1e6, 0.8), (1e7, 0.7), (1e8, 0.65)]
    code = (
        "({all: value.names.map((n) => q.accuracies(value.sessions, n)), "
        "unsure: value.names.map((n) => q.unsure(value.sessions, n)), "
        "test: q.tTest(q.accuracies(value.sessions, 'control'), q.accuracies(value.sessions, 'tiny')), "
        "margin: q.margin(q.accuracies(value.sessions, 'control')), tail: q.tail(16.9, 158), law: q.powerLaw(value.points),"
        "none: [q.tTest([0.5], [0.4, 0.3]), q.margin([1]), q.powerLaw([[1, 1]])]})"
    )
    found = in_node(code, {"sessions": sessions, "names": names, "points": points})
    values = {name: [expected(session) for session in sessions if session["model"] == name] for name in names}
    assert found["all"] == [pytest.approx(values[name]) for name in names]
    assert found["unsure"] == pytest.approx([detection.unsure(sessions, name) for name in names])
    t, p = stats.ttest_ind(values["control"], values["tiny"])
    assert (found["test"]["t"], found["test"]["p"]) == pytest.approx((t, p), rel=1e-6)
    assert found["margin"] == pytest.approx(detection.margin(values["control"]), rel=1e-6)
    assert found["tail"] == pytest.approx(2 * stats.t.sf(16.9, 158), rel=1e-5)
    assert (found["law"]["factor"], found["law"]["exponent"]) == pytest.approx(detection.power_law(points))
    assert found["none"] == [None] * 3


def test_a_session_shows_every_title_once_and_half_of_them_generated():
    titles = [{"id": str(n), "title": f"T{n}", "subtitle": "", "article": f"human {n}"} for n in range(7)]
    made = quiz.content(
        titles, [{"name": "m", "parameters": 1, "articles": {str(n): f"machine {n}" for n in range(7)}}]
    )
    asked = in_node("q.questions(value, value.models[0])", made)
    assert sorted(one["title"] for one in asked) == [str(n) for n in range(7)]
    assert sum(one["machine"] for one in asked) == 4
    assert all(one["text"] == f"{'machine' if one['machine'] else 'human'} {one['title']}" for one in asked)
    asked = [{"model": "m", "articles": made["models"][0]["digest"], "answers": []}]
    two = made | {"models": [*made["models"], {"name": "n", "parameters": None, "digest": "d", "articles": {}}]}
    assert in_node("q.next(value.quiz, value.sessions).name", {"quiz": two, "sessions": asked}) == "n"
    other = [{"model": "m", "articles": "older", "answers": []}]
    assert in_node("q.present(value.quiz, value.sessions)", {"quiz": two, "sessions": asked + other}) == asked


def test_articles_are_cut_and_chosen_by_their_length():
    assert news.finished("One. Two is 'long.' Thr") == "One. Two is 'long.'"
    assert news.finished(" no end ") == "no end"
    titles = [{"id": "a", "title": "", "subtitle": "", "article": "1 2 3 4"}]
    assert news.chosen({"a": ["1", "1 2 3", "1 2 3 4 5 6"]}, titles) == {"a": "1 2 3"}


@pytest.fixture
def work(tiny, tmp_path):
    rows = [
        {"title": f"Title {n}", "subtitle": f"Sub {n}", "article": f"The sea is </script> {n}. " * 5} for n in range(7)
    ]
    (tmp_path / "news.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Work(tmp_path / "out" / "3.9.4", models([str(tiny)], {}), limit=3, data_dir=str(tmp_path))


def test_the_quiz_is_written_and_its_answers_are_drawn(work):
    measured = news.measure(work)
    assert [row["title"] for row in measured["titles"]] == ["Title 3", "Title 4", "Title 5"]  # three are examples
    [model] = measured["models"]
    assert model["examples"] == 3
    assert {len(texts) for texts in model["articles"].values()} == {5}
    page = (work.folder.parent / "quiz.html").read_text(encoding="utf-8")
    assert page.count("</script>") == 1
    made = json.loads(re.search(r"^const QUIZ = (.*);$", page, flags=re.M)[1])
    assert [one["name"] for one in made["models"]] == ["tiny", "control"]
    assert made["models"][1]["parameters"] is None
    drawing = news.draw(measured)
    assert "No reader has answered yet" in drawing.ours[1]
    assert drawing.charts == []
    assert section(drawing).count("<table>") == 2

    digests = {one["name"]: one["digest"] for one in made["models"]}
    sessions = [one | {"articles": digests[one["model"]]} for one in sessions_of() if one["model"] in digests]
    older = sessions[0] | {"id": "older", "articles": "older"}
    for name, some in (("answers-1", sessions[:8]), ("answers-2", [*sessions[6:], older])):
        file = {"format": quiz.FORMAT, "quiz": made["quiz"], "sessions": some}
        (work.folder / f"{name}.json").write_text(json.dumps(file))
    measured = json.loads(json.dumps(news.measure(work)))
    assert [one["id"] for one in measured["sessions"]] == [one["id"] for one in sessions]
    drawing = news.draw(measured)
    rows = {row[0]: row for row in drawing.tables[0].rows}
    values = {name: [expected(one) for one in sessions if one["model"] == name] for name in digests}
    t, p = stats.ttest_ind(values["control"], values["tiny"])
    low, high = stats.t.interval(0.95, 5, np.mean(values["tiny"]), stats.sem(values["tiny"]))
    assert rows["tiny"][1:4] == [
        "6",
        f"{100 * np.mean(values['tiny']):.0f}% ± {50 * (high - low):.0f}",
        f"{t:.1f} ({p:.1g})",
    ]
    assert rows["paper, 175B"][2:4] == ["52%", "16.9"]
    [chart] = drawing.charts
    assert [y for _, y, _ in chart.legend[0].points] == pytest.approx([100 * np.mean(values["tiny"])])


HEAD = '{"format": "gpt3 paper 3.9.4", "quiz": '
OPEN = '{"id": 1, "model": "m", "articles": "a", "answers": [{"title": "", "seconds": 1, "machine": true'


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("[]", "has no answers of a quiz"),
        ("{}", "has no answers of a quiz"),
        (HEAD + '"another", "sessions": []}', "a quiz with other titles"),
        (HEAD + '"q", "sessions": [' + OPEN + "}]}]}", "has no answers of a quiz"),
        (HEAD + '"q", "sessions": [' + OPEN + ', "answer": 5}]}]}', "has no answers of a quiz"),
    ],
)
def test_other_files_of_answers_are_errors(content, error, tmp_path):
    (tmp_path / "answers.json").write_text(content)
    with pytest.raises(InputError, match=error):
        quiz.read(tmp_path, {"quiz": "q", "models": []})


def test_another_page_is_not_replaced(work):
    work.folder.parent.mkdir()
    page = work.folder.parent / "quiz.html"
    page.write_text("my own")
    with pytest.raises(InputError, match=re.escape("quiz.html")):
        news.measure(work)
    assert page.read_text() == "my own"


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        ([{"title": "a", "subtitle": "b", "article": "c"}] * 3, "has 3 articles. Give at least 4"),
        ([{"title": "a", "subtitle": "b"}], "title, subtitle and article must be texts"),
    ],
)
def test_articles_of_your_own_that_do_not_do(rows, error, work):
    Path(work.data_dir, "news.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=error):
        news.rows(work)


def long_articles(work, count, words):
    rows = [{"title": f"Title {n}", "subtitle": "s", "article": f"The sea {n}. " * (words // 3)} for n in range(count)]
    Path(work.data_dir, "news.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return dataclasses.replace(work, article_words=500, limit=100)


def test_long_articles_are_asked_as_in_table_3_12(work):
    examples, titles = news.rows(long_articles(work, 20, 450))
    assert [row["title"] for row in examples] == ["Title 0"]
    assert [row["title"] for row in titles] == [f"Title {n}" for n in range(1, 13)]
    sessions = [one | {"articles": "a"} for one in sessions_of()]
    models = [{"name": "tiny", "parameters": 10**6, "layer_parameters": 10**5, "examples": 1}]
    measured = {"words": 500, "titles": titles, "sessions": sessions, "page": "", "folder": ""}
    measured["models"] = [model | {"articles": {row["id"]: ["text"] for row in titles}} for model in models]
    drawing = news.draw(measured)
    assert [row[:3] for row in drawing.tables[0].rows[-2:]] == [
        ["paper, Control", "about 80", "88%"],
        ["paper, 175B", "about 80", "52%"],
    ]
    [chart] = drawing.charts
    assert [y for _, y, _ in chart.legend[1].points] == [52]
    assert drawing.notes[0].startswith("As in the paper, 1 human article ")


def test_long_articles_must_be_given_and_long(work, tmp_path, capsys):
    with pytest.raises(InputError, match=r"--article-words 500: the articles of .* have 150 words on average\. Leave"):
        news.rows(long_articles(work, 3, 150))
    Path(work.data_dir, "news.jsonl").unlink()
    with pytest.raises(InputError, match=r"--article-words 500 .*news\.jsonl is missing"):
        news.rows(dataclasses.replace(work, article_words=500))
    assert main(["paper", "3.9.4", "--article-words", "500", "--out", str(tmp_path / "no")]) == 2
    assert "Use --data-dir with a folder that has news.jsonl" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_articles_of_the_package(tmp_path):
    examples, titles = news.rows(Work(tmp_path, limit=40))
    assert (len(examples), len(titles)) == (3, 25)
    assert all(150 <= len(row["article"].split()) <= 250 for row in titles)
    assert not {row["id"] for row in examples} & {row["id"] for row in titles}
    assert news.prompt(examples[:1], titles[0]).endswith(f"Subtitle: {titles[0]['subtitle']}\nArticle:")
    assert news.prompt(examples[:1], titles[0]).count("\n\nTitle: ") >= 1


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_a_reader_in_a_browser(work):
    """A session by the keyboard, then its results."""
    news.measure(work)
    page = work.folder.parent / "quiz.html"
    clicks = """<script>document.getElementById("begin").click();
    const seen = [];
    for (let i = 0; i < 3; i++) {
      seen.push(document.getElementById("title").textContent);
      document.dispatchEvent(new KeyboardEvent("keydown", { key: "5" }));
    }
    document.body.dataset.seen = seen.sort().join();
    document.body.dataset.kept = localStorage.getItem(localStorage.key(0));</script>"""
    driven = page.with_name("driven.html")
    driven.write_text(page.read_text(encoding="utf-8").replace("</body>", clicks + "</body>"), encoding="utf-8")
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", driven.as_uri()]
    shown = subprocess.run(command, capture_output=True, encoding="utf-8", check=True, timeout=120).stdout
    assert 'data-seen="Title 3,Title 4,Title 5"' in shown
    kept = json.loads(html.unescape(re.search(r'data-kept="([^"]*)"', shown)[1]))
    assert [one["answer"] for one in kept[0]["answers"]] == [4] * 3
    right = sum(one["machine"] for one in kept[0]["answers"]) / 3
    assert f"That was {kept[0]['model']}: {100 * right:.0f}% right." in shown
    assert re.search(r"<td>(tiny|control)</td><td>1</td><td>(33|67)%</td>", shown)


@pytest.mark.slow
def test_the_docs_command_for_long_articles(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny, tmp_path / "runs" / "demo" / "model")
    (tmp_path / "data").mkdir()
    long_articles(Work(tmp_path, data_dir="data"), 4, 360)
    docs = (Path(__file__).parents[2] / "docs" / "paper.md").read_text(encoding="utf-8")
    [command] = re.findall(r"^gpt3 (paper 3\.9\.4 .*--article-words 500.*)$", docs, flags=re.M)
    assert main(command.split()) == 0
    measured = json.loads(Path("long-news", "3.9.4.json").read_text())
    assert (measured["words"], len(measured["titles"])) == (500, 2)
    assert Path("long-news", "quiz.html").is_file()
