"""The language model's loss, padded vocabulary, gradient checkpointing, resizing."""

from __future__ import annotations

import pytest
import torch
from tiny_models import random_ids, tiny_model
from torch import Tensor, nn
from torch.nn import functional as F

from gpt3.model import GPT3ForCausalLM


def gradients(model: GPT3ForCausalLM, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: value.grad.clone() for name, value in model.named_parameters()}


def assert_equal_gradients(a: dict[str, Tensor], b: dict[str, Tensor], tolerance: float = 1e-4) -> None:
    assert a.keys() == b.keys()
    for name, value in a.items():
        torch.testing.assert_close(
            value, b[name], rtol=tolerance, atol=tolerance * float(b[name].abs().max()), msg=name
        )


@pytest.mark.parametrize("real", [None, 60])
def test_loss_without_logits_is_the_loss_with_them(real: int | None) -> None:
    model, ids = tiny_model(real_vocab_size=real), random_ids(2, 40, 60)
    labels = ids.clone()
    labels[0, :7] = -100
    whole, short = model(ids, labels=labels), model(ids, labels=labels, skip_logits=True)
    assert short.logits is None
    torch.testing.assert_close(short.loss, whole.loss)
    assert_equal_gradients(gradients(model, short.loss), gradients(model, whole.loss))


@pytest.mark.parametrize("skip_logits", [False, True])
def test_labels_are_shifted_once(skip_logits: bool) -> None:
    model, ids = tiny_model(), random_ids(2, 12)
    logits = model(ids).logits
    expected = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    torch.testing.assert_close(model(ids, labels=ids, skip_logits=skip_logits).loss, expected)
    targets = random_ids(2, 12, seed=5)  # the last position has a target of its own
    expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
    torch.testing.assert_close(model(ids, shift_labels=targets, skip_logits=skip_logits).loss, expected)


@pytest.mark.parametrize("skip_logits", [False, True])
def test_accumulation_over_unequal_batches_is_one_batch(skip_logits: bool) -> None:
    model, ids = tiny_model(), random_ids(3, 20)
    labels = ids.clone()
    labels[0, :15] = -100
    options = {"skip_logits": skip_logits}
    whole = gradients(model, model(ids, labels=labels, **options).loss)
    count = int((labels[:, 1:] != -100).sum())
    parts = [model(ids[s], labels=labels[s], num_items_in_batch=count, **options).loss for s in (slice(1), slice(1, 3))]
    assert_equal_gradients(gradients(model, sum(parts)), whole)


def test_padding_rows_are_never_sampled_and_count_in_nothing() -> None:
    """With every padding row's logit far above the others."""
    model, ids = tiny_model(real_vocab_size=60), random_ids(2, 10, 60)
    reference = tiny_model()
    logits, plain = model(ids).logits, reference(ids).logits
    assert bool((logits[..., 60:] == -torch.inf).all())
    torch.testing.assert_close(logits[..., :60], plain[..., :60])
    with torch.no_grad():
        model.transformer.wte.weight[60:] = 100 * model.transformer.ln_f.bias
    sampled = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=5.0, top_k=0, max_new_tokens=50,
        pad_token_id=0, eos_token_id=None,
    )  # fmt: skip
    assert int(sampled.max()) < 60
    expected = F.cross_entropy(plain[:, :-1, :60].flatten(0, 1), ids[:, 1:].flatten())
    for skip_logits in (False, True):
        loss = model(ids, labels=ids, skip_logits=skip_logits).loss
        torch.testing.assert_close(loss, expected)
        assert not gradients(model, loss)["transformer.wte.weight"][60:].any()


def test_resizing_the_vocabulary() -> None:
    model, ids = tiny_model(), random_ids(2, 10)
    before = model(ids).logits
    model.resize_token_embeddings(70, pad_to_multiple_of=64)
    assert (model.config.vocab_size, model.config.real_vocab_size) == (128, 70)
    logits = model(ids).logits
    torch.testing.assert_close(logits[..., :67], before)
    assert bool(logits[..., 67:70].isfinite().all())
    assert bool((logits[..., 70:] == -torch.inf).all())
    assert model.lm_head.weight is model.transformer.wte.weight
    model.resize_token_embeddings(72)  # rows that were padding become tokens
    assert (model.config.vocab_size, model.config.real_vocab_size) == (72, None)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("pre_layernorm", [False, True])
def test_gradient_checkpointing_changes_nothing(reentrant: bool, pre_layernorm: bool) -> None:
    ids = random_ids(2, 40)
    plain, saving = (tiny_model(use_pre_layernorm=pre_layernorm).train() for _ in range(2))
    saving.gradient_checkpointing_enable({"use_reentrant": reentrant})
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    saving.transformer.h[1].attn.register_forward_pre_hook(count)
    expected = gradients(plain, plain(ids, labels=ids, skip_logits=True).loss)
    assert_equal_gradients(gradients(saving, saving(ids, labels=ids, skip_logits=True).loss), expected, 1e-5)
    assert calls == 2  # computed again in backward


def test_an_adapter_in_the_heads_place_is_used() -> None:
    """What PEFT does: the loss must go through the module, not through a weight it no longer has."""

    class Adapted(nn.Module):
        def __init__(self, base: nn.Linear) -> None:
            super().__init__()
            self.base = base

        def forward(self, x: Tensor) -> Tensor:
            return 2 * self.base(x)

    model, ids = tiny_model(), random_ids(2, 10)
    logits = model(ids).logits
    model.lm_head = Adapted(model.lm_head)
    output = model(ids, labels=ids, skip_logits=True)
    assert output.logits is None
    torch.testing.assert_close(output.loss, F.cross_entropy(2 * logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()))


def test_each_dropout_drops_in_its_place_and_in_training_only() -> None:
    x, ids = torch.randn(1, 10, 24), random_ids(1, 10)
    places = {
        "resid_pdrop": lambda model: [model.transformer.h[0].attn(x, None, None)[0], model.transformer.h[0].mlp(x)],
        "attn_pdrop": lambda model: [model.transformer.h[0].attn(x, None, None)[0]],
        "embd_pdrop": lambda model: [model.transformer(ids).last_hidden_state],
    }
    for name, outputs in places.items():
        model = tiny_model(**{name: 0.5})
        for once, again in zip(outputs(model), outputs(model), strict=True):
            assert torch.equal(once, again)
        model.train()
        for once, again in zip(outputs(model), outputs(model), strict=True):
            assert not torch.allclose(once, again), name


def test_it_learns() -> None:
    """A repeated phrase is learned by heart in a few steps."""
    torch.manual_seed(0)
    model = GPT3ForCausalLM(tiny_model().config).train()
    ids = random_ids(1, 10).repeat(4, 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss = model(ids, labels=ids, skip_logits=True).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.1
