"""The optimizer against torch's plain AdamW, and which weights decay."""

import torch

from gpt3.ladder import preset
from gpt3.model import GPT3ForCausalLM
from gpt3.training.optimizer import make_optimizer, parameter_groups
from gpt3.training.options import TrainOptions


def tiny_model() -> GPT3ForCausalLM:
    torch.manual_seed(0)
    return GPT3ForCausalLM(
        preset("demo").config(num_hidden_layers=2, hidden_size=16, num_attention_heads=2, head_dim=8, vocab_size=64)
    )


def test_matrices_decay_and_nothing_else() -> None:
    model = tiny_model()
    decayed, plain = (group["params"] for group in parameter_groups(model, 0.1))
    names = {id(weight): name for name, weight in model.named_parameters()}
    assert {names[id(w)] for w in plain} == {n for n in names.values() if n.endswith("bias") or ".ln_" in n}
    assert len(decayed) + len(plain) == len(names)  # the tied head once


def test_it_is_adamw_with_the_papers_numbers() -> None:
    model, reference = tiny_model(), tiny_model()
    ours = make_optimizer(model, TrainOptions(), lr=1e-2)
    plain = torch.optim.AdamW(
        parameter_groups(reference, 0.1), lr=1e-2, betas=(0.9, 0.95), eps=1e-8, foreach=False, fused=False
    )
    for seed in range(5):
        for net, optimizer in ((model, ours), (reference, plain)):
            torch.manual_seed(seed)
            for weight in net.parameters():
                weight.grad = torch.randn_like(weight)
            optimizer.step()
    for a, b in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
