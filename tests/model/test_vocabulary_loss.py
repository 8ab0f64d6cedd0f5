"""The chunked vocabulary loss against torch's plain cross-entropy over whole logits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from gpt3.model import linear_cross_entropy
from gpt3.model import loss as loss_module


def plain(hidden: Tensor, weight: Tensor, targets: Tensor, real: int | None = None, **options: object) -> Tensor:
    return F.cross_entropy(F.linear(hidden, weight[:real]), targets, **options)  # type: ignore[arg-type]


def example(
    rows: int, width: int, vocabulary: int, *, seed: int = 0, dtype: torch.dtype = torch.float32, scale: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, width, generator=generator, dtype=dtype).mul_(scale).requires_grad_()
    weight = torch.randn(vocabulary, width, generator=generator, dtype=dtype).requires_grad_()
    return hidden, weight, torch.randint(vocabulary, (rows,), generator=generator)


@settings(max_examples=80, deadline=None)
@given(
    rows=st.integers(1, 70),
    width=st.integers(1, 9),
    vocabulary=st.integers(1, 140),
    padding=st.integers(0, 70),
    chunk=st.one_of(st.none(), st.integers(1, 40)),
    reduction=st.sampled_from(["mean", "sum", "none"]),
    ignored=st.sampled_from([0.0, 0.3, 1.0]),
    ignore_index=st.sampled_from([-100, 0]),
    scale=st.sampled_from([1.0, 300.0]),
    seed=st.integers(0, 999),
)
def test_loss_and_gradients_are_plain_cross_entropys(
    rows: int, width: int, vocabulary: int, padding: int, chunk: int | None, reduction: str, ignored: float,
    ignore_index: int, scale: float, seed: int,
) -> None:  # fmt: skip
    """At scale 300 a target's probability underflows; its loss must not."""
    generator = torch.Generator().manual_seed(seed)
    hidden, weight, targets = example(rows, width, vocabulary, seed=seed, dtype=torch.float64, scale=scale)
    weight = torch.cat([weight.detach(), torch.randn(padding, width, dtype=torch.float64)]).requires_grad_()
    targets[torch.rand(rows, generator=generator) < ignored] = ignore_index
    loss = linear_cross_entropy(
        hidden, weight, targets, reduction=reduction, chunk=chunk, ignore_index=ignore_index, real_vocab_size=vocabulary
    )
    expected = plain(hidden, weight, targets, vocabulary, reduction=reduction, ignore_index=ignore_index)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-9, equal_nan=True)
    upstream = torch.randn(loss.shape, generator=generator, dtype=torch.float64)
    gradients = torch.autograd.grad(loss, [hidden, weight], upstream)
    references = torch.autograd.grad(expected, [hidden, weight], upstream)
    if bool((targets != ignore_index).any()):
        for gradient, reference in zip(gradients, references, strict=True):
            torch.testing.assert_close(gradient, reference, rtol=1e-8, atol=1e-8)
        assert bool((gradients[1][vocabulary:] == 0).all())


