"""`gpt3 generate --input`: every line in its place, and a file that does not tell how often the work was killed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpt3.cli.generate import run
from gpt3.errors import InputError
from gpt3.inference.generation import GenerationRequest
from gpt3.inference.language_model import load
from gpt3.inference.many_prompts import Prompt, read_prompts
from gpt3.inference.options import GenerateOptions

COUNT = 40
FEW = {"seed": 5, "max_new_tokens": 12, "num_samples": 2, "batch": 3}


@pytest.fixture
def prompts(home) -> Path:
    """Prompts of very different lengths, so that samples are complete in another order than they are written in."""
    path = home / "prompts.jsonl"
    lines = [
        {"prompt": "the sea " * (number * 7 % 20), "id": f"p{number}", "note": "left alone"} for number in range(COUNT)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def lines_of(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def test_a_line_a_sample_in_the_prompts_order(home, prompts, capfd):
    run(GenerateOptions(input="prompts.jsonl", output="deep/out.jsonl", **FEW))
    lines = lines_of("deep/out.jsonl")
    assert [(line["id"], line["prompt_index"], line["index"]) for line in lines] == [
        (f"p{number}", number, sample) for number in range(COUNT) for sample in range(2)
    ]
    options = {name: value for name, value in FEW.items() if name != "batch"}
    texts = [prompt.text for prompt in read_prompts("prompts.jsonl")[0]]
    alone = load().complete(texts, top_p=0.9, **options)  # in one job: what a sample becomes is its number's alone
    assert [line["text"] for line in lines] == [sample.text for samples in alone for sample in samples]
    out, err = capfd.readouterr()
    assert out == ""
    assert re.search(r"80 samples, [\d,]+ tokens in .*--seed 5 gives the same again", err)


def test_without_output_lines_go_to_standard_output(home, prompts, capfd):
    run(GenerateOptions(input="prompts.jsonl", output="out.jsonl", **FEW))
    capfd.readouterr()
    run(GenerateOptions(input="prompts.jsonl", **FEW))
    assert capfd.readouterr().out == Path("out.jsonl").read_text(encoding="utf-8")


def test_every_cut_is_mended(home, prompts, capfd):
    """Lines that are whole stay, a torn one goes, and the rest is the same to the last digit of a log-probability."""
    options = GenerateOptions(input="prompts.jsonl", output="out.jsonl", logprobs=1, **FEW)
    run(options)
    whole = Path("out.jsonl").read_bytes()
    first = whole.index(b"\n") + 1
    for cut in (0, 1, first - 1, first, len(whole) // 2, len(whole) - 1):
        Path("out.jsonl").write_bytes(whole[:cut])
        run(options)
        assert Path("out.jsonl").read_bytes() == whole
    Path("out.jsonl").write_bytes(whole[:first] + b"\0" * 50)  # what a power cut may leave
    run(options)
    assert Path("out.jsonl").read_bytes() == whole
    capfd.readouterr()
    age = Path("out.jsonl").stat().st_mtime_ns
    run(options)
    assert "is complete: 40 prompts; nothing to do" in capfd.readouterr().err
    assert Path("out.jsonl").stat().st_mtime_ns == age


@pytest.mark.skipif(os.name == "nt", reason="signals to a child process differ")
def test_killed_in_the_middle_and_started_again(home, capfd):
    """SIGKILL while it writes; started again without --seed it takes the seed it drew, and nothing tells of the kill."""
    Path("prompts.txt").write_text("".join(f"the sea {number}\n" for number in range(150)), encoding="utf-8")
    words = ["generate", "--input", "prompts.txt", "--max-new-tokens", "30", "--batch", "2", "--logprobs", "1"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    # compiles the kernels if nobody has: the processes load them, as code just compiled may round a last digit otherwise
    run(GenerateOptions(input="prompts.txt", output="first.jsonl", max_new_tokens=2, batch=2))
    command = [sys.executable, "-m", "gpt3", *words, "--output", "out.jsonl"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=env)
    out = Path("out.jsonl")
    try:
        while not out.exists() or out.read_bytes().count(b"\n") < 20:
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    before = out.read_bytes()
    assert 20 <= before.count(b"\n") < 150
    rest = [[*words, "--output", "out.jsonl"]]
    rest += [[*words, "--output", "again.jsonl", "--seed", str(json.loads(before.partition(b"\n")[0])["seed"])]]
    code = f"from gpt3.cli.main import main; raise SystemExit(any([main(words) for words in {rest!r}]))"
    subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL, env=env, check=True)
    assert out.read_bytes().startswith(before[: before.rindex(b"\n")])
    assert out.read_bytes() == Path("again.jsonl").read_bytes()
    assert [line["prompt_index"] for line in lines_of(out)] == list(range(150))


def test_an_interruption_keeps_what_is_complete(home, prompts, capfd, monkeypatch):
    options = GenerateOptions(input="prompts.jsonl", output="out.jsonl", **FEW)
    steps = GenerationRequest.__iter__

    def interrupted(job):
        for taken, step in enumerate(steps(job)):
            if taken == 60:
                raise KeyboardInterrupt
            yield step

    monkeypatch.setattr(GenerationRequest, "__iter__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(options)
    count = len(lines_of("out.jsonl"))
    assert count > 0
    assert f"{count} of 80 samples are in out.jsonl. Run the same command to resume." in capfd.readouterr().err


def test_other_settings_are_refused(home, prompts, capfd):
    run(GenerateOptions(input="prompts.jsonl", output="out.jsonl", **FEW))
    whole = Path("out.jsonl").read_bytes()
    settings = {"input": "prompts.jsonl", "output": "out.jsonl", **FEW}
    with pytest.raises(
        InputError, match=r"other options: --temperature was 1\.0, now 0\.5; --top-k was 0, now 3\. Use"
    ):
        run(GenerateOptions(temperature=0.5, top_k=3, **settings))
    weights = home / "runs" / "demo" / "model" / "model.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-2] ^= 1
    weights.write_bytes(changed)
    with pytest.raises(InputError, match="model"):
        run(GenerateOptions(**settings))
    assert Path("out.jsonl").read_bytes() == whole
    run(GenerateOptions(temperature=0.5, overwrite=True, **settings))
    assert Path("out.jsonl").read_bytes() != whole
    assert len(lines_of("out.jsonl")) == 80


def test_a_file_of_unknown_origin_is_not_touched(home, prompts):
    Path("notes.jsonl").write_text('{"mine": 1}\n')
    with pytest.raises(InputError, match=r"notes\.jsonl exists and is not known .*--overwrite or another --output"):
        run(GenerateOptions(input="prompts.jsonl", output="notes.jsonl", **FEW))
    with pytest.raises(InputError, match="is the --input itself"):
        run(GenerateOptions(input="prompts.jsonl", output="./prompts.jsonl", overwrite=True, **FEW))
    with pytest.raises(InputError, match="is not a file"):
        run(GenerateOptions(input="prompts.jsonl", output="runs", **FEW))
    assert Path("notes.jsonl").read_text() == '{"mine": 1}\n'
    assert len(lines_of("prompts.jsonl")) == COUNT


def test_prompts_longer_than_the_context_are_counted(home, capfd):
    Path("prompts.txt").write_text("the sea " * 400 + "\nthe sky\n", encoding="utf-8")
    run(GenerateOptions(input="prompts.txt", output="out.jsonl", seed=0, max_new_tokens=3))
    assert "1 prompts longer than the context: their newest 256 tokens are kept" in capfd.readouterr().err
    assert [line["dropped_prompt_tokens"] > 0 for line in lines_of("out.jsonl")] == [True, False]


def test_forms_of_prompt_lists(home, pipe_in):
    Path("a.txt").write_bytes("\ufeffἘν ἀρχῇ\r\n\n{not json}\n  the sea".encode())
    assert [prompt.text for prompt in read_prompts("a.txt")[0]] == ["Ἐν ἀρχῇ", "{not json}", "  the sea"]
    Path("a.jsonl").write_text('{"prompt": ""}\n\n{"prompt": "two\\nlines", "id": 7}\n')
    listed = [Prompt(""), Prompt("two\nlines", 7)]
    assert read_prompts("a.jsonl")[0] == listed
    pipe_in(Path("a.jsonl").read_bytes())
    assert read_prompts("-")[0] == listed
    pipe_in(b"plain\ntext")
    assert read_prompts("-")[0] == [Prompt("plain"), Prompt("text")]


def test_bad_prompt_lists(home):
    Path("bad.jsonl").write_text(
        '{"prompt": "fine"}\nno\n{"text": "x"}\n{"prompt": "x", "temperature": 0}\n{"prompt": "\\ud800"}\n'
    )
    Path("half.jsonl").write_text('{"prompt": "x", "id": "\\ud83d"}\n{"prompt": "x", "id": ' + "9" * 5000 + "}\n")
    Path("latin.txt").write_bytes(b"caf\xe9")
    Path("empty.txt").write_text("\n\n")
    for name, message in (
        (
            "bad.jsonl",
            r"line 2: not JSON.*; line 3: no text under .*; line 4: temperature: options .*; 1 more such lines",
        ),
        ("half.jsonl", r'line 1: the escape \\ud83d is half .*; line 2: "id" is Infinity; give a text'),
        ("latin.txt", "is not UTF-8 at byte 3"),
        ("empty.txt", "has no prompts"),
        ("none.txt", r"none.txt cannot be read"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            run(GenerateOptions(input=name))
        assert "\n" not in str(caught.value)
