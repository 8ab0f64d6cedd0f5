"""The tasks that take their rows from files or the hub, in the paper's prompt formats (App. G): a line each.

Rows with a field `split` are divided by it: train, dev and validation give the demonstrations, test is scored. Without such
rows, and without a file NAME_train, demonstrations come from the scored rows themselves, never from the passage that is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gpt3.evaluation import choice_rows, passage_rows, text_rows
from gpt3.evaluation.items import HubData, Item, Source, Split, Task
from gpt3.evaluation.passage_rows import Join
from gpt3.evaluation.rows import read_items
from gpt3.evaluation.task_data import locate

Make = Callable[[dict[str, Any]], "Item | Sequence[Item]"]
SHOT_SPLITS = ("train", "dev", "validation", "auxiliary_train")


def _read(path: Path, make: Make, join: Join) -> tuple[list[Item], list[Item]]:
    """Items of the scored rows, and of the demonstrations'."""

    def parted(row: dict[str, Any]) -> tuple[bool, list[Item]]:
        made = make(row)
        return row.get("split") in SHOT_SPLITS, [made] if isinstance(made, Item) else list(made)

    rows = read_items(path, parted)
    test, shots = ([item for part, items in rows if part == wanted for item in items] for wanted in (False, True))
    return join(test), join(shots)


def splitter(
    name: str,
    files: Sequence[str],
    hub: HubData | None,
    make: Make,
    zero_shot: Make | None = None,
    join: Join = list,
    instruction: str = "",
) -> Callable[[Source], Split]:
    """What reads a task's rows.

    Args:
        files: names its file may have.
        hub: where the hub has them.
        make: the items of a row.
        zero_shot: the same where nothing is shown before the question; None: as with demonstrations.
        join: what is done with all items of a file, such as putting earlier questions of a talk before later ones.
        instruction: before the first demonstration.
    """

    def split(source: Source) -> Split:
        data = locate(name, files, hub, source)
        test, shots = _read(data.test, make, join)
        if not test:
            test, shots = shots, []
        if data.shots is not None:
            shots = [item for part in _read(data.shots, make, join) for item in part]
        plain = None
        if zero_shot is not None:
            asked, others = _read(data.test, zero_shot, join)
            plain = asked or others
        if any(not item.rights for item in test):  # those are no demonstrations
            shots = [item for item in shots if item.rights]
        elif not shots:
            return Split(test, None, plain, instruction, data.origin)
        return Split(
            test,
            passage_rows.once_each(shots) if shots[:1] and shots[0].solved else shots,
            plain,
            instruction,
            data.origin,
        )

    return split


def _task(
    name: str,
    summary: str,
    make: Make,
    hub: HubData | None,
    paper: str | None,
    shots: int,
    *,
    files: Sequence[str] = (),
    zero_shot: Make | None = None,
    join: Join = list,
    instruction: str = "",
    kind: Any = "choice",
    **more: Any,
) -> Task:
    split = splitter(name, files or (name,), hub, make, zero_shot, join, instruction)
    return Task(name, summary, kind, split, shots, paper=paper, hub=hub, **more)


def _superglue(config: str, *fields: str) -> HubData:
    return HubData("aps/super_glue", (*fields, "label"), config=config)


TEXT: dict[str, Any] = {"kind": "text", "max_new_tokens": 24, "metrics": ("acc", "f1")}
TALK: dict[str, Any] = {"kind": "text", "join": passage_rows.with_earlier, "metrics": ("f1", "acc")}
ARC = ("question", "choices", "answerKey")
UNCONDITIONAL: dict[str, Any] = {"chance": 0.25, "normalization": "unconditional", "answer_context": "Answer:"}
RACE: dict[str, Any] = UNCONDITIONAL | {"answer_context": "A:", "join": passage_rows.with_earlier}
HALF: dict[str, Any] = {"chance": 1 / 2}
THIRD: dict[str, Any] = {"chance": 1 / 3}
QUARTER: dict[str, Any] = {"chance": 1 / 4}

