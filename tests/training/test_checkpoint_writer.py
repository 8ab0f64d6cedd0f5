"""Written beside training, kept by rule, and whole or not at all: under a kill, a full disk, a rank that fails."""

import errno
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from checkpoint_case import average_of, make_model, make_optimizer, make_tokenizer, read_set, train_step
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from gpt3.errors import RunError
from gpt3.training import checkpoint_writer
from gpt3.training.checkpoint import checkpoints, damage, named_tensors, newest_whole, optimizer_state, retained
from gpt3.training.checkpoint_writer import CheckpointWriter
from gpt3.training.distributed import World

HERE = Path(__file__).parent


def test_training_may_go_on_while_a_checkpoint_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is on disk is what was there when save was called, though the write began later."""
    model = make_model()
    optimizer, average = make_optimizer(model), average_of(model)
    train_step(model, model, optimizer, average, 0, slice(None))
    before = {name: tensor.clone() for name, tensor in named_tensors(model).items()}
    moment = optimizer.state[model.transformer.wte.weight]["exp_avg"].clone()
    may_write = threading.Event()
    write = CheckpointWriter._write

    def late(self: CheckpointWriter, snapshot: checkpoint_writer.Snapshot) -> None:
        assert may_write.wait(60)
        write(self, snapshot)

    monkeypatch.setattr(CheckpointWriter, "_write", late)
    state = {"step": 1, "window": [1.0]}
    with CheckpointWriter(tmp_path, model, make_tokenizer()) as writer:
        path = writer.save(optimizer, state, extra={"ema": average})
        state["window"].append(2.0)
        train_step(model, model, optimizer, average, 1, slice(None))
        assert not path.exists()
        may_write.set()
        writer.wait()
        assert path.exists()
    saved = load_file(path / "model.safetensors")
    assert all(torch.equal(saved[name], tensor) for name, tensor in before.items())
    assert not torch.equal(saved["transformer.wte.weight"], model.transformer.wte.weight)
    assert torch.equal(load_file(path / "optimizer.safetensors")["transformer.wte.weight.exp_avg"], moment)
    assert '"window": [\n  1.0\n ]' in (path / "state.json").read_text()


steps = st.integers(min_value=0, max_value=60)


@given(st.sets(steps), steps, st.integers(1, 5), st.none() | st.integers(1, 9), st.none() | steps)
def test_retention(found: set[int], current: int, keep: int, keep_every: int | None, best: int | None) -> None:
    found = found | {current}
    stay = retained(found, current, keep=keep, keep_every=keep_every, best=best)
    assert stay <= found
    assert current in stay
    assert (best in stay) == (best in found)
    assert stay >= {step for step in found if step > current}
    past = sorted(step for step in found if step <= current)
    assert stay >= set(past[-keep:])
    for step in past[:-keep]:
        assert (step in stay) == (step == best or (keep_every is not None and step % keep_every == 0))
    assert retained(stay, current, keep=keep, keep_every=keep_every, best=best) == stay  # nothing goes the second time


def test_old_checkpoints_go_and_the_best_stays(tmp_path: Path) -> None:
    model = make_model()
    optimizer = make_optimizer(model)
    tokenizer = make_tokenizer()
    tmp_path.joinpath("step-7.123.partial").mkdir()  # a killed writer's
    with CheckpointWriter(tmp_path, model, tokenizer, keep=2, keep_every=4) as writer:
        for step in range(1, 10):
            writer.save(optimizer, {"step": step}, best_step=3 if step >= 3 else step)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-3", "step-4", "step-8", "step-9"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-3", "step-4", "step-8", "step-9"]
    assert all(damage(path) is None for path in checkpoints(tmp_path))


def test_a_kill_while_an_old_checkpoint_goes_leaves_none_that_is_half_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies_half_way(path: Path) -> None:
        if (path / "manifest.json").exists():  # a checkpoint
            (path / "model.safetensors").unlink()
            raise InterruptedError

    model = make_model()
    writer = CheckpointWriter(tmp_path, model, make_tokenizer(), keep=1)
    writer.save(make_optimizer(model), {"step": 1})
    writer.wait()
    real = checkpoint_writer.discard
    monkeypatch.setattr(checkpoint_writer, "discard", lambda path: dies_half_way(path) or real(path))
    writer.save(make_optimizer(model), {"step": 2})
    with pytest.raises(RunError):
        writer.close()
    assert [path.name for path in checkpoints(tmp_path)] == ["step-2"]
    assert damage(tmp_path / "step-2") is None
    monkeypatch.undo()
    CheckpointWriter(tmp_path, model, make_tokenizer()).close()  # the next start clears the rest away
    assert [path.name for path in tmp_path.iterdir()] == ["step-2"]


def test_a_full_disk_costs_the_new_checkpoint_only(tmp_path: Path) -> None:
    """A file-size limit stands for the full disk; training's next save fails, the one after room is made succeeds."""
    resource = pytest.importorskip("resource")
    model = make_model()
    optimizer, average = make_optimizer(model), average_of(model)
    train_step(model, model, optimizer, average, 0, slice(None))
    writer = CheckpointWriter(tmp_path, model, make_tokenizer())
    writer.save(optimizer, {"step": 1})
    writer.wait()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (80_000, hard))  # Python ignores SIGXFSZ
    try:
        writer.save(optimizer, {"step": 2})
        with pytest.raises(RunError) as caught:
            writer.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    sets = (named_tensors(model), optimizer_state(model, optimizer)[0])
    need = sum(tensor.nbytes for tensors in sets for tensor in tensors.values())
    message = str(caught.value)
    assert "\n" not in message
    assert f"checkpoint step-2 could not be written in {tmp_path}: it needs {need / 1e6:,.1f} MB" in message
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]
    assert damage(tmp_path / "step-1") is None
    writer.save(optimizer, {"step": 3})
    writer.close()
    assert newest_whole(tmp_path) == (tmp_path / "step-3", [])


