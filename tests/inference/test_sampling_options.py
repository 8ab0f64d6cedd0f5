"""Options out of range are all named at once, with their values, in one line."""

import dataclasses

import pytest

from gpt3.errors import InputError
from gpt3.inference.options import GenerateOptions, SamplingOptions
from gpt3.options import check_names

BAD = {
    "max_new_tokens": [0, -1, 2.5, True],
    "temperature": [-0.1, 1e-9, float("nan"), float("inf"), "hot"],
    "top_k": [-1, 1.5],
    "top_p": [0, -0.5, 1.01, float("nan")],
    "min_p": [-0.1, 1.5],
    "typical_p": [0, 1.01, "most"],
    "logit_bias": [{-1: 2.0}, {5: 101}, {5: float("nan")}, {"x": 1.0}, [5], {5: True}],
    "repetition_penalty": [0, 1e-5, -1.0, float("inf")],
    "presence_penalty": [2.1, -2.1, float("nan")],
    "frequency_penalty": [3, "much"],
    "no_repeat_ngram": [-2, 0.5],
    "bad_words": [[""], [3], ""],
    "min_new_tokens": [-1, 1.5],
    "stop": [["a", ""], "", [3]],
    "seed": [-1, 0.5],
    "num_samples": [0, -3],
    "logprobs": [-1, 2.5, True],
    "json_schema": [5, ["{}"]],
    "regex": [1, ["a"]],
    "choices": [["a", ""], [3]],
}
EDGES = {
    "max_new_tokens": [1],
    "temperature": [0, 1e-6, 100.0],
    "top_k": [0, 1, 10**6],
    "top_p": [1e-6, 1, 1.0],
    "min_p": [0, 1],
    "typical_p": [1e-6, 1],
    "logit_bias": [{}, {0: -100, 50256: 100.0}],
    "repetition_penalty": [0.01, 0.5, 1],
    "presence_penalty": [-2, 0, 2],
    "frequency_penalty": [-2.0, 2.0],
    "no_repeat_ngram": [0, 1],
    "bad_words": [[], ["sea"], "sea"],
    "min_new_tokens": [0, 200],
    "stop": [[], ["\n"], "\n\n"],
    "seed": [None, 0, 2**63],
    "num_samples": [1, 7],
    "logprobs": [None, 0, 20],
    "json_schema": [None, "{}", {"type": "object"}],
    "regex": [None, "a*"],
    "choices": [[], ["a"], ["a", "b, c"]],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_a_bad_value_is_named(name, value):
    with pytest.raises(InputError) as caught:
        SamplingOptions(**{name: value})
    message = str(caught.value)
    assert f"--{name.replace('_', '-')} " in message
    items = value if isinstance(value, list) else [*value, *value.values()] if isinstance(value, dict) else [value]
    assert any(text in message for item in [value, *items] for text in (repr(item), str(item) or "''"))
    assert " must be " in message
    assert "\n" not in message


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in EDGES.items() for value in values])
def test_the_edges_of_each_range_are_fine(name, value):
    SamplingOptions(**{name: value})


def test_every_option_is_covered_here():
    names = {field.name for field in dataclasses.fields(SamplingOptions)}
    assert names == set(BAD) == set(EDGES)


def test_all_errors_come_at_once():
    with pytest.raises(InputError) as caught:
        GenerateOptions(
            temperature=-1, top_p=7.0, stop=[""], num_samples=0, dtype="fp8", prompt="a", prompt_file="b.txt"
        )
    for part in (
        "--temperature -1 must be",
        "--top-p 7.0 must be",
        "--stop [''] must be",
        "--num-samples 0 must be",
        "--dtype fp8 must be",
        "--prompt-file",
    ):
        assert part in str(caught.value)


def test_several_samples_of_one_greedy_text_contradict():
    with pytest.raises(InputError, match=r"--num-samples 3 with --temperature 0"):
        SamplingOptions(temperature=0, num_samples=3)


def test_contradictions_come_with_the_other_errors():
    with pytest.raises(InputError) as caught:
        SamplingOptions(
            min_new_tokens=9, max_new_tokens=8, stop=["a", "b"], bad_words=["b"], num_samples=2, temperature=0, top_k=-1
        )
    for part in (
        "--min-new-tokens 9 exceeds --max-new-tokens 8",
        "both have 'b'",
        "--num-samples 2 with",
        "--top-k -1 must be",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize("text", ['{"50256": -100, "3": 0.5}', "{50256: -100, 3: 0.5}"])
def test_biases_come_as_json_or_yaml(text, tmp_path):
    from gpt3.cli.parsing import parse

    bias = {50256: -100.0, 3: 0.5}
    assert parse(GenerateOptions, ["--logit-bias", text], command="generate").logit_bias == bias
    config = tmp_path / "generate.yaml"
    config.write_text(f"logit_bias: {text}\nbad_words: [sea, ship]\n")
    options = parse(GenerateOptions, ["--config", str(config)], command="generate")
    assert (options.logit_bias, options.bad_words) == (bias, ["sea", "ship"])


@pytest.mark.parametrize("text", ["5", '{"the": 1}', '{"5": 101}', "5=1"])
def test_a_bias_that_is_none_is_told_in_one_line(text):
    from gpt3.cli.parsing import parse

    with pytest.raises(InputError, match="--logit-bias") as caught:
        parse(GenerateOptions, ["--logit-bias", text], command="generate")
    assert "\n" not in str(caught.value)


def test_a_stop_string_may_stand_alone():
    assert SamplingOptions(stop="\n\n").stop == ["\n\n"]


def test_options_cost_no_heavy_import():
    import subprocess
    import sys

    code = "import sys, gpt3.inference.options; sys.exit(any(m in sys.modules for m in ('torch', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_command_line_knows_every_option_and_its_help():
    from gpt3.cli.parsing import command_help, parse

    options = parse(
        GenerateOptions,
        ["The sea", "--temperature", "0.7", "--stop", "a", "--stop", "b", "--json", "--no-repeat-ngram", "3"],
        command="generate",
        positional="prompt",
    )
    assert options == GenerateOptions(prompt="The sea", temperature=0.7, stop=["a", "b"], json=True, no_repeat_ngram=3)
    help_text = command_help(GenerateOptions, "generate", "prompt", everything=True)
    for field in dataclasses.fields(GenerateOptions):
        assert f"--{field.name.replace('_', '-')}" in help_text
    for words in ("0 is greedy", "sample i depends on the seed", "the newest run", "one JSON object"):
        assert words in " ".join(help_text.split())


def test_an_unknown_name_is_told_with_the_nearest():
    with pytest.raises(TypeError, match=r"^unknown option max_tokens; did you mean max_new_tokens\?$"):
        check_names(SamplingOptions, {"top_k": 1, "max_tokens": 4})
    check_names(SamplingOptions, ["top_k"])
