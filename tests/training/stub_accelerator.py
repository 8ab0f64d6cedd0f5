"""A device without kernels: it takes the paths of an accelerator, tells shapes and formats, and counts what is read back.

torch lets a program name a device type of its own. Under FakeTensorMode no operator computes on it, so that real code runs down
the branches that are not a CPU's. Run as a program, it takes a training step, a validation and generated tokens there, and prints
what it counted as JSON.
"""

from __future__ import annotations

import collections
import functools
import json
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchgen
import yaml
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

NAME = "stub"
libraries: list[Any] = []


class Hooks(torch._C._acc.PrivateUse1Hooks):  # type: ignore[misc, name-defined]
    def is_available(self) -> bool:
        return True

    def has_primary_context(self, index: int) -> bool:
        return False

    def is_built(self) -> bool:
        return True


class Event:
    """What FSDP2 orders its streams by; here everything is in order."""

    def record(self, stream: object = None) -> Event:
        return self

    def wait(self, stream: object = None) -> None:
        pass

    def synchronize(self) -> None:
        pass


class Stream:
    """A queue of a device that computes nothing."""

    def wait_stream(self, stream: object) -> None:
        pass

    def wait_event(self, event: object) -> None:
        pass

    def record_event(self, event: object = None) -> Event:
        return Event()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: object) -> None:
        pass


class Module(backend_registration._DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def synchronize(self, device: object = None) -> None:
        pass

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def set_device(self, device: object) -> None:
        pass

    def Stream(self, *args: object, **options: object) -> Stream:  # noqa: N802  # torch's name
        return Stream()

    def Event(self, *args: object, **options: object) -> Event:  # noqa: N802
        return Event()

    def stream(self, stream: Stream) -> Stream:
        return stream

    def current_stream(self, device: object = None) -> Stream:
        return Stream()


def register() -> torch.device:
    """The device, which this process then has for good."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, hook=Hooks(), backend_module=Module())
    autocast = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
    autocast.fallback(torch.library.fallthrough_kernel)  # what autocast does not cast
    cast = torch.library.Library("aten", "IMPL", "AutocastPrivateUse1")
    cast.impl("linear", linear)
    cast.impl("layer_norm", layer_norm)
    libraries.extend([autocast, cast])
    return torch.device(NAME, 0)


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """In autocast's format, as on CUDA."""
    dtype = torch.get_autocast_dtype(NAME)
    with torch.autocast(NAME, enabled=False):
        return torch.nn.functional.linear(x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))


def layer_norm(
    x: torch.Tensor, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, _: Any = True
) -> Any:
    """In float32, as on CUDA."""
    with torch.autocast(NAME, enabled=False):
        return torch.nn.functional.layer_norm(x.float(), shape, weight.float(), bias.float(), eps)


@functools.cache
def kernels_by_name() -> dict[str, dict[str, Any]]:
    """torch's own table of operators, by name with overload."""
    path = Path(torchgen.__file__).parent / "packaged" / "ATen" / "native" / "native_functions.yaml"
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return {entry["func"].split("(")[0]: entry for entry in yaml.load(path.read_text(encoding="utf-8"), loader)}


def has_mps_kernel(name: str, table: dict[str, dict[str, Any]]) -> bool:
    """Whether the operator is computed by MPS, or by others that are looked up in turn."""
    entry = table.get(name)
    if entry is None:
        return True  # no operator of ATen
    if "structured_delegate" in entry:
        return has_mps_kernel(entry["structured_delegate"], table)
    keys = {key.strip() for keys in entry.get("dispatch", {}) for key in keys.split(",")}
    return not keys or "MPS" in keys or any(key.startswith("Composite") for key in keys)


