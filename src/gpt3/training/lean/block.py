"""One block of the model as one autograd function, its forward and backward pass written out, for training on a CPU.

Between the matrix products everything is one of the loops of rows.py and attention.py: no copy of heads, no mask, and one node of
autograd's graph. The residual stream and its gradient are float32; what goes into products and comes out of them is in theirs,
float32 or bfloat16. `install` puts it into a model; wherever a call asks for something else (another dtype or device, a cache, an
attention mask, dropout, adapters) the block's own forward runs.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.activations import GELUActivation

from gpt3.inference.microkernel import LANES
from gpt3.model.modeling_gpt3 import GPT3Block, GPT3ForCausalLM
from gpt3.training.lean.attention import attention, attention_backward
from gpt3.training.lean.loss import LeanLossSteps
from gpt3.training.lean.products import Products
from gpt3.training.lean.rows import (
    add_and_norm,
    gelu,
    gelu_backward,
    narrow_and_sum,
    norm,
    norm_backward,
    sum_of_rows,
)


class _Block(torch.autograd.Function):
    """x (B, T, C) to the block's output (B, T, C).

    What backward needs is kept: for each token 2 C numbers of float32 and 15 C of the products' dtype, with heads of C in all and
    an MLP of 4 C; and the weights, where products take a copy.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, heads: int, window: int, epsilon: float, products: Products, *weights: Tensor
    ) -> Tensor:
        gain_1, shift_1, w_qkv, b_qkv, w_out, b_out, gain_2, shift_2, w_up, b_up, w_down, b_down = weights
        B, T, C = x.shape
        flat = x.reshape(B * T, C)
        w_qkv, w_out, w_up, w_down = map(products.weight, (w_qkv, w_out, w_up, w_down))
        normal_1, stats_1 = norm(flat, gain_1, shift_1, epsilon, products.dtype)
        qkv = products.forward(normal_1, w_qkv, b_qkv).view(B, T, -1)
        heads_out, sums = attention(qkv, heads, window)
        h = products.forward(heads_out.view(B * T, -1), w_out)
        h, normal_2, stats_2, output = add_and_norm(flat, h, b_out, b_down, gain_2, shift_2, epsilon)
        slope = products.forward(normal_2, w_up)
        active = gelu(slope, b_up)
        output = products.add_forward(output, active, w_down)
        ctx.options = heads, window, products
        ctx.save_for_backward(
            flat, normal_1, stats_1, qkv, heads_out, sums, h, normal_2, stats_2, slope, active,
            gain_1, w_qkv, w_out, gain_2, w_up, w_down,
        )  # fmt: skip
        return output.view(B, T, C)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        heads, window, products = ctx.options
        (
            x, normal_1, stats_1, qkv, heads_out, sums, h, normal_2, stats_2, slope, active,
            gain_1, w_qkv, w_out, gain_2, w_up, w_down,
        ) = ctx.saved_tensors  # fmt: skip
        B, T, C = grad_output.shape
        of_output = grad_output.reshape(B * T, C)
        narrow, of_b_down = narrow_and_sum(of_output, products.dtype)
        of_w_down = products.grad_weight(narrow, active)
        inner = products.grad_input(narrow, w_down)
        of_b_up = gelu_backward(inner, slope)
        of_w_up = products.grad_weight(inner, normal_2)
        narrow = products.grad_input(inner, w_up)
        of_h, (of_gain_2, of_shift_2, of_b_out) = norm_backward(narrow, h, stats_2, gain_2, of_output)
        of_w_out = products.grad_weight(narrow, heads_out.view(B * T, -1))
        of_heads = products.grad_input(narrow, w_out).view(heads_out.shape)
        of_qkv = attention_backward(qkv, heads_out, sums, of_heads, heads, window).view(B * T, -1)
        of_b_qkv = sum_of_rows(of_qkv)
        of_w_qkv = products.grad_weight(of_qkv, normal_1)
        narrow = products.grad_input(of_qkv, w_qkv)
        of_x, (of_gain_1, of_shift_1, _) = norm_backward(narrow, x, stats_1, gain_1, of_h)
        return (
            of_x.view(B, T, C), None, None, None, None,
            of_gain_1, of_shift_1, of_w_qkv, of_b_qkv, of_w_out, of_b_out,
            of_gain_2, of_shift_2, of_w_up, of_b_up, of_w_down, of_b_down,
        )  # fmt: skip


def weights_of(block: GPT3Block) -> list[Tensor] | None:
    """The block's twelve weights in the order of its pass; None where it is no plain block: adapters, hooks, something frozen."""
    attention, mlp = block.attn, block.mlp
    modules: list[nn.Module] = [
        block.ln_1, attention.c_attn, attention.c_proj, block.ln_2, mlp.c_fc, mlp.c_proj
    ]  # fmt: skip
    found: list[Tensor] = []
    for module in modules:
        if type(module) not in (nn.Linear, nn.LayerNorm) or module._forward_hooks or module._backward_hooks:
            return None
        found += [module.weight, module.bias]  # type: ignore[list-item]
    plain = all(
        isinstance(weight, Tensor)
        and type(weight) is nn.Parameter
        and weight.requires_grad
        and weight.dtype == torch.float32
        and weight.device.type == "cpu"
        for weight in found
    )
    return found if plain else None


def fits(block: GPT3Block) -> bool:
    """Whether the block's shape and functions are those computed here."""
    return (
        block.use_pre_layernorm
        and isinstance(block.mlp.act, GELUActivation)
        and block.mlp.act.act is nn.functional.gelu
        and block.attn.head_dim % LANES == 0
        and block.attn.config._attn_implementation == "banded"
    )


def _pass(block: GPT3Block, hidden_states: Tensor, *, products: Products, **kwargs: Any) -> Tensor | None:
    """The block's output; None where the call asks for what is not computed here."""
    autocast = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
    drops = (block.attn.config.attn_pdrop, block.attn.resid_dropout.p, block.mlp.dropout.p)
    lean = (
        block.training
        and torch.is_grad_enabled()
        and hidden_states.dtype == torch.float32
        and hidden_states.device.type == "cpu"
        and autocast == products.dtype
        and not any(drops)
        and kwargs.get("attention_mask") is None
        and kwargs.get("past_key_values") is None
        and kwargs.get("is_causal") is not False
        and not kwargs.get("output_attentions")
    )
    weights = weights_of(block) if lean else None
    if weights is None:
        return None
    attn = block.attn
    window = attn.sliding_window or hidden_states.shape[1]
    with torch.autocast("cpu", enabled=False):
        return _Block.apply(hidden_states, attn.num_heads, window, block.ln_1.eps, products, *weights)


def install(model: GPT3ForCausalLM, products: Products) -> None:
    """Let `model` train so: its blocks, where they are of the shape known here, and its loss."""
    for block in model.transformer.h:
        if type(block) is GPT3Block and fits(block):
            block.training_pass = functools.partial(_pass, products=products)
    model.loss_steps = LeanLossSteps(products)
