"""`gpt3 generate`: where the prompt comes from, what goes to which stream, and how it ends."""

import io
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from gpt3.cli.generate import run
from gpt3.cli.main import main
from gpt3.errors import InputError
from gpt3.inference import speed
from gpt3.inference.generation import GenerationRequest
from gpt3.inference.language_model import load, make_engine
from gpt3.inference.options import GenerateOptions
from gpt3.inference.speed import bytes_per_step
from gpt3.inference.torch_engine import ReferenceEngine
from gpt3.tokenizer.train import train_tokenizer

PROMPT = "Once upon a time"
ANY = {"seed": 0, "max_new_tokens": 30}


def said(options, capfd):
    run(options)
    return capfd.readouterr()


def expected(home, prompt, **options):
    return load(home / "runs" / "demo").complete(prompt, **{"top_p": 0.9, **ANY, **options})


def test_text_goes_out_and_notes_to_stderr(home, capfd):
    out, err = said(GenerateOptions(prompt=PROMPT, **ANY), capfd)
    text = expected(home, PROMPT)[0].text
    assert out == text + "\n"
    assert f"model: {Path('runs') / 'demo' / 'model'}" in err
    assert re.search(r"30 tokens in \d+\.\d s\b.*; ended by --max-new-tokens 30; --seed 0 gives the same again", err)


def test_each_piece_goes_out_at_once(home, monkeypatch):
    """No buffer is waited for, and every write is whole characters."""
    writes = []

    class Pipe(io.RawIOBase):
        def writable(self):
            return True

        def write(self, content):
            writes.append(bytes(content))
            return len(content)

    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(Pipe()), encoding="latin-1"))
    assert main(["generate", PROMPT, "--seed", "0", "--max-new-tokens", "30"]) == 0
    monkeypatch.undo()
    monkeypatch.chdir(home)
    pieces = list(load().stream(PROMPT, top_p=0.9, **ANY))
    assert [content.decode("utf-8") for content in writes] == [*pieces, "\n"]
    assert len(pieces) > 10


def test_the_seed_in_the_note_gives_the_same_again(home, capfd):
    out, err = said(GenerateOptions(prompt=PROMPT, max_new_tokens=20), capfd)
    seed = int(re.search(r"--seed (\d+)", err)[1])
    assert said(GenerateOptions(prompt=PROMPT, max_new_tokens=20, seed=seed), capfd).out == out


@pytest.mark.parametrize("content", ["Ἐν ἀρχῇ ἦν\n", "Ἐν ἀρχῇ ἦν", "\ufeffἘν ἀρχῇ ἦν\r\n"])
@pytest.mark.parametrize("options", [{}, {"prompt": "-"}, {"prompt_file": "-"}, {"prompt_file": "prompt.txt"}])
def test_piped_and_filed_prompts(home, pipe_in, capfd, content, options):
    """UTF-8 wherever it comes from; the one line end that echo and editors add is not the prompt's."""
    (home / "prompt.txt").write_bytes(content.encode())
    pipe_in(b"" if options.get("prompt_file") == "prompt.txt" else content.encode())
    assert said(GenerateOptions(**options, **ANY), capfd).out == expected(home, "Ἐν ἀρχῇ ἦν")[0].text + "\n"


def test_only_one_line_end_is_left_out(home, pipe_in, capfd):
    pipe_in(b"Q: sea\n\n")
    assert said(GenerateOptions(json=True, **ANY), capfd).out.startswith(
        '{"index": 0, "prompt_index": 0, "prompt": "Q: sea\\n"'
    )


def test_a_given_prompt_leaves_standard_input_unread(home, pipe_in, capfd):
    pipe_in(b"something else")
    run(GenerateOptions(prompt=PROMPT, **ANY))
    assert sys.stdin.read() == "something else"


def test_nothing_given_begins_a_document(home, pipe_in, capfd):
    pipe_in(b"")
    out, err = said(GenerateOptions(**ANY), capfd)
    assert out == expected(home, "")[0].text + "\n"
    assert "the prompt is empty: a new document begins" in err


def test_bad_prompts(home, pipe_in):
    (home / "latin.txt").write_bytes("caf\u00e9 ".encode("latin-1"))
    pipe_in(b"ab\xff")
    for options, message in (
        ({"prompt_file": "latin.txt"}, "latin.txt is not UTF-8 at byte 3"),
        ({"prompt_file": "none.txt"}, r"none.txt cannot be read \(No such file"),
        ({"prompt_file": "."}, ". cannot be read"),
        ({"prompt": "-"}, "standard input is not UTF-8 at byte 2"),
    ):
        with pytest.raises(InputError, match=message):
            run(GenerateOptions(**options))


def test_several_samples_are_numbered(home, capfd):
    out, _ = said(GenerateOptions(prompt=PROMPT, num_samples=3, **ANY), capfd)
    parts = re.split(r"^--- sample (\d) of 3 ---\n", out, flags=re.M)
    texts = [result.text + "\n" for result in expected(home, PROMPT, num_samples=3)]
    assert parts == ["", "1", texts[0] + "\n", "2", texts[1] + "\n", "3", texts[2]]


def test_json_lines(home, capfd):
    out, err = said(GenerateOptions(prompt=PROMPT, num_samples=2, json=True, stop=["e"], **ANY), capfd)
    lines = [json.loads(line) for line in out.splitlines()]
    for line, result in zip(lines, expected(home, PROMPT, num_samples=2, stop=["e"]), strict=True):
        same = {"index", "prompt", "text", "tokens", "finish_reason", "prompt_tokens", "dropped_prompt_tokens", "seed"}
        assert {name: line[name] for name in same} == {name: result.as_dict()[name] for name in same}
        assert line["token_count"] == len(line["tokens"])
        assert line["seconds"] > 0
        assert line["tokens_per_second"] > 0
    assert "tokens/s" not in err


def test_a_long_prompt_is_told(home, capfd):
    prompt = "the sea and the ships " * 200
    _, err = said(GenerateOptions(prompt=prompt, **ANY), capfd)
    result = expected(home, prompt)[0]
    total = result.prompt_tokens + result.dropped_prompt_tokens
    assert (
        f"the prompt has {total:,} tokens, the model's context 256: the newest 256 are kept, the oldest "
        f"{result.dropped_prompt_tokens:,} dropped" in err
    )


