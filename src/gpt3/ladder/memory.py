"""Memory of training and running a model, part by part, from its shape alone. Nothing here imports torch.

Every formula counts what this package allocates: tests hold the activations to what autograd keeps of a real forward pass,
with and without gradient checkpointing, and the shards to what FSDP2 puts on a rank. Bytes throughout.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from gpt3.ladder.presets import Preset

BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "int8": 1.0, "int4": 18 / 32}
"""Bytes a number takes, by dtype; int4 has a 16-bit scale for 32."""
Checkpointing = Literal["none", "selective", "full"]
CHECKPOINTING_KINDS: tuple[Checkpointing, ...] = get_args(Checkpointing)
"""What a block keeps for its backward pass: all it needs; matrix products and attention; its input alone."""
LOSS_ROWS = {4.0: 4096, 2.0: 8192}
"""Rows of logits the vocabulary loss holds at a time on a GPU, by bytes of its dtype (gpt3.model.loss); a CPU's are an eighth."""
LOSS_SCRATCH_ROWS = 512
"""Rows of the softmax at hand in float32 where the logits are 16 bit (gpt3.model.loss)."""


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes on each GPU to train. The sum is what is needed at the moment that needs most."""

    weights: float
    """The weights, 4 bytes each (float32 also where products are 16 bit); under FSDP this rank's shard."""
    gradients: float
    """Their gradients, 4 bytes each; under FSDP this rank's shard, reduced after every micro-batch, or in addition all of them,
    reduced after the last. DDP reduces them in place (`gradient_as_bucket_view=True`)."""
    optimizer: float
    """The optimizer's state, for AdamW two moments of 4 bytes per weight; under FSDP of this rank's shard."""
    copies: float
    """Weights and gradients that exist for a while. One GPU or DDP: autocast's 16-bit copy of every weight.
    FSDP: the gathered blocks, see `gathered_bytes`."""
    activations: float
    """What backward needs of forward, see `activation_bytes`."""
    loss: float
    """The vocabulary loss, see `loss_bytes`. Under FSDP what it needs beyond `copies`, and with checkpointing beyond a layer that
    is computed again, since it is done before those peak."""

    @property
    def total(self) -> float:
        """All of it."""
        return sum(vars(self).values())


def training_memory(
    preset: Preset,
    dtype: str = "float32",
    sequences: int = 1,
    *,
    checkpointing: Checkpointing = "none",
    shards: int = 1,
    moments: float = 8.0,
    regather: bool = True,
    whole_gradients: bool = False,
    tensor: int = 1,
) -> TrainingMemory:
    """Estimate of the memory to train `preset` on each GPU; assumptions at TrainingMemory's fields.

    Args:
        dtype: of the matrix products: float32, bfloat16 or float16.
        sequences: sequences of the full context in a GPU's micro-batch.
        checkpointing: what each block keeps; the rest is computed again in backward.
        shards: GPUs over which FSDP shards weights, gradients and moments; 1: each GPU has all of them (one GPU, DDP).
        moments: bytes of optimizer state per weight; 8 for AdamW's two moments in float32.
        regather: under FSDP, weights are freed after a block's forward pass and gathered again for its backward pass.
        whole_gradients: under FSDP, each GPU keeps whole gradients until a step's last micro-batch.
        tensor: GPUs that split each matrix among them (tensor parallelism); `shards` is then of each one's part.
    """
    number = shard_numbers(preset, shards, tensor)
    loss = loss_bytes(preset, dtype, sequences, tensor)
    copies, gradients = BYTES[dtype] * number * (BYTES[dtype] < 4), 4.0 * number
    if shards > 1:
        copies = gathered_bytes(preset, dtype, regather, tensor, whole_gradients)
        loss += gathered_at_loss(preset, dtype, regather, tensor) - copies
        gradients += 4.0 * shard_numbers(preset, 1, tensor) * whole_gradients
    activations = activation_bytes(preset, dtype, sequences, checkpointing=checkpointing, tensor=tensor)
    if checkpointing != "none":  # the loss is done before a layer is computed again
        kept = checkpoint_bytes(preset, dtype, checkpointing, tensor) * preset.n_layers + 8.0 * preset.d_model
        loss += min(0.0, sequences * preset.context * kept - activations)
    loss = max(0.0, loss)
    return TrainingMemory(4.0 * number, gradients, moments * number, copies, activations, loss)


