"""The nearest orthogonal matrices, by Newton-Schulz iterations: products only, no decomposition."""

from __future__ import annotations

from collections.abc import Sequence

import torch

LEAST = 0.02
"""Of a matrix's singular values relative to its norm: the least that comes near 1. Smaller ones grow, too, some 50 times."""
COEFFICIENTS = ((7.711, -22.1138, 16.2487), (3.2153, -2.4112, 0.5013), (2.2183, -1.594, 0.4107))
"""a, b, c of each iteration: of all aσ + bσ³ + cσ⁵ the one nearest to 1 on what the iteration before makes of [LEAST, 1] (the
method of Amsel et al. 2025, arXiv 2505.16932). Three learn what five of longer ones do: docs/LOG.md.
"""


def orthogonalized(stack: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """U Vᵀ of each matrix U S Vᵀ, about: singular values from `LEAST` of its norm up come to 0.9 to 1.1.

    X ← a X + (b X Xᵀ + c (X Xᵀ)²) X, three times, from the side where X Xᵀ is smaller.

    Args:
        stack: (N, rows, columns).
        dtype: of the products.

    Returns:
        (N, rows, columns) of `dtype`.
    """
    tall = stack.shape[-2] > stack.shape[-1]
    x = (stack.mT if tall else stack).to(dtype)
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for a, b, c in COEFFICIENTS:
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def orthogonalize(matrices: Sequence[torch.Tensor], dtype: torch.dtype) -> list[torch.Tensor]:
    """`orthogonalized` matrices of any shapes, those of one shape in one stack."""
    shapes: dict[torch.Size, list[int]] = {}
    for index, matrix in enumerate(matrices):
        shapes.setdefault(matrix.shape, []).append(index)
    found: dict[int, torch.Tensor] = {}
    for indices in shapes.values():
        found.update(zip(indices, orthogonalized(torch.stack([matrices[i] for i in indices]), dtype), strict=True))
    return [found[index] for index in range(len(matrices))]
