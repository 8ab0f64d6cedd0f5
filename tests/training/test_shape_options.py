"""``--positions`` apart from ``--context``, and ``--no-pre-layernorm``."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gpt3.errors import InputError
from gpt3.ladder.memory import shard_numbers
from gpt3.model import GPT3ForCausalLM
from gpt3.model_folder.load import load_transformers
from gpt3.report.run_folder import read_metrics
from gpt3.training.options import TrainOptions
from gpt3.training.plan import auto_preset, make_plan, shape_of
from gpt3.training.run import train


def test_17m_keeps_its_parameters_with_a_shorter_context() -> None:
    options = TrainOptions(model="17M", context=512, positions=1024)
    shape = shape_of(options)
    assert shape.parameters == 17_867_008  # Brown et al.'s shape at this size, as README says
    assert GPT3ForCausalLM(shape.config()).num_parameters() == 17_867_008
    assert shard_numbers(shape, 4) * 4 == pytest.approx(17_867_008, rel=1e-3)
    plan = make_plan(options, 10**9)
    assert (plan.context, plan.batch_tokens) == (512, 32 * 1024)
    assert shape_of(TrainOptions(model="17M", context=512)).parameters == 17_867_008 - 512 * 256


def test_positions_bound_the_context_in_place_of_the_presets() -> None:
    assert shape_of(TrainOptions(model="17M", positions=4096, context=4096)).context == 4096
    assert shape_of(TrainOptions(model="17M", positions=4096)).context == 1024
    assert shape_of(TrainOptions(model="17M", positions=256)).context == 256
    with pytest.raises(
        InputError, match=r"--context 512 exceeds the 256 positions of 17M. Use --context 256 or less\.$"
    ):
        shape_of(TrainOptions(model="17M", positions=256, context=512))
    with pytest.raises(InputError, match=r"Use --context 1024 or less, or --positions 2048\."):
        shape_of(TrainOptions(model="17M", context=2048))


def test_a_shape_of_ones_own_takes_any_context_and_width() -> None:
    shape = shape_of(TrainOptions(layers=4, width=256, context=512))
    assert (shape.context, shape.positions, shape.window, shape.n_heads, shape.d_head) == (512, None, 128, 4, 64)
    assert shape.windows == [512, 128, 512, 128]
    assert shape_of(TrainOptions(context=512)).window == 128
    assert shape_of(TrainOptions(context=64)).window == shape_of(TrainOptions()).window == 32  # as before
    assert shape_of(TrainOptions(context=512, window=48)).window == 48
    assert shape_of(TrainOptions(model="17M", width=320)).n_heads == 4  # divides: the preset's
    assert auto_preset(128, 4096, 512).window == 128
    with pytest.raises(InputError, match=r"--width 250 is not a multiple of --heads 3"):
        shape_of(TrainOptions(layers=4, width=250))
    with pytest.raises(InputError, match=r"--context 256 exceeds the 128 positions of demo"):
        shape_of(TrainOptions(model="demo", context=256))


def test_a_post_ln_model_trains_and_resumes_as_one(tiny, tmp_path: Path) -> None:
    train(tiny(pre_layernorm=False, positions=64, steps=40))
    losses = [record["loss"] for record in read_metrics(tmp_path / "run" / "metrics.jsonl") if "loss" in record]
    assert losses[-1] < losses[0] - 0.5
    model, _ = load_transformers(tmp_path / "run")
    assert (model.config.use_pre_layernorm, model.config.max_position_embeddings) == (False, 64)
    block = model.transformer.h[0]
    x = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        mask = torch.full((5, 5), -torch.inf).triu(1)[None, None]
        model.set_attn_implementation("eager")
        after = block.ln_1(x + block.attn(x, attention_mask=mask, past_key_values=None)[0])
        torch.testing.assert_close(
            block(x, attention_mask=mask, past_key_values=None), block.ln_2(after + block.mlp(after))
        )
