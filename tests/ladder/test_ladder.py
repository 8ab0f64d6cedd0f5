"""The ladder against the paper: Table 2.1, exact sizes on the meta device, Table D.1, and estimates against measurements."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from gpt3.cli.ladder import LadderOptions, run
from gpt3.errors import InputError
from gpt3.ladder.cluster import make_cluster, plan_table
from gpt3.ladder.presets import (
    PRESETS,
    Preset,
    flops_per_token,
    ladder_rows,
    ladder_table,
    mean_keys,
    preset,
)

H100 = ("H100", None, None, 0.4, "auto", "fsdp")
EXACT = {
    "17M": 17_867_008,
    "125M": 125_226_240,
    "350M": 355_871_744,
    "760M": 760_300_032,
    "1.3B": 1_315_723_264,
    "2.7B": 2_651_553_280,
    "6.7B": 6_658_404_352,
    "13B": 12_853_386_240,
    "175B": 174_604_259_328,
}

# Brown et al. 2020, Table D.1: PF-days, FLOPs, parameters in millions, each as printed.
TABLE_D1 = {
    "125M": ("2.60e+00", "2.25e+20", 125),
    "350M": ("7.42e+00", "6.41e+20", 356),
    "760M": ("1.58e+01", "1.37e+21", 760),
    "1.3B": ("2.75e+01", "2.38e+21", 1_320),
    "2.7B": ("5.52e+01", "4.77e+21", 2_650),
    "6.7B": ("1.39e+02", "1.20e+22", 6_660),
    "13B": ("2.68e+02", "2.31e+22", 12_850),
    "175B": ("3.64e+03", "3.14e+23", 174_600),
}

# Table 2.1: layers, d_model, heads, d_head, batch in millions of tokens, learning rate; XL's heads and 13B's d_model corrected.
TABLE_2_1 = {
    "125M": (12, 768, 12, 64, "0.5", 6.0e-4),
    "350M": (24, 1024, 16, 64, "0.5", 3.0e-4),
    "760M": (24, 1536, 16, 96, "0.5", 2.5e-4),
    "1.3B": (24, 2048, 16, 128, "1.0", 2.0e-4),
    "2.7B": (32, 2560, 32, 80, "1.0", 1.6e-4),
    "6.7B": (32, 4096, 32, 128, "2.1", 1.2e-4),
    "13B": (40, 5120, 40, 128, "2.1", 1.0e-4),
    "175B": (96, 12288, 96, 128, "3.2", 0.6e-4),
}


@pytest.mark.parametrize("name", [*EXACT, "demo"])
def test_a_model_built_on_the_meta_device_has_the_parameters(name: str) -> None:
    from gpt3.model import GPT3ForCausalLM

    with torch.device("meta"):
        model = GPT3ForCausalLM(preset(name).config())
    assert sum(parameter.numel() for parameter in model.parameters()) == preset(name).parameters
    if name in EXACT:
        assert preset(name).parameters == EXACT[name]


def test_shapes_are_table_2_1() -> None:
    for name, (layers, width, heads, head, batch, rate) in TABLE_2_1.items():
        entry = preset(name)
        assert (entry.n_layers, entry.d_model, entry.n_heads, entry.d_head) == (layers, width, heads, head)
        assert (f"{entry.batch_tokens / 1e6:.1f}", entry.learning_rate) == (batch, rate)
        assert (entry.context, entry.vocab_size) == (2048, 50257)
        assert entry.n_heads * entry.d_head == entry.d_model
    assert all(entry.batch_tokens % entry.context == 0 for entry in PRESETS.values())


def test_compute_is_table_d1() -> None:
    rows = {row["name"]: row for row in ladder_rows()}
    for name, (days, flops, millions) in TABLE_D1.items():
        assert f"{rows[name]['pf_days_300b']:.2e}" == days
        assert f"{rows[name]['flops_300b']:.2e}" == flops
        assert rows[name]["parameters_table_d1"] == millions * 1_000_000


@settings(max_examples=20, deadline=None)
@given(
    layers=st.integers(1, 3), width=st.integers(1, 9), heads=st.integers(1, 3), head=st.integers(1, 5),
    context=st.integers(1, 9), vocabulary=st.integers(1, 9),
)  # fmt: skip
def test_the_formula_counts_any_shape(
    layers: int, width: int, heads: int, head: int, context: int, vocabulary: int
) -> None:
    from gpt3.model import GPT3ForCausalLM

    entry = Preset("any", layers, width, heads, head, context, 1e-3, context=context, vocab_size=vocabulary)
    with torch.device("meta"):
        model = GPT3ForCausalLM(entry.config())
    assert sum(parameter.numel() for parameter in model.parameters()) == entry.parameters


@given(context=st.integers(1, 50), window=st.integers(1, 60))
def test_mean_keys_are_counted(context: int, window: int) -> None:
    assert mean_keys(context, window) * context == pytest.approx(sum(min(t + 1, window) for t in range(context)))


@pytest.mark.parametrize("name", PRESETS)
def test_a_presets_operations_are_its_configurations(name: str) -> None:
    entry = preset(name)
    assert entry.flops_per_token == flops_per_token(entry.config(), entry.context)


def test_flops_per_token_are_those_torch_counts() -> None:
    """torch's counter sees every product of a forward and backward; its attention is not causal, ours is."""
    from gpt3.model import GPT3ForCausalLM

    config = preset("17M").config(num_hidden_layers=2, vocab_size=1000, max_position_embeddings=64)
    config.layer_types = ["full_attention"] * 2
    model = GPT3ForCausalLM._from_config(config, attn_implementation="eager")
    ids = torch.randint(1000, (2, 64))
    with FlopCounterMode(display=False) as counter:
        model(ids, labels=ids).loss.backward()
    square = 6 * 2 * 2 * config.hidden_size * (64 - mean_keys(64, 64))  # the masked half of both layers' scores
    assert flops_per_token(config, 64) + square == pytest.approx(counter.get_total_flops() / ids.numel(), rel=1e-6)