@pytest.mark.parametrize("vocabulary", [64, 1000, 4097])
def test_float32(vocabulary: int) -> None:
    inputs = example(600, 32, vocabulary, scale=0.2)
    loss, expected = linear_cross_entropy(*inputs), plain(*inputs)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
    for gradient, reference in zip(
        torch.autograd.grad(loss, inputs[:2]), torch.autograd.grad(expected, inputs[:2]), strict=True
    ):
        torch.testing.assert_close(gradient, reference, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("vocabulary", [1000, 1024])
def test_under_autocast_it_is_as_exact_as_plain_autocast(dtype: torch.dtype, vocabulary: int) -> None:
    inputs = example(2100, 32, vocabulary, scale=0.2)  # three chunks
    exact = plain(*inputs)
    with torch.autocast("cpu", dtype=dtype):
        loss, rough = linear_cross_entropy(*inputs), plain(*inputs)
    assert loss.dtype == torch.float32
    assert abs(loss.item() - exact.item()) < 2 * abs(rough.item() - exact.item()) + 1e-4
    references = torch.autograd.grad(exact, inputs[:2])
    rough_gradients = torch.autograd.grad(rough, inputs[:2])
    for ours, plains, reference in zip(torch.autograd.grad(loss, inputs[:2]), rough_gradients, references, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - reference).norm() < 1.2 * (plains - reference).norm()


def test_sums_over_chunks_are_kept_in_float32() -> None:
    """512 chunks of one row, each adding 1 to a weight's gradient near 512: in bfloat16 the sum would stop at 256."""
    hidden = torch.ones(512, 1, requires_grad=True)
    weight = torch.tensor([[0.0], [0.0]], requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = linear_cross_entropy(hidden, weight, torch.zeros(512, dtype=torch.long), reduction="sum", chunk=1)
    loss.backward()
    assert weight.grad.tolist() == [[-256.0], [256.0]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_gradients_have_their_tensors_dtype(dtype: torch.dtype) -> None:
    hidden, weight, targets = example(50, 8, 100, dtype=dtype)
    linear_cross_entropy(hidden, weight, targets).backward()
    assert (hidden.grad.dtype, weight.grad.dtype) == (dtype, dtype)
    exact = plain(hidden.float(), weight.float(), targets)
    reference = torch.autograd.grad(exact, weight)[0].float()
    assert (weight.grad.float() - reference).norm() < 0.02 * reference.norm()


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_upstream_scales_gradients_and_the_graph_may_be_used_again(reduction: str) -> None:
    """What accumulation (loss / n) and a GradScaler (loss x 65,536) do; and two backwards through one loss."""
    inputs = example(40, 8, 100)
    loss = linear_cross_entropy(*inputs, reduction=reduction).sum()
    expected = torch.autograd.grad(plain(*inputs, reduction="sum"), inputs[:2])
    for factor in (1.0, 65536.0, 1 / 7):
        for gradient, reference in zip(
            torch.autograd.grad(loss * factor, inputs[:2], retain_graph=True), expected, strict=True
        ):
            torch.testing.assert_close(gradient, reference * factor, rtol=1e-4, atol=1e-5 * factor)


def test_two_losses_of_one_weight_add_up() -> None:
    """The head tied to the embedding, and used twice."""
    generator = torch.Generator().manual_seed(0)
    embedding = torch.randn(90, 8, generator=generator).requires_grad_()
    ids = torch.randint(90, (2, 30), generator=generator)

    def total(loss: object) -> Tensor:
        return sum(loss(F.embedding(row, embedding).tanh(), embedding, row.roll(-1)) for row in ids)  # type: ignore[operator]

    gradient, reference = (torch.autograd.grad(total(loss), embedding)[0] for loss in (linear_cross_entropy, plain))
    torch.testing.assert_close(gradient, reference, rtol=1e-4, atol=1e-6)


def test_non_contiguous_inputs() -> None:
    hidden, weight, targets = example(60, 8, 100)
    loss = linear_cross_entropy(hidden.T.contiguous().T[::2], weight.T.contiguous().T, targets[::2])
    torch.testing.assert_close(loss, plain(hidden[::2], weight, targets[::2]))


def test_rows_that_do_not_count_may_be_left_in_with_weight_0() -> None:
    """On a GPU they are, on a CPU they are taken out first: the same sum."""
    hidden, weight, targets = example(60, 8, 100, dtype=torch.float64)
    counted = torch.arange(60) % 3 > 0
    kept = loss_module._LinearCrossEntropy.apply(
        hidden, weight, targets.where(counted, 0), counted, False, torch.float64, 16, None
    )
    expected = linear_cross_entropy(hidden, weight, targets.where(counted, -100), reduction="sum")
    torch.testing.assert_close(kept, expected)
    for gradient, reference in zip(
        torch.autograd.grad(kept, [hidden, weight]), torch.autograd.grad(expected, [hidden, weight]), strict=True
    ):
        torch.testing.assert_close(gradient, reference)


def test_only_the_gradients_asked_for_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[bool, ...]] = []
    inner = loss_module._losses_and_gradients

    def spy(*arguments: object) -> object:
        asked.append(tuple(arguments[4]))  # type: ignore[arg-type]
        return inner(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(loss_module, "_losses_and_gradients", spy)
    hidden, weight, targets = example(20, 4, 30)
    linear_cross_entropy(hidden, weight.detach(), targets)
    linear_cross_entropy(hidden.detach(), weight, targets)
    with torch.no_grad():
        linear_cross_entropy(hidden, weight, targets)
    with torch.inference_mode():
        each = linear_cross_entropy(hidden, weight, targets, reduction="none")
    assert asked == [(True, False), (False, True), (False, False), (False, False)]
    torch.testing.assert_close(each, plain(hidden, weight, targets, reduction="none").detach())


def test_whole_logits_are_never_held() -> None:
    """The largest tensor made is a chunk of logits, not rows x vocabulary."""
    rows, vocabulary = 4096, 3000
    sizes: list[int] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            out = func(*args, **(kwargs or {}))
            sizes.extend(
                x.untyped_storage().nbytes()
                for x in (out if isinstance(out, tuple) else (out,))
                if isinstance(x, Tensor)
            )
            return out

    inputs = example(rows, 16, vocabulary)
    with Watch():
        linear_cross_entropy(*inputs).backward()
    assert 512 * vocabulary * 4 <= max(sizes) <= 512 * (vocabulary + 64) * 4


def test_an_id_out_of_the_real_vocabulary_is_an_error() -> None:
    hidden, weight, _ = example(3, 4, 30)
    with pytest.raises((RuntimeError, IndexError), match="out of bounds"):
        linear_cross_entropy(hidden, weight, torch.tensor([1, 25, 2]), real_vocab_size=20)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": torch.zeros(2, 3, 4)}, r"hidden \(N, C\), weight \(V, C\) and targets \(N,\), got \(2, 3, 4\)"),
        ({"targets": torch.zeros(5, dtype=torch.long)}, r"\(5,\)"),
        ({"targets": torch.zeros(3)}, "int64 ids, got torch.float32"),
        ({"reduction": "median"}, "one of mean, sum, none, got 'median'"),
        ({"chunk": 0}, "at least 1 row, got 0"),
    ],
)
def test_arguments_that_do_not_fit_are_named(change: dict[str, object], message: str) -> None:
    hidden, weight, targets = example(3, 4, 30)
    arguments: dict[str, object] = {"hidden": hidden, "weight": weight, "targets": targets}
    with pytest.raises(ValueError, match=message):
        linear_cross_entropy(**(arguments | change))  # type: ignore[arg-type]


@pytest.mark.parametrize("divisor", [512, 500, torch.tensor(500)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_divisor_divides_loss_and_gradients(divisor: int | Tensor, dtype: torch.dtype) -> None:
    """Inside, where it costs nothing, or after: as exact as a division outside, in bfloat16 to the bit for powers of two."""
    inputs = example(300, 16, 130, scale=0.2)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        inside = linear_cross_entropy(*inputs, reduction="sum", divisor=divisor)
        outside = linear_cross_entropy(*inputs, reduction="sum") / divisor
    torch.testing.assert_close(inside, outside)
    gradients, references = (torch.autograd.grad(loss, inputs[:2]) for loss in (inside, outside))
    for gradient, reference in zip(gradients, references, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-5, atol=1e-8)


def test_backward_hands_out_gradients_that_a_second_backward_does_not_change() -> None:
    """With an upstream gradient of 1 nothing is multiplied: what is handed out must not be what is added to later."""
    hidden, weight, targets = example(40, 8, 100)
    loss = linear_cross_entropy(hidden, weight, targets)
    loss.backward(retain_graph=True)
    first = weight.grad.clone()
    loss.backward()
    torch.testing.assert_close(weight.grad, 2 * first)
    torch.testing.assert_close(first, torch.autograd.grad(plain(hidden, weight, targets), weight)[0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("gradients", [True, False])
def test_what_a_gpu_compiles_is_the_loop(dtype: torch.dtype, gradients: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_module, "compiled_softmax_step", lambda: loss_module.softmax_step)
    hidden, weight, targets = (x.detach() for x in example(70, 16, 130, dtype=dtype))
    scale = torch.rand(70, generator=torch.Generator().manual_seed(1)).round(decimals=1)
    arguments = (hidden, weight, targets % 120, scale, (gradients, gradients), dtype, 40, 120)
    losses = [loss_module._losses_and_gradients(*arguments, compiled) for compiled in (False, True)]
    tolerance = 1e-12 if dtype == torch.float64 else 2e-2
    for looped, fused in zip(*losses, strict=True):
        assert (looped is None) == (fused is None)
        if looped is not None:
            torch.testing.assert_close(fused, looped, rtol=tolerance, atol=tolerance * float(looped.abs().max()))


class Kernels(TorchDispatchMode):
    """Counts the operators that compute, other than matrix products, and the bytes that they read and write."""

    FREE = (
        "mm", "device", "alias", "scalar", "empty", "new_empty", "slice", "t.", "transpose", "unsqueeze", "expand", "view",
        "select", "detach", "split", "as_",
    )  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.count = self.bytes = 0

    def __torch_dispatch__(self, func: object, types: object, args: tuple = (), kwargs: object = None) -> object:
        out = func(*args, **(kwargs or {}))  # type: ignore[operator]
        if not func.__name__.startswith(self.FREE):  # type: ignore[attr-defined]
            tensors = [x for x in torch.utils._pytree.tree_leaves((args, kwargs, out)) if isinstance(x, Tensor)]
            self.count += 1
            self.bytes += sum(x.numel() * x.element_size() for x in {id(x): x for x in tensors}.values())
        return out


def test_the_compiled_loss_is_few_kernels_over_few_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a chunk: the products, softmax_step (which Inductor makes 2 kernels of: maximum and sum, then the gradient), the sum of
    the weight's gradient. It reads the logits twice and writes them once; the loop moves more than twice that in bfloat16."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    rows, width, vocabulary, dtype = 16384, 768, 50257, torch.bfloat16
    calls: list[int] = []

    def step(logits: Tensor, targets: Tensor, scale: Tensor, real: int, gradients: bool) -> Tensor:
        calls.append(3 * logits.numel() * logits.element_size())
        return torch.empty_like(scale[:, 0])

    monkeypatch.setattr(loss_module, "compiled_softmax_step", lambda: step)
    found = []
    with FakeTensorMode():
        hidden, weight = torch.empty(rows, width, device="meta"), torch.empty(vocabulary, width, device="meta")
        targets = torch.empty(rows, dtype=torch.long, device="meta")
        scale = torch.empty(rows, dtype=torch.bool, device="meta")
        for compiled in (False, True):
            with Kernels() as kernels:
                loss_module._losses_and_gradients(
                    hidden, weight, targets, scale, (True, True), dtype, 8192, None, compiled
                )
            found.append((kernels.count + 2 * len(calls), kernels.bytes + sum(calls)))
    (loop_kernels, loop_bytes), (kernels_, bytes_) = found
    assert loop_kernels > 300
    assert kernels_ < 30
    assert bytes_ < loop_bytes / 2.5
