"""All tasks and groups by name. A new task is a function that makes an item of a row, and a line here.

Rows of files and of the hub get the paper's prompts (App. G). Those with a field `split` are divided by it: train, dev and
validation give the few-shot examples, test is scored. Without such rows, and without a file NAME_train, examples come from the
scored rows themselves, never from the passage of the question.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gpt3 import durable
from gpt3.corpus.prepare import cache_folder
from gpt3.errors import InputError
from gpt3.evaluation import HubData, Source, Split, Task, answer_rows, answers, choice_rows, minimal_pairs, winogender
from gpt3.evaluation.answer_rows import Join
from gpt3.evaluation.gender import GENDER
from gpt3.evaluation.generated_tasks import ARITHMETIC, SCRAMBLING, WIKI_TOPIC
from gpt3.evaluation.grammar_correction import GRAMMAR_CORRECTION
from gpt3.evaluation.lm_eval_rows import STYLES as LM_EVAL
from gpt3.evaluation.minimal_pairs import GRAMMAR
from gpt3.evaluation.novel_words import NOVEL_WORDS
from gpt3.evaluation.task_rows import Make, check_folder, locate, read_items
from gpt3.tables import aligned

DATA = Path(__file__).parent / "data"
ROW_OPTIONS = ("make", "zero_shot", "join", "instruction")


def split_rows(
    source: Source,
    files: Sequence[str],
    hub: HubData | None,
    make: Make,
    zero_shot: Make | None = None,
    join: Join = list,
    instruction: str = "",
) -> Split:
    """Read a task's rows; the arguments are those of `file_task`."""
    path, more_shots, origin = locate(files, hub, source)
    test, shots = map(join, read_items(path, make))
    if not test:
        test, shots = shots, []
    if not test:
        raise InputError(f"{path} has no rows of this task.")
    if more_shots is not None:
        shots = [item for part in read_items(more_shots, make) for item in join(part)]
    plain = None
    if zero_shot is not None:
        asked, others = map(join, read_items(path, zero_shot))
        plain = asked or others
    if any(not item.rights for item in test):  # those are no few-shot examples
        return Split(test, [item for item in shots if item.rights], plain, instruction, origin)
    if shots and shots[0].solved:  # one of each question
        shots = list({item.demonstration: item for item in shots}.values())
    return Split(test, shots or None, plain, instruction, origin)


def file_task(
    name: str, summary: str, make: Make, hub: HubData | None, paper: str | None, shots: int, **more: Any
) -> Task:
    """A task with rows.

    Args:
        make: the item or items of a row.
        hub: its dataset on the hub; None: it needs --data-dir.
        paper: its name in Table H.1.
        shots: the paper's K.
        more: fields of `Task`; `kind` is choice unless it is given. And these:

            files        names its file may have, without endings; default: its own name
            zero_shot    `make` for questions without few-shot examples, if different
            join         a change of all items of a file, such as putting earlier questions of a conversation before later ones
            instruction  before the first few-shot example
            styles       by --style, what differs there from the paper's: `make`, the three above, and fields of `Task`
    """
    rows = partial(split_rows, files=more.pop("files", (name,)), hub=hub)

    def split_of(options: dict[str, Any]) -> Callable[[Source], Split]:
        return partial(rows, **{key: options.pop(key) for key in ROW_OPTIONS if key in options})

    styles = {"lm-eval": LM_EVAL[name]} if name in LM_EVAL else {}
    changed = {style: dict(changes) for style, changes in (styles | more.pop("styles", {})).items()}
    styles = {style: {"split": split_of(changes)} | changes for style, changes in changed.items()}
    more["make"] = make
    split = split_of(more)
    return Task(name, summary, more.pop("kind", "choice"), split, shots, paper=paper, hub=hub, styles=styles, **more)


def _hub(repository: str, columns: str, *more: str | None, **named: str) -> HubData:
    return HubData(repository, tuple(columns.split()), *more, **named)  # type: ignore[arg-type]