# fmt: off
FILE_TASKS = (
    # completion and cloze
    _task("hellaswag", "how a scene goes on", choice_rows.hellaswag,
          HubData("Rowan/hellaswag", ("activity_label", "ctx", "ctx_a", "ctx_b", "endings", "label")),
          "HellaSwag", 20, files=("hellaswag", "hellaswag_val"), **QUARTER),
    _task("storycloze", "how a story ends", choice_rows.storycloze, None, "StoryCloze", 70, **HALF),
    *(_task(name, "the last word of a passage", text_rows.lambada_blank, hub, paper, 15, files=files,
            zero_shot=text_rows.lambada_plain, instruction="Fill in blank:\n\n", kind="word", metrics=("acc", "ppl"))
      for name, paper, files, hub in (
          ("lambada", "LAMBADA", ("lambada", "lambada_openai", "lambada_standard"),
           HubData("EleutherAI/lambada_openai", ("text",), "test", None, "default")),
          ("lambada_standard", None, ("lambada_standard",), HubData("cimec/lambada", ("text",), "test", "validation")),
      )),
    # questions from memory
    _task("triviaqa", "trivia, from memory", text_rows.triviaqa,
          HubData("mandarjoshi/trivia_qa", ("question", "answer"), config="rc.wikipedia.nocontext"),
          "TriviaQA", 64, files=("triviaqa", "triviaqa_subset"), **TEXT),
    _task("nq", "questions of searchers, from memory", text_rows.open_question,
          HubData("google-research-datasets/nq_open", ("question", "answer")), "NQs", 64, files=("nq", "nq_open"), **TEXT),
    _task("webqs", "questions on entities, from memory", text_rows.open_question,
          HubData("stanfordnlp/web_questions", ("question", "answers"), "test"), "WebQs", 64, **TEXT),
    # pronouns
    _task("winograd", "whom a pronoun means", choice_rows.winograd,
          HubData("lighteval/winograd_wsc", ("text", "pronoun", "pronoun_loc", "options", "label"), "test", None, "wsc273"),
          "Winograd", 7, **HALF),
    _task("winogrande", "whom a sentence means", choice_rows.winogrande,
          HubData("allenai/winogrande", ("sentence", "option1", "option2", "answer"), config="winogrande_xl"),
          "Winogrande", 50, **HALF),
    # common sense and science
    _task("piqa", "how to do everyday things", choice_rows.piqa,
          HubData("baber/piqa", ("goal", "sol1", "sol2", "label")), "PIQA", 50, **HALF),
    _task("arc_easy", "school science, easy", choice_rows.arc,
          HubData("allenai/ai2_arc", ARC, "test", config="ARC-Easy"), "ARC (Easy)", 50, **UNCONDITIONAL),
    _task("arc_challenge", "school science, hard", choice_rows.arc,
          HubData("allenai/ai2_arc", ARC, "test", config="ARC-Challenge"), "ARC (Challenge)", 50, **UNCONDITIONAL),
    _task("openbookqa", "science facts", choice_rows.openbookqa,
          HubData("allenai/openbookqa", ("question_stem", "choices", "answerKey"), "test", config="main"),
          "OpenBookQA", 100, **UNCONDITIONAL),
    # reading
    *(_task(f"race_{letter}", f"exams of {school} schools", passage_rows.race,
            HubData("ehovy/race", ("example_id", "article", "question", "options", "answer"), "test", config=school),
            f"RACE-{letter}", 10, **RACE)
      for letter, school in (("h", "high"), ("m", "middle"))),
    _task("squad2", "spans of articles, or none", passage_rows.squad2,
          HubData("rajpurkar/squad_v2", ("id", "title", "context", "question", "answers")),
          "SQuADv2", 16, measure="squad2", max_new_tokens=32, **TALK | {"metrics": ("acc", "f1")}),
    _task("coqa", "a talk about a story", passage_rows.coqa,
          HubData("EleutherAI/coqa", ("id", "story", "questions", "answers", "additional_answers")),
          "CoQA", 5, measure="coqa", max_new_tokens=32, **TALK),
    _task("drop", "sums and dates in a passage", passage_rows.drop,
          HubData("EleutherAI/drop", ("query_id", "passage", "question", "answer", "validated_answers")),
          "DROP", 20, measure="drop", **TEXT | {"metrics": ("f1", "acc")}),
    _task("quac", "a talk about an article", passage_rows.quac,
          HubData("allenai/quac", ("dialogue_id", "wikipedia_page_title", "section_title", "context", "questions", "answers",
                                   "orig_answers"), revision="refs/convert/parquet"),  # its main branch is a script
          "QuAC", 5, measure="quac", max_new_tokens=48, **TALK),
    # SuperGLUE
    _task("boolq", "yes or no, after a passage", choice_rows.boolq,
          HubData("google/boolq", ("passage", "question", "answer")), "BoolQ", 32, **HALF),
    _task("copa", "cause or effect", choice_rows.copa,
          _superglue("copa", "premise", "choice1", "choice2", "question"), "COPA", 32, **HALF),
    _task("rte", "entailed or not", choice_rows.rte, _superglue("rte", "premise", "hypothesis"), "RTE", 32, **HALF),
    _task("cb", "entailed, denied or neither", choice_rows.cb, _superglue("cb", "premise", "hypothesis"), "CB", 32,
          whole="macro_f1", metrics=("acc", "f1"), **THIRD),
    _task("wic", "a word in the same sense or not", choice_rows.wic,
          _superglue("wic", "word", "sentence1", "sentence2"), "WiC", 32, **HALF),
    _task("wsc", "the noun that a pronoun means", text_rows.wsc,
          _superglue("wsc.fixed", "text", "span1_text", "span2_text", "span2_index"), "WSC", 32,
          kind="text", measure="wsc", max_new_tokens=12, fixed_draw=True, instruction=text_rows.WSC_INSTRUCTION),
    _task("multirc", "each of many answers true or false", passage_rows.multirc,
          _superglue("multirc", "paragraph", "question", "answer", "idx"), "MultiRC", 32, join=passage_rows.with_answers,
          whole="multirc", metrics=("acc", "f1a"), fixed_draw=True, instruction="READING COMPREHENSION ANSWER KEY\n\n"),
    _task("record", "the entity that fits a gap", passage_rows.record,
          HubData("aps/super_glue", ("passage", "query", "entities", "answers"), config="record"),
          "ReCoRD", 32, measure="record", metrics=("acc", "f1")),
    *(_task(f"anli_r{n}", "adversarial entailment", choice_rows.anli(n),
            HubData("facebook/anli", ("premise", "hypothesis", "label"), f"test_r{n}", f"train_r{n}"),
            f"ANLI R{n}", 50, **THIRD)
      for n in (1, 2, 3)),
    # translation
    *(_task(f"wmt{year}_{source}_{target}", f"{text_rows.LANGUAGES[source]} to {text_rows.LANGUAGES[target]}",
            text_rows.translation(source, target),
            HubData(f"wmt/wmt{year}", ("translation",), "test", "validation", pair),
            f"{source.title()}-{target.title()} {year}", 64,
            files=(f"wmt{year}_{source}_{target}", f"wmt{year}_{target}_{source}"),
            zero_shot=text_rows.translation_asked(source, target), kind="text", measure="none", whole="bleu",
            metrics=("bleu",), max_new_tokens=200, separator="\n")
      for year, pair in ((14, "fr-en"), (16, "de-en"), (16, "ro-en"))
      for source, target in (pair.split("-"), reversed(pair.split("-")))),
)
# fmt: on
TRANSLATION = tuple(task for task in FILE_TASKS if task.whole == "bleu")
SUPERGLUE = tuple(
    task for task in FILE_TASKS if task.name in ("boolq", "cb", "copa", "rte", "wic", "wsc", "multirc", "record")
)
