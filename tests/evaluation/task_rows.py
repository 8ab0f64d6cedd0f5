"""A row of each task as its dataset on the hub has it, and what becomes of it: the context and the right completion."""

PASSAGE = "Al met Bo in Rome. They ate."
ROWS = {
    "hellaswag": {
        "activity_label": "Cooking",
        "ctx_a": "He stirs.",
        "ctx_b": "he",
        "ctx": "He stirs. he",
        "endings": ["eats.", "flies.", "sings.", "sleeps."],
        "label": "0",
    },
    "storycloze": {
        **{f"input_sentence_{n}": f"Part {n}." for n in range(1, 5)},
        "sentence_quiz1": "It ends.",
        "sentence_quiz2": "It begins.",
        "answer_right_ending": 2,
    },
    "lambada": {"text": "She went home"},
    "lambada_standard": {"text": "she went home"},
    "triviaqa": {"question": "Who?", "answer": {"value": "Me", "aliases": ["I", "Me"], "normalized_value": "me"}},
    "nq": {"question": "who sang it", "answer": ["Al", "Bo"]},
    "webqs": {"question": "where is rome?", "answers": ["Italy"], "url": "u"},
    "winograd": {
        "text": "The trophy is not in the case because it is big.",
        "pronoun": "it",
        "pronoun_loc": 38,
        "quote": "it is big",
        "quote_loc": 38,
        "options": ["The trophy", "The case"],
        "label": 1,
        "source": "s",
    },
    "pairs": {"good": "The sea is blue.", "bad": "The sea are blue."},
    "winogrande": {"sentence": "Al beat Bo so _ won.", "option1": "Al", "option2": "Bo", "answer": "1"},
    "winogender": {"sentid": "cook.guest.0.female.txt", "sentence": "The cook told the guest that she was late."},
    "piqa": {"goal": "How to dry?", "sol1": "In the sun.", "sol2": "In water.", "label": 0},
    "arc_easy": {
        "id": "1",
        "question": "What is wet?",
        "choices": {"text": ["water", "sand", "dust"], "label": ["A", "B", "C"]},
        "answerKey": "A",
    },
    "arc_challenge": {
        "id": "1",
        "question": "What is wet?",
        "choices": {"text": ["sand", "water"], "label": ["1", "2"]},
        "answerKey": "2",
    },
    "openbookqa": {
        "id": "1",
        "question_stem": "Rain is",
        "choices": {"text": ["wet", "dry", "hot", "old"], "label": ["A", "B", "C", "D"]},
        "answerKey": "A",
    },
    "race_h": {
        "example_id": "a.txt",
        "article": PASSAGE,
        "question": "They _ .",
        "options": ["ate", "sat"],
        "answer": "A",
    },
    "race_m": {
        "example_id": "b.txt",
        "article": PASSAGE,
        "question": "Who ate?",
        "options": ["I", "Both"],
        "answer": "B",
    },
    "squad2": {
        "id": "1",
        "title": "Rome",
        "context": PASSAGE,
        "question": "Where?",
        "answers": {"text": ["Rome", "in Rome", "Rome"], "answer_start": [13, 10, 13]},
    },
    "coqa": {
        "id": "s",
        "source": "w",
        "story": PASSAGE,
        "questions": {"input_text": ["Who met Bo?", "Where?"], "turn_id": [1, 2]},
        "answers": {"input_text": ["Al", "Rome"], "span_start": [0, 13], "turn_id": [1, 2]},
        "additional_answers": {
            key: {"input_text": ["Al did", "In Rome"], "turn_id": [1, 2]} for key in ("0", "1", "2")
        },
    },
    "drop": {
        "section_id": "s",
        "query_id": "q",
        "passage": PASSAGE,
        "question": "Who?",
        "answer": {"number": "", "date": {"day": "", "month": "", "year": ""}, "spans": ["Al", "Bo"], "hit_id": "h"},
        "validated_answers": {
            "number": ["2", ""],
            "date": [{"day": "", "month": "", "year": ""}, {"day": "1", "month": "May", "year": "1900"}],
            "spans": [[], []],
            "hit_id": ["h", "h"],
        },
    },
    "quac": {
        "dialogue_id": "d",
        "wikipedia_page_title": "Al",
        "section_title": "Life",
        "context": f"{PASSAGE} CANNOTANSWER",
        "questions": ["Where?", "Why?"],
        "orig_answers": {"texts": ["Rome", "CANNOTANSWER"], "answer_starts": [13, 29]},
        "answers": {"texts": [["in Rome", "Rome"], ["CANNOTANSWER"]], "answer_starts": [[10, 13], [29]]},
    },
    "boolq": {"passage": "Cats purr.", "question": "do cats purr", "answer": True},
    "copa": {
        "premise": "It fell.",
        "choice1": "It broke.",
        "choice2": "He slept.",
        "question": "effect",
        "label": 0,
        "idx": 0,
    },
    "rte": {"premise": "Al ate.", "hypothesis": "Al sat.", "label": 1, "idx": 0},
    "cb": {"premise": "Al ate.", "hypothesis": "Al sat", "label": 2, "idx": 0},
    "wic": {"word": "bank", "sentence1": "A bank.", "sentence2": "The bank.", "start1": 2, "label": 1, "idx": 0},
    "wsc": {
        "text": "Al beat Bo so he won.",
        "span1_index": 0,
        "span2_index": 4,
        "span1_text": "Al",
        "span2_text": "he",
        "label": 1,
        "idx": 0,
    },
    "multirc": {
        "paragraph": PASSAGE,
        "question": "Who ate?",
        "answer": "Al and Bo",
        "idx": {"paragraph": 0, "question": 1, "answer": 2},
        "label": 1,
    },
    "record": {
        "passage": f"{PASSAGE}\n@highlight\nAl ate",
        "query": "There @placeholder ate.",
        "entities": ["Rome", "Bo", "Al"],
        "entity_spans": {"text": ["Rome"], "start": [13], "end": [17]},
        "answers": ["Bo", "Al"],
        "idx": {"passage": 0, "query": 0},
    },
    **{
        f"anli_r{n}": {"uid": "u", "premise": "Al ate.", "hypothesis": "Al sat.", "label": 1, "reason": ""}
        for n in (1, 2, 3)
    },
    **{
        f"wmt{name}": {"translation": {"en": "The sea.", "fr": "La mer.", "de": "Das Meer.", "ro": "Marea."}}
        for name in ("14_en_fr", "14_fr_en", "16_de_en", "16_en_de", "16_ro_en", "16_en_ro")
    },
    "mmlu": {"subject": "anatomy", "question": "Where?", "choices": ["here", "there", "up", "down"], "answer": 1},
}
TALK = f"{PASSAGE}\n\n"
EXPECTED = {
    "hellaswag": ("Cooking: He stirs. he", " eats."),
    "storycloze": ("Part 1. Part 2. Part 3. Part 4.", " It begins."),
    "lambada": ("She went ____. ->", " home"),
    "lambada_standard": ("she went ____. ->", " home"),
    "triviaqa": ("Q: Who?\n\nA:", " Me"),
    "nq": ("Q: who sang it?\n\nA:", " Al"),
    "webqs": ("Q: where is rome?\n\nA:", " Italy"),
    "winograd": ("The trophy is not in the case because the case", " is big."),
    "pairs": ("", "The sea is blue."),
    "winogrande": ("Al beat Bo so Al", " won."),
    "winogender": ("The cook told the guest that she was late. 'She' refers to the", " cook"),
    "piqa": ("How to dry?", " In the sun."),
    "arc_easy": ("Question: What is wet?\nAnswer:", " water"),
    "arc_challenge": ("Question: What is wet?\nAnswer:", " water"),
    "openbookqa": ("Rain is", " wet"),
    "race_h": (f"Article:\n{TALK}Q: They _ .\n\nA:", " ate"),
    "race_m": (f"Article:\n{TALK}Q: Who ate?\n\nA:", " Both"),
    "squad2": (f"Title: Rome\n\nBackground: {TALK}Q: Where?\n\nA:", " Rome"),
    "coqa": (f"{TALK}Q: Who met Bo?\n\nA: Al\n\nQ: Where?\n\nA:", " Rome"),
    "drop": (f"Passage: {PASSAGE}\nQuestion: Who?\nAnswer:", " Al, Bo"),
    "quac": (
        f"TITLE: Al - Life\nPARAGRAPH: {PASSAGE} CANNOTANSWER\n\nQ: Where?\n\nA: Rome\n\nQ: Why?\n\nA:",
        " CANNOTANSWER",
    ),
    "boolq": ("Cats purr.\nquestion: do cats purr?\nanswer:", " yes"),
    "copa": ("It fell therefore", " it broke."),
    "rte": ("Al ate.\nquestion: Al sat. True or False?\nanswer:", " False"),
    "cb": ("Al ate.\nquestion: Al sat. true, false, or neither?\nanswer:", " neither"),
    "wic": (
        "A bank.\nThe bank.\nquestion: Is the word 'bank' used in the same way in the two sentences above?\nanswer:",
        " yes",
    ),
    "wsc": (
        'Passage: Al beat Bo so *he* won.\nQuestion: In the passage above, what does the pronoun "*he*" refer to?\nAnswer:',
        " al",
    ),
    "multirc": (f"{TALK}Who ate?", "\n- [True] Al and Bo"),
    "record": (f"{PASSAGE}\n- Al ate", "\n- There Bo ate."),
    **{
        f"anli_r{n}": (f"anli {n}: anli {n}: Al ate.\nQuestion: Al sat. True, False, or Neither?", " Neither")
        for n in (1, 2, 3)
    },
    "wmt14_en_fr": ("The sea. =", " La mer."),
    "wmt14_fr_en": ("La mer. =", " The sea."),
    "wmt16_de_en": ("Das Meer. =", " The sea."),
    "wmt16_en_de": ("The sea. =", " Das Meer."),
    "wmt16_ro_en": ("Marea. =", " The sea."),
    "wmt16_en_ro": ("The sea. =", " Marea."),
    "mmlu": ("Where?\nA. here\nB. there\nC. up\nD. down\nAnswer:", " B"),
}
"""The last item of the row."""
INSTRUCTIONS = {
    "wsc": "Final Exam with Answer Key\n",
    "multirc": "READING COMPREHENSION ANSWER KEY\n\n",
    "lambada": "Fill in blank:\n\n",
}