def test_a_failed_write_is_told_at_the_next_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()
    writer = CheckpointWriter(tmp_path, model, make_tokenizer())

    def full(path: Path, tensors: dict) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint_writer, "write_tensors", full)
    writer.save(make_optimizer(model), {"step": 1})
    with pytest.raises(RunError, match=r"step-1 could not be written .* MB are free \(No space left on device\)"):
        writer.save(make_optimizer(model), {"step": 2})
    writer.close()
    assert list(tmp_path.iterdir()) == []


def two_ranks(folder: Path, timeout: float) -> list[CheckpointWriter]:
    """Two ranks that hold the same weights, as under DDP, in one process."""
    return [
        CheckpointWriter(folder, make_model(), make_tokenizer(), world=World(rank, 2), timeout=timeout)
        for rank in (0, 1)
    ]


def test_two_ranks_meet_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each writes files of its own: two that write into one can lose each other's bytes on NFS."""
    real, written = checkpoint_writer.write_tensors, list[Path]()
    monkeypatch.setattr(
        checkpoint_writer, "write_tensors", lambda path, tensors: written.append(path) or real(path, tensors)
    )
    writers = two_ranks(tmp_path, 20)
    for step in (1, 2):
        for writer in reversed(writers):
            writer.save(make_optimizer(writer.model), {"step": step})
    for writer in writers:
        writer.close()
    assert newest_whole(tmp_path) == (tmp_path / "step-2", [])
    assert {"random-0.safetensors", "random-1.safetensors"} <= {path.name for path in (tmp_path / "step-2").iterdir()}
    files = [path.name for path in (tmp_path / "step-2").glob("*.safetensors")]
    assert sorted(path.name for path in written) == sorted(2 * files)  # of two saves
    assert {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"} <= set(files)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-1", "step-2"]
    assert not any(path.is_dir() for path in (tmp_path / "step-2").iterdir())


def test_two_saves_of_one_step_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 1 has written its part of the second save before rank 0 looks for that of the first."""
    real = CheckpointWriter._collect

    def late(writer: CheckpointWriter, part: Path, folder: Path, rank: int) -> dict[str, tuple[int, str]]:
        time.sleep(0.3)
        return real(writer, part, folder, rank)

    monkeypatch.setattr(CheckpointWriter, "_collect", late)
    writers = two_ranks(tmp_path, 3)
    for step in range(2):
        for writer in reversed(writers):
            with torch.no_grad():
                writer.model.transformer.wte.weight.fill_(step)
            writer.save(make_optimizer(writer.model), {"step": 1})
    for writer in writers:
        writer.close()
    assert newest_whole(tmp_path) == (tmp_path / "step-1", [])
    assert bool((read_set(tmp_path / "step-1", "model")["transformer.wte.weight"] == 1).all())
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]


def test_a_rank_that_does_not_come_hangs_nobody(tmp_path: Path) -> None:
    first, second = two_ranks(tmp_path, 0.2)
    second.save(make_optimizer(second.model), {"step": 1})
    second.close()  # it has done its part; rank 0's message comes at the next save
    assert checkpoints(tmp_path) == []
    first, _ = two_ranks(tmp_path, 0.2)  # the next start clears it away
    first.save(make_optimizer(first.model), {"step": 1})
    with pytest.raises(RunError, match=r"rank 1 did not write its part in 0\.2 s"):
        first.close()
    assert list(tmp_path.iterdir()) == []


def test_a_rank_that_fails_tells_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = checkpoint_writer.write_tensors

    def full_on_rank_1(path: Path, tensors: dict) -> tuple[int, str]:
        if path.name == "random-1.safetensors":
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, tensors)

    monkeypatch.setattr(checkpoint_writer, "write_tensors", full_on_rank_1)
    writers = two_ranks(tmp_path, 20)
    for writer in writers:
        writer.save(make_optimizer(writer.model), {"step": 1})
    with pytest.raises(RunError, match=r"rank 1 could not write its part \(No space left on device\)"):
        writers[0].close()
    with pytest.raises(RunError, match=r"MB are free \(No space left on device\)"):
        writers[1].close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the writer is forked, so that Python starts once for all kills")
@pytest.mark.parametrize("kills", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_a_kill_at_any_moment_leaves_whole_checkpoints(script, kills: int, tmp_path: Path) -> None:
    """Whatever is called step-N is whole after each `kill -9` of a process that does nothing but save."""
    result = script(HERE / "checkpoint_kills.py", str(tmp_path / "checkpoints"), str(kills))
    assert result.returncode == 0, result.stderr
    told = dict(line.split(": ") for line in result.stdout.splitlines())
    assert int(told["kills"]) == kills
    assert int(told["checkpoints"]) >= 1
    if kills >= 50:
        assert int(told["half-written"]) > kills // 4  # the kills hit writes


def test_python_ignores_the_signal_of_the_file_size_limit() -> None:
    """The full-disk test rests on it."""
    if hasattr(signal, "SIGXFSZ"):
        assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN
