"""The command line: its frozen surface, its speed of start, its errors of one line."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gpt3.cli import main as cli
from gpt3.cli.parsing import config_file, parse
from gpt3.cli.report import ReportOptions
from gpt3.errors import InputError
from gpt3.inference.options import GenerateOptions
from gpt3.options import default_of, documentation, is_required
from gpt3.training.options import TrainOptions

SURFACE = {
    "train": """batch_tokens beta1 beta2 checkpoint_every clip compile context data decay_tokens device dropout dtype
        early_stop early_stop_on ema eps filter fold folds gradient_checkpointing heads init_from keep_checkpoints
        keep_every layers lion_beta1 lion_beta2 lion_lr log_every lr mask_documents micro_batch min_lr_ratio minutes
        mixture model muon_lr muon_momentum near_duplicates noise_scale nproc opt_state_on_cpu optimizer out parallel plan
        positions pre_layernorm probe profile ramp_tokens recipe reduce_once regather replay resume sample_every
        sample_prompt schedule seed selective_checkpointing shards spike_patience spike_sigmas spike_window steps
        stream tensor_parallel threads tokenizer tokens track trust_device val validate_every validation_fraction validation_share
        validation_tokens warmup_tokens weight_decay width window workers""",
    "generate": """bad_words batch choices device draft dtype frequency_penalty input json json_schema logit_bias logprobs
        lookup max_new_tokens min_new_tokens min_p model no_repeat_ngram num_samples output overwrite
        presence_penalty prompt prompt_file quantize regex repetition_penalty seed stats stop temperature threads
        top_k top_p typical_p""",
    "score": "color context device dtype files html json model overwrite quantize stride text threads tokens",
    "eval": """batch contamination data_dir device dtype format json limit list_tasks lm_eval_tasks model out overwrite
        quantize seed shots style tasks threads""",
    "serve": """access_log allow_origin api_key device dtype grace host max_body max_samples model name port
        prompt_tokens quantize queue slots threads timeout unprotected""",
    "export": "context dtype format model out overwrite verify",
    "data": "context data json show tokenizer",
    "corpus": "accept_loss engine host memory out plan recipe sample tls_ca tls_cert tls_key workers",
    "corpus worker": "memory out tls_ca tls_cert tls_key wait workers",
    "prepare": "data decontaminate filter fold near_duplicates out resume shard_tokens tokenizer validation_fraction workers",
    "contamination": "data data_dir json model out overwrite scores tasks workers",
    "paper": "article_words data data_dir figures limit list_experiments minutes model out seed threads",
    "finetune": """batch beta chat_template context data device dora dtype early_stop epochs evaluate_every
        filter gradient_checkpointing lora lora_alpha lora_dropout lora_rank lr merge method micro_batch model out packing
        rehearse resume seed show skip_malformed steps threads track train_on val validation_fraction
        weight_decay""",
    "chat": """bad_words choices device dtype few_shot frequency_penalty json_schema load logit_bias logprobs max_new_tokens
        min_new_tokens min_p model no_repeat_ngram num_samples presence_penalty probabilities quantize regex
        repetition_penalty seed stop system temperature threads top_k top_p typical_p""",
    "tokenizer train": "data out overwrite vocab_size",
    "import": "allow_pickle out overwrite source",
    "publish": "dry_run evaluation gguf license names overwrite public",
    "info": "json known path",
    "doctor": "clear_cache json",
    "runs": "folder json",
    "runs rename": "names",
    "runs remove": "names yes",
    "completion": "shell",
    "ladder": "dtype gpu gpu_flops gpu_memory gpus json mfu parallel shards tensor_parallel",
    "report": "live out overwrite port runs",
    "bench contexts": "contexts json model out overwrite rounds seed steps threads weights",
    "bench formats": "formats json model new_tokens prompt_tokens prompts seed text",
    "bench generate": "cases decode device formats json llama_cpp nanogpt new_tokens rounds seed threads transformers",
    "bench serve": "cases formats json llama_cpp new_tokens rounds seed threads transformers",
    "bench start": "json llama_cpp model new_tokens rounds seed threads transformers",
    "bench train": "cases compile data device dtype json litgpt litgpt_python nanogpt rounds seed steps transformers warmup",
}


def options_of(name: str) -> type:
    return cli.COMMANDS[name].load()[0]


def test_the_command_surface_is_frozen() -> None:
    """A new or renamed option is a decision: change SURFACE with it."""
    found = {name: sorted(field.name for field in dataclasses.fields(options_of(name))) for name in cli.COMMANDS}
    assert found == {name: sorted(text.split()) for name, text in SURFACE.items()}


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_runs_something_and_documents_every_option(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(cli.COMMANDS[name].load()[1])
    assert cli.main([*name.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    for field in dataclasses.fields(options_of(name)):
        assert re.search(rf"--{field.name.replace('_', '-')}[ ,\n]", shown)
    assert max(map(len, shown.splitlines())) <= 80
    assert len(shown.splitlines()) <= 150
    assert cli.main(["help", *name.split()]) == 0
    assert capsys.readouterr().out == shown


def test_help_imports_nothing_but_yaml() -> None:
    """So it is there in 0.05 s."""
    code = "import sys; before = {*sys.modules}; from gpt3.cli.main import main; main(['--help']); "
    code += "print(*{name.partition('.')[0] for name in {*sys.modules} - before} - {*sys.stdlib_module_names})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "train" in run.stdout
    imported = {name for name in run.stdout.splitlines()[-1].split() if "cython" not in name}  # a part of yaml
    assert imported <= {"gpt3", "yaml", "_yaml"}


def test_options_are_parsed_without_torch() -> None:
    """Of all commands, one after the other in one new process."""
    code = (
        "import sys; from gpt3.cli.main import COMMANDS, main\n"
        "for name in COMMANDS: main([*name.split(), '--help']); assert 'torch' not in sys.modules, name"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "needles"),
    [
        (["trian"], ["unknown command", "gpt3 train"]),
        (["tokenizer"], ["train"]),
        (["train", "--modle", "17M"], ["--modle", "--model"]),
        (["train", "--steps", "many"], ["--steps", "many"]),
        (["train", "--steps"], ["--steps needs a value"]),
        (["train", "--steps", "-3"], ["--steps -3", "at least 1"]),
        (["train", "--steps", "3", "--tokens", "1M"], ["--tokens and --steps"]),
        (["train", "--tokens", "lots"], ["lots", "2.5M"]),
        (["train", "--model", "12M"], ["12M", "125M"]),
        (["train", "--track", "mlflow"], ["mlflow", "wandb"]),
        (["train", "--config", "no-such.yaml"], ["no-such.yaml"]),
        (["train", "spare"], ["spare"]),
        (["train", "--dtype", "fp64"], ["fp64", "bf16"]),
        (["prepare", "--data", "no/such/file.txt", "--out", "x"], ["no/such/file.txt"]),
        (["generate", "--top-p", "3", "x"], ["--top-p", "3"]),
        (["score"], ["nothing to score", "--text"]),
        (["score", "no-such.txt"], ["no-such.txt", "cannot be read"]),
        (["score", "--text", "x", "--context", "4", "--stride", "5"], ["--stride 5", "--context 4"]),
        (["contamination", "--data", "wiki"], ["--tasks", "--data-dir"]),
        (["contamination", "--data", "wiki", "--tasks", "nil"], ["--tasks nil", "--data-dir"]),
        (["finetune", "--steps", "0"], ["--steps 0"]),
        (["finetune", "--model", "no/such/model"], ["no/such/model"]),
        (["chat", "--model", "no/such/model"], ["no/such/model"]),
        (["ladder", "--gpus", "8"], ["--gpu H100", "--gpu-memory 80"]),
        (["ladder", "--gpus", "0", "--gpu", "H100"], ["--gpus 0", "at least 1"]),
        (["ladder", "--gpus", "2.5", "--gpu", "H100"], ["--gpus", "2.5"]),
        (["ladder", "--gpus", "8", "--gpu", "H1000"], ["'H1000'", "'H100'", "--gpu-memory"]),
        (["ladder", "--gpus", "8", "--gpu-memory", "lots"], ["'lots'", "74.5GiB"]),
        (["ladder", "--gpus", "8", "--gpu-memory", "0"], ["'0'", "80GB"]),
        (["ladder", "--gpus", "8", "--gpu", "H100", "--mfu", "40"], ["--mfu 40", "at most 1"]),
        (["ladder", "--gpus", "8", "--gpu", "H100", "--mfu", "nan"], ["--mfu", "nan"]),
        (["ladder", "--gpus", "8", "--gpu", "H100", "--gpu-flops", "989"], ["--gpu-flops 989", "at least 1e+09"]),
        (["ladder", "--gpus", "8", "--gpu", "V100", "--dtype", "bf16"], ["V100", "fp16"]),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    words: list[str], needles: list[str], capsys: pytest.CaptureFixture[str], tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert all(needle in error for needle in needles), error
    assert not list(tmp_path.iterdir())  # nothing is left behind


def test_flags_lists_and_yaml_give_the_same_options(tmp_path) -> None:
    flags = parse(
        TrainOptions,
        [
            "--mask-documents",
            "--data",
            "a.txt",
            "b.txt",
            "--data=c.txt",
            "--lr",
            "1e-3",
            "--no-compile",
            "--track",
            "wandb",
        ],
        command="train",
    )
    assert flags == TrainOptions(
        mask_documents=True, data=["a.txt", "b.txt", "c.txt"], lr=1e-3, compile=False, track=["wandb"]
    )
    config = tmp_path / "run.yaml"
    config.write_text("mask_documents: true\ndata: [a.txt, b.txt, c.txt]\nlr: 0.001\ncompile: false\ntrack: [wandb]\n")
    assert parse(TrainOptions, ["--config", str(config)], command="train") == flags
    assert parse(TrainOptions, ["--config", str(config), "--lr", "2"], command="train").lr == 2


@pytest.mark.parametrize(
    ("words", "prompt"),
    [
        (["--", "--x"], "--x"),
        (["--seed", "3", "--", "-h"], "-h"),
        (["--", "--"], "--"),
        (["--", "--prompt=a"], "--prompt=a"),
        (["null"], "null"),
        (["--"], None),
    ],
)
def test_behind_two_dashes_nothing_is_an_option(words: list[str], prompt: str | None) -> None:
    assert parse(GenerateOptions, words, command="generate", positional="prompt").prompt == prompt


def test_behind_two_dashes_a_list_is_a_list_and_two_texts_are_one_too_many() -> None:
    runs = parse(ReportOptions, ["a", "--", "--b", "--help"], command="report", positional="runs").runs
    assert runs == ["a", "--b", "--help"]
    with pytest.raises(InputError, match="unexpected second argument '--b'"):
        parse(GenerateOptions, ["--", "--a", "--b"], command="generate", positional="prompt")
    with pytest.raises(InputError, match="unexpected argument '--steps'"):
        parse(TrainOptions, ["--", "--steps"], command="train")


def test_print_config_is_read_back(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--model", "17M", "--steps", "7", "--print_config"]) == 0
    config = tmp_path / "run.yaml"
    config.write_text(capsys.readouterr().out)
    assert parse(TrainOptions, ["--config", str(config)], command="train") == TrainOptions(model="17M", steps=7)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_print_config_explains_each_option(name: str) -> None:
    options = options_of(name)
    values = {f.name: None if is_required(f) else default_of(f) for f in dataclasses.fields(options)}
    shown = config_file(options, values)
    assert list(yaml.safe_load(shown).items()) == list(values.items())
    for field, text in documentation(options).items():
        comment = re.search(rf"((?:^# .*\n)+)'?{field}'?:", shown, re.MULTILINE)
        assert comment, field
        assert " ".join(text.split()) == " ".join(comment[1].replace("\n# ", " ").removeprefix("# ").split())


def test_an_unknown_key_in_yaml_is_refused(tmp_path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("modle: 17M\n")
    with pytest.raises(InputError, match="modle"):
        parse(TrainOptions, ["--config", str(config)], command="train")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train --config digits.yaml", "--config .*digits.yaml is not YAML: "),
        ("train --config open.yaml", "--config .*open.yaml, line [23] is not YAML: expected"),
        ("eval --tasks piqa hellaswag", "Separate tasks by commas: --tasks piqa,hellaswag$"),
        ("train --plan 125M", "unexpected argument '125M'; did you mean --data 125M or --model 125M?"),
        (f"train --steps {'9' * 5000}", "--steps 9+ must be a whole number"),
        (f"train --lr {'9' * 400}", "--lr inf must be a number above 0"),
        ("prepare --data wiki --out .", "--out . has no name of its own; name a new folder"),
        ("prepare --data wiki --out /", "--out / has no name of its own; name a new folder"),
        (
            "generate x --input ~no-such-user/x",
            "--input ~no-such-user/x: there is no such home directory; write the path",
        ),
        ("train --steps abc", "--steps abc must be a whole number"),
        ("train --lr nan", "--lr nan must be a number"),
        ("train --dtype int4", "--dtype int4 must be one of auto, fp32, bf16"),
        ("generate x --top-k 1.5", "--top-k 1.5 must be a whole number"),
        ("generate x --no-json=3", "--no-json takes no value; leave out '=3'"),
        ("tokenizer train --data wiki --out t", "--vocab-size must be given"),
        ("export --out t", r"--format \(gguf, gpt2, gpt-neo\) must be given"),
        ("train texts", "unexpected argument 'texts'; did you mean --data texts or --model texts?"),
        ("export demo", "unexpected argument 'demo'; did you mean --model demo?"),
        ("ladder x", "unexpected argument 'x'; every option of this command has a name"),
        ("completion bash extra", "second argument 'extra'; give one shell$"),
        ("generate x --choices a b", "second argument 'b'; put the prompt in quotes, or give --choices before each"),
        ("train --config none.yaml", "--config .*none.yaml: no such file; give a YAML file"),
        ("train --config unknown.yaml", "--config: unknown option --stepz; did you mean --steps?"),
        ("train --config list.yaml", "--config must be a YAML file with a line `option: value` for each option"),
        ("train --config bytes.yaml", "--config is not UTF-8 at byte 0; convert it to UTF-8"),
        (
            "prepare --data wiki --out list.yaml/x",
            "list.yaml/x cannot be made: .*list.yaml is a file; choose another --out",
        ),
    ],
)
def test_a_wrong_value_is_told_in_the_words_of_the_command_line(
    words: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("unknown.yaml").write_text("stepz: 3\n", encoding="utf-8")
    Path("list.yaml").write_text("- a\n", encoding="utf-8")
    Path("digits.yaml").write_text(f"steps: {'9' * 5000}\n", encoding="utf-8")
    Path("open.yaml").write_text("steps: 3\ndata: [a\n", encoding="utf-8")
    Path("bytes.yaml").write_bytes(b"\xff\xfe")
    assert cli.main(words.split()) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert re.search(message.replace("?", r"\?"), shown), shown


def test_the_home_directory_after_an_equals_sign(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where no shell expands it; texts stay as they are."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    options = parse(GenerateOptions, ["--input=~/a.txt", "--output=~/x/b"], command="generate")
    assert (options.input, options.output) == (str(tmp_path / "a.txt"), str(tmp_path / "x/b"))
    assert parse(GenerateOptions, ["--prompt=~/a"], command="generate").prompt == "~/a"
    assert TrainOptions(out="~").out == str(tmp_path)


def test_short_flags() -> None:
    given = ["-m", "runs/a", "-n", "5", "-o", "out.jsonl", "--input", "prompts.txt"]
    options = parse(GenerateOptions, given, command="generate", positional="prompt")
    assert (options.model, options.max_new_tokens, options.output) == ("runs/a", 5, "out.jsonl")
    assert parse(GenerateOptions, ["-p", "Once"], command="generate", positional="prompt").prompt == "Once"
    assert parse(GenerateOptions, ["-n=7"], command="generate", positional="prompt").max_new_tokens == 7


@pytest.mark.parametrize("flag", ["-x", "-5", "-model"])
def test_an_unknown_short_flag_is_an_error_and_never_a_value(flag: str) -> None:
    with pytest.raises(InputError, match=rf"unknown option {flag}; .*-m \(--model\).*write -- {flag} for the prompt"):
        parse(GenerateOptions, [flag], command="generate", positional="prompt")
    with pytest.raises(InputError, match="--model needs a value"):
        parse(GenerateOptions, ["--model", "-p", "x"], command="generate", positional="prompt")
    with pytest.raises(InputError, match="--seed -5 must be a whole number of at least 0"):  # a value, not a flag
        parse(TrainOptions, ["--seed", "-5"], command="train")


def test_values_from_yaml_have_the_types_of_the_options(tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("lr: 1e-3\ntokens: 2500000\nclip: 1\nsteps: null\n")
    options = parse(TrainOptions, ["--config", str(config)], command="train")
    assert (options.lr, options.tokens, options.clip, options.steps) == (0.001, "2500000", 1.0, None)
    config.write_text("stop: END\n")
    with pytest.raises(InputError, match="--stop END must be a list"):
        parse(GenerateOptions, ["--config", str(config)], command="generate", positional="prompt")
    text = parse(GenerateOptions, ["--logit-bias", '{"50256": -100}'], command="generate", positional="prompt")
    assert text.logit_bias == {50256: -100.0}