def _superglue(config: str, columns: str) -> HubData:
    return _hub("aps/super_glue", f"{columns} label", config=config)


TEXT: dict[str, Any] = {"kind": "text", "max_new_tokens": 24, "metrics": ("acc", "f1"), "measure": answers.squad}
TALK: dict[str, Any] = {"kind": "text", "join": answer_rows.with_earlier, "metrics": ("f1", "acc")}
RATIO: dict[str, Any] = {"chance": 1 / 4, "normalization": "unconditional", "answer_context": "Answer:"}
ARC = "question choices answerKey"

# fmt: off
LAST_WORD: dict[str, Any] = {"kind": "word", "metrics": ("acc", "ppl"), "zero_shot": answer_rows.lambada,
                             "instruction": "Fill in blank:\n\n"}
FILE_TASKS = (
    # sentences
    file_task("pairs", "your own minimal pairs", minimal_pairs.blimp, None, None, 0, normalization="sum",
              chance=1 / 2),
    # completion and cloze
    file_task("hellaswag", "scene completion", choice_rows.hellaswag,
              _hub("Rowan/hellaswag", "activity_label ctx ctx_a ctx_b endings label"), "HellaSwag", 20, chance=1 / 4,
              files=("hellaswag", "hellaswag_val")),
    file_task("storycloze", "story completion", choice_rows.storycloze, None, "StoryCloze", 70, chance=1 / 2),
    file_task("lambada", "the last word of a passage", answer_rows.lambada_blank,
              _hub("EleutherAI/lambada_openai", "text", "test", None, "default"), "LAMBADA", 15, **LAST_WORD,
              files=("lambada", "lambada_openai", "lambada_standard")),
    file_task("lambada_standard", "the last word of a passage", answer_rows.lambada_blank,
              _hub("cimec/lambada", "text", "test", "validation"), None, 15, **LAST_WORD),
    # questions from memory
    file_task("triviaqa", "trivia, from memory", answer_rows.triviaqa,
              _hub("mandarjoshi/trivia_qa", "question answer", config="rc.wikipedia.nocontext"), "TriviaQA", 64,
              files=("triviaqa", "triviaqa_subset"), **TEXT),
    file_task("nq", "search questions, from memory", answer_rows.open_question,
              _hub("google-research-datasets/nq_open", "question answer"), "NQs", 64, files=("nq", "nq_open"), **TEXT),
    file_task("webqs", "questions about entities, from memory", answer_rows.open_question,
              _hub("stanfordnlp/web_questions", "question answers", "test"), "WebQs", 64, **TEXT),
    # pronouns
    file_task("winograd", "pronoun resolution", choice_rows.winograd,
              _hub("lighteval/winograd_wsc", "text pronoun pronoun_loc options label", "test", None, "wsc273"),
              "Winograd", 7, chance=1 / 2),
    file_task("winogrande", "pronoun resolution, adversarial", choice_rows.winogrande,
              _hub("allenai/winogrande", "sentence option1 option2 answer", config="winogrande_xl"),
              "Winogrande", 50, chance=1 / 2),
    file_task("winogender", "pronoun resolution: an occupation or another person", winogender.from_row,
              _hub("oskarvanderwal/winogender", "sentid sentence", "test", None, "all"), None, 0, chance=1 / 2,
              files=("winogender", "all_sentences"), metrics=winogender.METRICS, whole=winogender.FIGURES),
    # common sense and science
    file_task("piqa", "physical common sense", choice_rows.piqa, _hub("baber/piqa", "goal sol1 sol2 label"), "PIQA", 50,
              chance=1 / 2),
    file_task("arc_easy", "school science, easy", choice_rows.arc,
              _hub("allenai/ai2_arc", ARC, "test", config="ARC-Easy"), "ARC (Easy)", 50, **RATIO),
    file_task("arc_challenge", "school science, hard", choice_rows.arc,
              _hub("allenai/ai2_arc", ARC, "test", config="ARC-Challenge"), "ARC (Challenge)", 50,
              **RATIO),
    file_task("openbookqa", "science facts", choice_rows.openbookqa,
              _hub("allenai/openbookqa", "question_stem choices answerKey", "test", config="main"), "OpenBookQA", 100, **RATIO),
    # reading
    *(file_task(f"race_{school[0]}", f"exams of {school} schools", answer_rows.race,
                _hub("ehovy/race", "example_id article question options answer", "test", config=school),
                f"RACE-{school[0]}", 10, join=answer_rows.with_earlier, **RATIO | {"answer_context": "A:"})
      for school in ("high", "middle")),
    file_task("squad2", "answers in an article, or none", answer_rows.squad2,
              _hub("rajpurkar/squad_v2", "id title context question answers"), "SQuADv2", 16,
              measure=answers.squad2, max_new_tokens=32, **TALK | {"metrics": ("acc", "f1")}),
    file_task("coqa", "a conversation about a story", answer_rows.coqa,
              _hub("EleutherAI/coqa", "id story questions answers additional_answers"), "CoQA", 5,
              measure=answers.coqa, max_new_tokens=32, **TALK),
    file_task("drop", "arithmetic and dates in a passage", answer_rows.drop,
              _hub("EleutherAI/drop", "query_id passage question answer validated_answers"), "DROP", 20,
              **TEXT | {"metrics": ("f1", "acc"), "measure": answers.drop}),
    file_task("quac", "a conversation about an article", answer_rows.quac,  # the dataset's main branch is a script
              _hub("allenai/quac", "dialogue_id wikipedia_page_title section_title context questions answers orig_answers",
                   revision="refs/convert/parquet"), "QuAC", 5, measure=answers.quac, max_new_tokens=48, **TALK),
    # SuperGLUE
    file_task("boolq", "yes or no, after a passage", choice_rows.boolq, _hub("google/boolq", "passage question answer"),
              "BoolQ", 32, chance=1 / 2),
    file_task("copa", "cause or effect", choice_rows.copa, _superglue("copa", "premise choice1 choice2 question"),
              "COPA", 32, chance=1 / 2),
    file_task("rte", "entailed or not", choice_rows.rte, _superglue("rte", "premise hypothesis"), "RTE", 32, chance=1 / 2),
    file_task("cb", "entailed, denied or neither", choice_rows.cb, _superglue("cb", "premise hypothesis"), "CB", 32,
              whole={"f1": answers.macro_f1}, metrics=("acc", "f1"), chance=1 / 3),
    file_task("wic", "a word in the same sense or not", choice_rows.wic, _superglue("wic", "word sentence1 sentence2"),
              "WiC", 32, chance=1 / 2),
    file_task("wsc", "the noun that a pronoun refers to", answer_rows.wsc,
              _superglue("wsc.fixed", "text span1_text span2_text span2_index"), "WSC", 32, kind="text",
              measure=answers.wsc, max_new_tokens=12, fixed_draw=True, instruction=answer_rows.WSC_INSTRUCTION),
    file_task("multirc", "each of several answers, true or false", answer_rows.multirc,
              _superglue("multirc", "paragraph question answer idx"), "MultiRC", 32, join=answer_rows.with_answers,
              whole={"acc": answers.multirc_acc, "f1a": answers.multirc_f1a}, metrics=("acc", "f1a"), fixed_draw=True,
              instruction="READING COMPREHENSION ANSWER KEY\n\n"),
    file_task("record", "the entity that fits a gap", answer_rows.record,
              _hub("aps/super_glue", "passage query entities answers", config="record"), "ReCoRD", 32,
              measure=answers.record, metrics=("acc", "f1")),
    *(file_task(f"anli_r{n}", "adversarial entailment", partial(choice_rows.anli, number=n),
                _hub("facebook/anli", "premise hypothesis label", f"test_r{n}", f"train_r{n}"), f"ANLI R{n}", 50,
                chance=1 / 3)
      for n in (1, 2, 3)),
    # translation
    *(file_task(f"wmt{year}_{source}_{target}", f"{answer_rows.LANGUAGES[source]} to {answer_rows.LANGUAGES[target]}",
                partial(answer_rows.translation, source=source, target=target),
                _hub(f"wmt/wmt{year}", "translation", "test", "validation", pair),
                f"{source.title()}-{target.title()} {year}", 64, kind="text", max_new_tokens=200, separator="\n",
                files=(f"wmt{year}_{source}_{target}", f"wmt{year}_{target}_{source}"),
                zero_shot=partial(answer_rows.translation, source=source, target=target, asked=True),
                whole={"bleu": answers.bleu}, metrics=("bleu",))
      for year, pair in ((14, "fr-en"), (16, "de-en"), (16, "ro-en"))
      for source, target in (pair.split("-"), reversed(pair.split("-")))),
)
LISTED = "The following are multiple choice questions (with answers)"
MMLU = tuple(  # in its authors' format (Hendrycks et al. 2021); the examples of each subject are its own five dev rows
    file_task(f"mmlu_{subject}", f"MMLU, {about}", partial(choice_rows.mmlu, subject=subject),
              _hub("cais/mmlu", "subject question choices answer", "test", "dev", "all"), None, 5, files=("mmlu",),
              normalization="sum", chance=1 / 4, instruction=f"{LISTED} about {about}.\n\n",
              styles={"lm-eval": {"make": partial(choice_rows.mmlu, subject=subject),
                                  "instruction": f"{LISTED} about {about}.\n\n"},
                      "cloze": {"make": partial(choice_rows.mmlu_cloze, subject=subject), "normalization": "byte",
                                "metrics": ("acc",),
                                "instruction": f"The following are questions (with answers) about {about}.\n\n"},
                      "seed": {"make": partial(choice_rows.mmlu_seed, subject=subject)}})
    for subject in (DATA / "mmlu_subjects.txt").read_text(encoding="utf-8").split()
    for about in [subject.replace("_", " ")]
)
BLIMP = tuple(
    file_task(f"blimp_{paradigm}", f"BLiMP, {paradigm.replace('_', ' ')}", partial(minimal_pairs.blimp, paradigm=paradigm),
              _hub("nyu-mll/blimp", "sentence_good sentence_bad UID pair_id", "train", None, paradigm), None, 0,
              files=(f"blimp_{paradigm}", paradigm, "blimp"), normalization="sum", chance=1 / 2)
    for paradigm in (DATA / "blimp_paradigms.txt").read_text(encoding="utf-8").split()
)
# fmt: on