def parameter_shapes(preset: Preset, tensor: int = 1) -> Iterator[tuple[tuple[int, ...], int]]:
    """Every parameter's shape as nn.Linear and nn.Embedding store it, and how many there are of it; the tied head once.

    Biases everywhere, learned positions, an MLP of 4 x d_model, two layer norms per block and a last one. With `tensor` the
    shapes of one of the GPUs that split the matrices.
    """
    width, attention, layers = preset.d_model, preset.n_heads * preset.d_head // tensor, preset.n_layers
    inner = 4 * width // tensor
    yield (-(-preset.vocab_size // tensor), width), 1  # wte
    yield (preset.positions or preset.context, width), 1  # wpe
    yield (3 * attention, width), layers  # c_attn
    yield (3 * attention,), layers
    yield (width, attention), layers  # c_proj
    yield (inner, width), layers  # c_fc
    yield (inner,), layers
    yield (width, inner), layers  # mlp.c_proj
    yield (width,), 6 * layers + 2  # biases of both projections, gains and biases of the norms


def shard_numbers(preset: Preset, shards: int, tensor: int = 1) -> int:
    """Parameters on the fullest of `shards` ranks under FSDP2, which cuts each tensor along its first dimension into pieces
    of ceil(rows / shards) rows: with more ranks than rows a rank has one row, or none."""
    return sum(
        -(-shape[0] // shards) * math.prod(shape[1:]) * count for shape, count in parameter_shapes(preset, tensor)
    )


def block_parameters(preset: Preset, tensor: int = 1) -> int:
    """Parameters of one block, the unit FSDP gathers."""
    return (shard_numbers(preset, 1, tensor) - root_parameters(preset, tensor)) // preset.n_layers


def root_parameters(preset: Preset, tensor: int = 1) -> int:
    """Parameters outside of the blocks: embeddings and the last norm."""
    return (-(-preset.vocab_size // tensor) + (preset.positions or preset.context) + 2) * preset.d_model


def gathered_bytes(
    preset: Preset, dtype: str, regather: bool = True, tensor: int = 1, whole_gradients: bool = False
) -> float:
    """What FSDP2 holds whole for a while in backward, each block being a unit and the rest (embeddings, last norm) the root.

    Of one block its weights in `dtype` and their gradients, of the block after it the float32 buffer that its gradients are
    reduced from, and of the block before it the buffer that its weights are gathered into. The root stays gathered from forward
    to the end of backward, with its gradient. Assumes MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=float32) and one
    reduction in flight (FSDP2's default). Autocast in its place would keep a 16-bit copy of every weight, gathered or not.

    Args:
        regather: blocks are freed after their forward pass; False: all stay gathered until their backward pass.
        whole_gradients: they are counted elsewhere. A block's are added to those, or from those copied into the buffer.
    """
    size, block, root = BYTES[dtype], block_parameters(preset, tensor), root_parameters(preset, tensor)
    weights = 2 if regather else preset.n_layers - 1
    gradients = max(size, 4.0 - size) if whole_gradients else size + 4.0
    return block * (weights * size + gradients) + root * 2 * size


def gathered_at_loss(preset: Preset, dtype: str, regather: bool = True, tensor: int = 1) -> float:
    """What FSDP2 holds whole while the vocabulary loss is computed: the root, and the buffer that the last block was gathered
    into; without `regather` all blocks, too."""
    size, block, root = BYTES[dtype], block_parameters(preset, tensor), root_parameters(preset, tensor)
    return size * (root + block * (1 if regather else preset.n_layers + 1))


def activation_bytes(
    preset: Preset, dtype: str, sequences: int = 1, *, checkpointing: Checkpointing = "none", tensor: int = 1
) -> float:
    """What forward keeps for backward, and backward's own working set, for `sequences` of the full context.

    Per token and layer, C = d_model, w = n_heads x d_head, b = bytes of `dtype`:

    - the inputs of both layer norms, 2 C of 4 bytes (the residual stream stays float32 under autocast);
    - their outputs, the MLP before and after the GELU, 10 C of b; q, k, v and the attention's output, 4 w of b. The
      attention's probabilities are not kept (fused attention);
    - a banded layer computed in blocks (context from two windows on): keys and values a second and third time, each block
      with the one before it, 4 w of b, the queries once more when there are several sequences, w of b (both but for
      the first block), and the output once more, w of b. In addition, its mask of 2 x window^2 numbers of b.

    The last layer norm has 2 C of 4 bytes. Backward holds gradients of the MLP's inside and of the stream, 4 C of b and 2 C of
    4 bytes. With checkpointing each layer keeps its input, C of 4 bytes, and one layer at a time all of the above; selective
    checkpointing also q, k, v, the attention's output, its projection, the MLP's and that before the GELU, 6 C + 4 w of b.
    With `tensor` the insides of attention and MLP, w and 8 C of the 10 C (4 C of the 6 C), are split.
    """
    size, width, attention = BYTES[dtype], preset.d_model, preset.n_heads * preset.d_head / tensor
    tokens = sequences * preset.context
    dense = 8.0 * width + size * (2 * width + 8 * width / tensor + 4 * attention)
    banded, mask = dense, 0.0
    if preset.context >= 2 * preset.window:
        blocks = -(-preset.context // preset.window)
        again = (4 + (sequences > 1)) * (blocks - 1) / blocks + 1
        banded, mask = dense + size * attention * again, size * 2 * preset.window**2
    banded_layers = preset.n_layers // 2  # every second, dense first
    working = size * 4 * width / tensor + 8.0 * width
    if checkpointing != "none":
        kept = checkpoint_bytes(preset, dtype, checkpointing, tensor)
        last = kept * (preset.n_layers - 1)  # of the layers before the one that backward is at
        largest, its_mask = (last + banded, mask) if banded_layers else (last + dense, 0.0)
        if preset.n_layers % 2 and banded_layers:  # the last one is dense
            largest = max(last + dense, last - kept + banded)
        return tokens * (largest + working) + its_mask
    layers = (preset.n_layers - banded_layers) * dense + banded_layers * banded
    return tokens * (layers + 8.0 * width + working) + banded_layers * mask


def checkpoint_bytes(preset: Preset, dtype: str, checkpointing: Checkpointing, tensor: int = 1) -> float:
    """What a layer keeps of each token where it is computed again, see `activation_bytes`."""
    width, attention = preset.d_model, preset.n_heads * preset.d_head / tensor
    products = BYTES[dtype] * (2 * width + 4 * width / tensor + 4 * attention)
    return 4.0 * width + products * (checkpointing == "selective")


def loss_bytes(preset: Preset, dtype: str, sequences: int = 1, tensor: int = 1) -> float:
    """The peak of gpt3.model.loss on a GPU: a chunk of logits in `dtype` and the float32 gradient of the head's weight; in 16 bit
    also the cast weight, one product of it and one in float32, some rows of softmax, and the cast input; the input's gradient.

    With `tensor` > 1 torch's parallel loss: all logits of this GPU's part of the vocabulary, and three of that in float32."""
    size, tokens, head = BYTES[dtype], sequences * preset.context, preset.vocab_size * preset.d_model
    if tensor > 1:
        return tokens * -(-preset.vocab_size // tensor) * (size + 3 * 4.0)
    rows = min(LOSS_ROWS[size], tokens)
    padded = -(-preset.vocab_size // 64) * 64
    logits = size * rows * padded
    if size == 4:
        return logits + 4.0 * head + 4.0 * tokens * preset.d_model
    scratch = 4.0 * min(LOSS_SCRATCH_ROWS, rows) * preset.vocab_size
    return logits + scratch + (4 + 4 + 2 * size) * head + (4 + 2 * size) * tokens * preset.d_model


def running_memory(preset: Preset, dtype: str = "float32") -> float:
    """Bytes to generate with one sequence of the full context: the weights, and keys and values of every position a layer
    still sees (the whole context in dense layers, the window in banded ones; 16 bit when the weights are smaller)."""
    cache = 2 * preset.n_heads * preset.d_head * sum(preset.windows)
    weights = preset.parameters * BYTES[dtype]
    if dtype == "int4":  # the layers' matrices only, the rest is int8
        layers = preset.n_layers * (4 * preset.d_model * preset.n_heads * preset.d_head + 8 * preset.d_model**2)
        weights += (preset.parameters - layers) * (BYTES["int8"] - BYTES["int4"])
    return weights + cache * max(BYTES[dtype], 2.0)