def test_the_model_is_checked_before_anything_is_loaded(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="train one first"):
        run(GenerateOptions(prompt=PROMPT, model="typo"))
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("as_json", [False, True])
def test_an_interruption_leaves_the_text_so_far(home, capfd, monkeypatch, as_json):
    """Ctrl-C while the twelfth piece is computed, of two samples."""
    steps = GenerationRequest.__iter__

    def interrupted(job):
        yield from itertools.islice(steps(job), 11)
        raise KeyboardInterrupt

    whole = [result.text for result in expected(home, PROMPT, num_samples=2)]
    monkeypatch.setattr(GenerationRequest, "__iter__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(GenerateOptions(prompt=PROMPT, json=as_json, num_samples=2, **ANY))
    out = capfd.readouterr().out
    if as_json:
        lines = [json.loads(line) for line in out.splitlines()]
        assert [line["finish_reason"] for line in lines] == ["interrupted"] * 2
        texts = [line["text"] for line in lines]
    else:
        texts = re.fullmatch("--- sample 1 of 2 ---\n(.*)\n\n--- sample 2 of 2 ---\n(.*)\n", out, flags=re.S).groups()
    for text, complete in zip(texts, whole, strict=True):
        assert len(text) > 2
        assert complete.startswith(text)
        assert complete != text


def test_logprobs_are_in_json(home, capfd):
    out, _ = said(GenerateOptions(prompt=PROMPT, json=True, logprobs=2, **ANY), capfd)
    line = json.loads(out)
    assert [token["id"] for token in line["logprobs"]] == line["tokens"]
    for token in line["logprobs"]:
        assert len(token["top"]) == 2
        assert token["logprob"] <= token["top"][0][1] <= 0


@pytest.mark.parametrize("options", [{}, {"num_samples": 3, "json": True}, {"lookup": True}, {"draft": "runs/demo"}])
def test_stats_count_what_was_decoded(home, capfd, options):
    """The first token of each sample comes with its prompt, the others in steps of decoding."""
    out, err = said(GenerateOptions(prompt=PROMPT, stats=True, **options, **ANY), capfd)
    plain, _ = said(GenerateOptions(prompt=PROMPT, **{**options, "draft": None, "lookup": False}, **ANY), capfd)
    if "num_samples" not in options:
        assert out == plain  # neither a meter nor a draft changes the text
    assert re.search(r"first token after [\d,]+ ms", err)
    tokens, steps = (int(number) for number in re.search(r"/s \((\d+) tokens, (\d+) steps", err).groups())
    assert 29 <= tokens / options.get("num_samples", 1) < 30 + 9  # a draft may go beyond the end
    assert steps <= 30
    assert re.search(r"weights: [\d.]+ MB a step, read at [\d.]+ GB/s, \d+% of the [\d.]+ GB/s measured here", err)
    if "draft" in options:  # by the model itself: all that it guesses is right
        assert re.search(r"draft: (\d+) of \1 guessed tokens were right \(100%\)", err)


@pytest.mark.parametrize("options", [{"quantize": "int8"}, pytest.param({"dtype": "fp16"}, marks=pytest.mark.slow)])
def test_weight_formats(home, capfd, options):
    out, _ = said(GenerateOptions(prompt=PROMPT, temperature=0, **options, **ANY), capfd)
    same = load(home / "runs" / "demo", **options).complete(PROMPT, temperature=0, top_p=0.9, **ANY)
    assert out == same[0].text + "\n"


def test_the_bytes_a_step_reads(new_model, tokenizer):
    """All matrices and vectors, the head among them, but no embedding that is only looked up."""
    model = new_model()
    read = sum(p.numel() for name, p in model.named_parameters() if "wpe" not in name)
    padding = (model.config.vocab_size - model.config.real_vocab_size) * model.config.hidden_size
    assert bytes_per_step(ReferenceEngine(model)) == 4 * read
    ours = bytes_per_step(make_engine(model))
    assert 0 <= ours - 4 * (read - padding) < 0.2 * 4 * read  # scales of rows are read, too


def test_contradictions_are_named_at_once():
    with pytest.raises(InputError) as caught:
        GenerateOptions(
            prompt="x",
            prompt_file="y",
            output="z",
            batch=0,
            logprobs=1,
            quantize="int8",
            dtype="bf16",
            draft="a",
            lookup=True,
        )
    for part in (
        "--prompt and --prompt-file",
        "--output",
        "--batch",
        "--logprobs",
        "--quantize int8 and",
        "--draft and",
    ):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def broken(home, name, change):
    """A model folder with one tensor changed."""
    folder = Path(shutil.copytree(home / "runs" / "demo" / "model", home / name))
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return name


def another_tokenizer(home):
    model = shutil.copytree(home / "runs" / "demo" / "model", home / "other")
    train_tokenizer(["other words, other merges " * 20], 290).save_pretrained(model)
    return "other"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device", "cuda:99"], r"--device cuda:99"),
        (["--model", "{nan}"], r"transformer\.h\.2\.mlp\.c_fc\.weight"),
        (
            ["--draft", "{other}"],
            r"--draft .*another tokenizer .*give a draft that was trained with the model's tokenizer",
        ),
        (["--draft", "nowhere"], r"--draft nowhere: no such folder"),
        (["--top-p", "2", "--top-k", "-1", "--num-samples", "0"], r"--top-k .*--top-p .*--num-samples"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(home, capfd, options, message):
    def spoil(tensors):
        tensors["transformer.h.2.mlp.c_fc.weight"][3, 4] = float("nan")

    names = {"nan": broken(home, "nan", spoil), "other": another_tokenizer(home)}
    base = [] if "--model" in options else ["--model", "runs/demo"]
    assert main(["generate", PROMPT, *base, *(word.format(**names) for word in options)]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert re.search(message, err)


def test_whoever_waits_for_the_compiler_is_told(monkeypatch):
    told = threading.Event()
    monkeypatch.setattr(speed, "PATIENCE_SECONDS", 0.01)
    monkeypatch.setattr(speed, "compiling", lambda: True)
    with speed.told_when_compiling(lambda text: told.set()):
        assert told.wait(60)
    told.clear()
    monkeypatch.setattr(speed, "compiling", lambda: False)
    with speed.told_when_compiling(lambda text: told.set()):
        assert not told.wait(0.1)


@contextmanager
def greedy_without_end(home):
    """`gpt3 generate` in a process of its own, writing a text that goes on for hours."""
    process = subprocess.Popen(
        [sys.executable, "-m", "gpt3", "generate", PROMPT, "--max-new-tokens", "1000000", "--temperature", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=home,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUNBUFFERED": "", "OMP_NUM_THREADS": "1"},
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # background jobs are born deaf to it
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


@pytest.mark.skipif(os.name == "nt", reason="signals to a child process differ")
def test_ctrl_c_exits_130(home):
    with greedy_without_end(home) as process:
        first = b""
        while len(first) < 40:  # it streams: the text is far from complete
            first += os.read(process.stdout.fileno(), 4096)
        process.send_signal(signal.SIGINT)
        rest, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert b"Traceback" not in err
    text = (first + rest).decode("utf-8")
    assert not text.isascii()  # in UTF-8 whatever the locale
    assert text.endswith("\n")
    assert expected(home, PROMPT, temperature=0)[0].text[:25] == text[:25]


@pytest.mark.skipif(os.name == "nt", reason="pipes break differently")
def test_a_broken_pipe_is_quiet(home):
    with greedy_without_end(home) as process:
        process.stdout.read(20)
        process.stdout.close()
        err = process.stderr.read().decode()
        assert process.wait(timeout=60) == 0
    assert err.splitlines() == [f"model: {Path('runs') / 'demo' / 'model'}"]