GENERATED = (*ARITHMETIC, *SCRAMBLING, WIKI_TOPIC, *GRAMMAR, NOVEL_WORDS, GRAMMAR_CORRECTION)
TASKS: dict[str, Task] = {
    task.name: task for task in (*GENERATED, *GENDER, winogender.PRONOUNS, *FILE_TASKS, *MMLU, *BLIMP)
}
GROUPS: dict[str, tuple[str, ...]] = {
    "arithmetic": tuple(task.name for task in ARITHMETIC),
    "scrambling": tuple(task.name for task in SCRAMBLING),
    "generated": tuple(task.name for task in GENERATED),
    "grammar": tuple(task.name for task in GRAMMAR),
    "small": (*(task.name for task in GRAMMAR), NOVEL_WORDS.name, WIKI_TOPIC.name),
    "blimp": tuple(task.name for task in BLIMP),
    "gender": tuple(task.name for task in GENDER),
    "mmlu": tuple(task.name for task in MMLU),
    "anli": ("anli_r1", "anli_r2", "anli_r3"),
    "race": ("race_h", "race_m"),
    "superglue": ("boolq", "copa", "rte", "cb", "wic", "wsc", "multirc", "record"),
    "translation": tuple(task.name for task in FILE_TASKS if "bleu" in task.whole),
    "paper": tuple(task.name for task in (*FILE_TASKS, *ARITHMETIC, *SCRAMBLING) if task.paper),
}