class Audit(TorchDispatchMode):
    """Operators on the device: how often each ran, and those in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.operators, self.float64 = collections.Counter[str](), set[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, torch.Tensor) and x.device.type == NAME]
        if tensors:
            overload = "" if func._overloadname == "default" else f".{func._overloadname}"
            name = func._schema.name.removeprefix("aten::") + overload
            self.operators[name] += 1
            if any(x.dtype == torch.float64 for x in tensors):
                self.float64.add(name)
        return out


reads = collections.Counter[str]()
"""What was read back from the device, by the line that did it."""


def count_reads() -> None:
    """Count, from now on, what reads a fake tensor's value; a value is made up."""

    def caller() -> str:
        frames = [f for f in traceback.extract_stack()[:-2] if "/gpt3/" in f.filename or "clip_grad" in f.filename]
        return f"{Path(frames[-1].filename).name}:{frames[-1].line}" if frames else "elsewhere"

    def made_up(tensor: torch.Tensor) -> Any:
        if tensor.dtype == torch.bool:
            return True
        return 1.0 if tensor.dtype.is_floating_point else 1

    def nested(shape: tuple[int, ...], value: Any) -> Any:
        return [nested(shape[1:], value) for _ in range(shape[0])] if shape else value

    def patched(name: str, value_of: Any) -> None:
        original = getattr(torch.Tensor, name)

        def read(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            if not isinstance(self, FakeTensor):
                return original(self, *args, **kwargs)
            if self.device.type == NAME:
                reads[caller()] += 1
            return value_of(self)

        setattr(torch.Tensor, name, read)

    patched("item", made_up)
    for kind in (bool, float, int):
        patched(f"__{kind.__name__}__", lambda tensor, kind=kind: kind(made_up(tensor)))
    patched("tolist", lambda tensor: nested(tuple(tensor.shape), made_up(tensor)))
    patched("cpu", lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu"))
    to_numpy = torch.Tensor.numpy
    torch.Tensor.numpy = lambda self: (  # type: ignore[method-assign]
        np.ones(tuple(self.shape), np.float32) if isinstance(self, FakeTensor) else to_numpy(self)
    )


def empty_model(device: torch.device, **changes: Any) -> Any:
    """A small model on the device."""
    from gpt3.ladder.presets import preset
    from gpt3.model import GPT3ForCausalLM

    with torch.device("meta"):
        model = GPT3ForCausalLM(preset("demo").config(**changes))
    made: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                if id(parameter) not in made:
                    made[id(parameter)] = torch.nn.Parameter(torch.empty(parameter.shape, device=device))
                module._parameters[name] = made[id(parameter)]
    return model


def audited(work: Any) -> dict[str, Any]:
    """What `work` does on the device."""
    reads.clear()
    with Audit() as audit:
        work()
    table = kernels_by_name()
    return {
        "reads": dict(reads),
        "operators": sum(audit.operators.values()),
        "float64": sorted(audit.float64),
        "no_mps_kernel": sorted(name for name in audit.operators if not has_mps_kernel(name, table)),
    }


def main() -> None:
    from gpt3.inference.engine import Run
    from gpt3.inference.options import SamplingOptions
    from gpt3.inference.row import Row
    from gpt3.inference.sampling import choose_together
    from gpt3.inference.torch_engine import TorchEngine
    from gpt3.training.distributed import ALONE, Compute
    from gpt3.training.options import TrainOptions
    from gpt3.training.plan import make_plan
    from gpt3.training.selective_checkpointing import enable_selective
    from gpt3.training.trainer import Trainer
    from gpt3.training.validation import validate

    device, found = register(), dict[str, Any]()
    count_reads()

    class Windows:
        def batch(self, indices: list[int]) -> np.ndarray:
            return np.zeros((len(indices), 129), np.int64)

    class HeldOut:
        name, text_bytes, end_of_text = "held out", 2000, 0

        def __len__(self) -> int:
            return 5 * 128 + 1

        def document_ends(self) -> np.ndarray:
            return np.array([200, 300, len(self)])

        def read(self, start: int, stop: int) -> np.ndarray:
            return np.zeros(stop - start, np.int64)

    shape = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "head_dim": 16, "sliding_window": 16}
    with FakeTensorMode(allow_non_fake_inputs=True):
        for dtype in (torch.float32, torch.bfloat16):
            for name in ("adamw", "lion", "muon"):
                options = TrainOptions(steps=4, context=128, batch_tokens=1024, micro_batch=4, optimizer=name, ema=0.9)
                model = empty_model(device, **shape).train()
                parts = (model, model, Windows(), 0, Compute(device, dtype, 1e12), ALONE)
                trainer = Trainer(options, make_plan(options, 10**6), *parts)  # type: ignore[arg-type]
                trainer.one_step()  # makes the optimizer's state
                found[f"{name} {dtype}"] = audited(trainer.one_step)
        options = TrainOptions(
            steps=4, context=128, batch_tokens=1024, micro_batch=4, mask_documents=True, selective_checkpointing=True
        )
        model = empty_model(device, **shape).train()
        enable_selective(model)
        parts = (model, model, Windows(), 0, Compute(device, torch.bfloat16, 1e12), ALONE)
        trainer = Trainer(options, make_plan(options, 10**6), *parts)  # type: ignore[arg-type]
        trainer.one_step()
        found["packed, selective torch.bfloat16"] = audited(trainer.one_step)
        model = empty_model(device, **shape)
        on_device = Compute(device, torch.bfloat16, 1e12)
        found["validation"] = audited(lambda: validate(model, HeldOut(), on_device, 128, 2))  # type: ignore[arg-type]
        engine = TorchEngine(model)
        cache = engine.new_cache(4, 100)
        prompts = [Run(slot, [1] * (20 + slot)) for slot in range(4)]
        found["prompts"] = audited(lambda: engine.forward(cache, prompts))
        rows = [Row([1], SamplingOptions(temperature=0.8, top_k=5), 1, row, {0}, 100) for row in range(4)]

        def token() -> None:
            logits = engine.forward(cache, [Run(slot, [2]) for slot in range(4)])
            choose_together(logits, rows)

        found["token"] = audited(token)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