@pytest.mark.parametrize(
    ("given_name", "name"),
    [
        ("17m", "17M"),
        ("Small", "125M"),
        ("XL", "1.3B"),
        ("gpt-3", "175B"),
        ("GPT-3 13B", "13B"),
        ("GPT-3 Medium", "350M"),
    ],
)
def test_the_papers_names_are_known(given_name: str, name: str) -> None:
    assert preset(given_name).name == name


def test_mistakes_are_answered_in_one_line() -> None:
    with pytest.raises(InputError, match=r"^unknown model preset '176B'; did you mean '175B'\?$"):
        preset("176B")
    with pytest.raises(InputError, match=r"choose from demo, 17M, 125M"):
        preset("enormous")
    with pytest.raises(InputError, match=r"^unknown model option 'hiden_size'; did you mean 'hidden_size'\?$"):
        preset("17M").config(hiden_size=3)
    with pytest.raises(InputError, match=r"^model 17M: num_hidden_layers must be at least 1, got 0$"):
        preset("17M").config(num_hidden_layers=0)
    with pytest.raises(InputError, match=r"^model 17M: Field 'hidden_size' expected int, got str .*$"):
        preset("17M").config(hidden_size="wide")


def test_overrides_by_either_name() -> None:
    config = preset("17M").config(n_layer=3, n_positions=128, vocab_size=1000)
    assert (config.num_hidden_layers, config.max_position_embeddings) == (3, 128)
    assert (config.vocab_size, config.eos_token_id, config.bos_token_id) == (1000, 999, 999)
    assert preset("17M").config().eos_token_id == 50256
    assert preset("17M").config(vocab_size=50304, real_vocab_size=50257).eos_token_id == 50256


def test_the_command_prints_a_table_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    run(LadderOptions(json=True))
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == list(PRESETS)
    run(LadderOptions())
    table = capsys.readouterr().out
    assert table == ladder_table() + "\n"
    for text in ("175B", "174,604,259,328", "3,640", "3.14e+23", "2.60", "12,853,386,240"):
        assert text in table


def test_the_tables_fit_100_columns() -> None:
    for text in (ladder_table(), *(plan_table(make_cluster(gpus, *H100)) for gpus in (1, 7, 1024))):
        assert max(map(len, text.splitlines())) <= 100


def test_the_ladder_does_not_import_torch() -> None:
    code = "import sys, gpt3.ladder.presets as l, gpt3.ladder.cluster; l.ladder_table(); "
    code += "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