def in_folder(data_dir: str) -> list[Task]:
    """The tasks with a file in a folder of --data-dir, without MMLU and BLiMP.

    Raises:
        InputError: it is no folder.
    """
    check_folder(data_dir)
    found = []
    for task in FILE_TASKS:
        assert isinstance(task.split, partial)
        with contextlib.suppress(InputError):  # no file of this task
            locate(task.split.keywords["files"], None, Source(data_dir))
            found.append(task)
    return found


def select(names: Sequence[str], option: str = "--tasks") -> list[Task]:
    """Tasks of these names and groups of `option`, each once, in the order given.

    Raises:
        InputError: unknown names, with similar ones.
    """
    found: dict[str, Task] = {}
    faults = []
    for name in names:
        members = (name,) if name in TASKS else GROUPS.get(name, ())
        found |= {member: TASKS[member] for member in members}
        if not members:
            near = difflib.get_close_matches(name, [*TASKS, *GROUPS], n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else "`gpt3 eval --list-tasks` shows them all."
            faults.append(f"{option}: no task {name}; {hint}")
    if faults:
        raise InputError("; ".join(faults))
    return list(found.values())


def listing() -> str:
    """All tasks: name, kind, the paper's K, what is asked, and the dataset on the hub."""
    tasks, groups = [("task", "kind", "K", "asks")], [("group", "tasks", "")]
    for task in TASKS.values():
        if task.name not in (*GROUPS["mmlu"], *GROUPS["blimp"]):
            place = f" ({task.hub.repository})" if task.hub is not None else ""
            tasks.append((task.name, task.kind, str(task.shots), task.summary + place))
    for name, members in GROUPS.items():
        groups.append((name, str(len(members)), ", ".join(members[:4]) + ", …" * (len(members) > 4)))
    return "\n".join([*aligned(tasks, left=range(4)), "", *aligned(groups, left=range(3))])


# ---- definitions for lm-eval

SIGNS = {"+": "a", "-": "s", "x": "m"}
"""Addition, subtraction and multiplication in the names of lm-eval's own arithmetic tasks."""
AVERAGES = {"translation": "bleu"} | dict.fromkeys(
    ("arithmetic", "scrambling", "grammar", "blimp", "mmlu", "anli", "race", "superglue"), "acc"
)
"""The figure to average over a group's tasks; the other groups are lists. MMLU's mean is that of all its questions."""


def lm_eval_name(name: str) -> str:
    """A task's or group's name in lm-eval: arithmetic-2d+ is gpt3_arithmetic_2da."""
    name = re.sub(r"(?<=\dd)[-+x]$", lambda sign: SIGNS[sign[0]], name)
    return f"gpt3_{name.replace('-', '_')}"


def lm_eval_definitions() -> dict[str, str]:
    """YAML files by path: one per task, which names `harness.PaperTask`, and one per group."""
    files = {}
    for name in TASKS:
        folder = "mmlu/" if name in GROUPS["mmlu"] else ""
        files[f"{folder}{lm_eval_name(name)}.yaml"] = (
            f"task: {lm_eval_name(name)}\ngpt3_task: {name}\nclass: !function gpt3.evaluation.harness.PaperTask\n"
        )
    for name, members in GROUPS.items():
        text = f"group: {lm_eval_name(name)}\ntask:\n" + "".join(f"  - {lm_eval_name(member)}\n" for member in members)
        if name in AVERAGES:
            weighted = str(name == "mmlu").lower()
            text += f"aggregate_metric_list:\n  - metric: {AVERAGES[name]}\n    weight_by_size: {weighted}\n"
        files[f"groups/{lm_eval_name(name)}.yaml"] = text
    return files


def write_lm_eval_definitions() -> Path:
    """The folder of the definitions in the user's cache, for lm-eval's --include_path; written if it is not there yet."""
    files = lm_eval_definitions()
    digest = hashlib.sha256(repr(files).encode()).hexdigest()[:8]
    folder = cache_folder() / f"lm-eval-tasks-{digest}"
    if not folder.is_dir():
        with durable.replacing(folder) as temporary:
            for name, text in files.items():
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                (temporary / name).write_text(text, encoding="utf-8", newline="\n")
    return folder
