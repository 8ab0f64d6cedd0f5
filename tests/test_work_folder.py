"""Work that is interrupted: resumed with the same settings only, by one process at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from gpt3.errors import InputError
from gpt3.work_folder import (
    check_file,
    check_out,
    check_same,
    choose_folder,
    differences,
    is_locked,
    locked,
    locked_folder,
    requested,
    stored,
)


@dataclass(frozen=True)
class Wanted:
    lr: float = 0.1
    data: tuple[str, ...] = ("a", "b")
    out: str | None = None


def test_settings_are_json_values_without_the_free_ones(tmp_path: Path) -> None:
    assert requested(Wanted(), free=("out",)) == {"lr": 0.1, "data": ["a", "b"]}
    path = tmp_path / "asked.json"
    assert stored(path) is None
    for text in ("[1]", "{half", ""):
        path.write_text(text)
        assert stored(path) is None
    path.write_text(json.dumps(requested(Wanted())))
    assert not differences(stored(path), requested(Wanted()))


def test_an_option_that_an_old_version_lacked_counts_as_its_default() -> None:
    now = requested(Wanted(), free=("out",))
    assert not differences({"data": ["a", "b"], "retired": None}, now)
    assert differences({"data": ["a", "b"]}, requested(Wanted(lr=0.2), free=("out",))) == ["--lr was 0.1, now 0.2"]
    assert differences({"lr": 0.1, "retired": 3}, now) == ["--retired was 3, now unset"]


def test_the_error_names_options_values_and_remedy() -> None:
    check_same("--out x", {"lr": 0.1, "new": None}, {"lr": 0.1}, "Choose another.")
    with pytest.raises(InputError) as error:
        check_same(
            "--out x", {"lr": 0.1, "data": ["a"]}, {"lr": 0.2, "data": ["b" * 60], "fold": "1/3"}, "Choose another."
        )
    assert str(error.value) == (
        "--out x was started with other options: --lr was 0.1, now 0.2; "
        f'--data was ["a"], now ["{"b" * 37}…; --fold was unset, now 1/3. Choose another.'
    )
    with pytest.raises(InputError, match=r"--n5 was 5, now unset; and 3 more\. Stop"):
        check_same("It", {f"n{i}": i for i in range(9)}, {}, "Stop")


def test_a_folder_is_free_resumed_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def choose(out: str | None, now: dict[str, int], resume: bool = True) -> tuple[Path, bool]:
        return choose_folder(
            out,
            Path("runs") / "a",
            now,
            before=lambda folder: stored(folder / "asked.json"),
            finished=lambda folder: (folder / "model").exists(),
            early=("data.json",),
            resume=resume,
        )

    def make(name: str, **asked: int) -> Path:
        (folder := Path(name)).mkdir(parents=True)
        (folder / "asked.json").write_text(json.dumps(asked))
        return folder

    assert choose(None, {"n": 1}) == (Path("runs/a"), False)
    assert choose("x", {"n": 1}) == (Path("x"), False)
    make("x", n=1)
    assert choose("x", {"n": 1}) == (Path("x"), True)
    for now, resume, message in (({"n": 2}, True, "--n was 1, now 2"), ({"n": 1}, False, "--resume never")):
        with pytest.raises(InputError, match=message):
            choose("x", now, resume)
    (Path("x") / "model").mkdir()
    with pytest.raises(InputError, match="x is finished"):
        choose("x", {"n": 1})
    Path("early").mkdir()
    for name in (".lock", "data.json", "asked.json.7.partial"):
        (Path("early") / name).touch()
    assert choose("early", {"n": 1}) == (Path("early"), False)
    Path("early/thesis.txt").touch()
    for out in ("early", "early/thesis.txt"):
        with pytest.raises(InputError, match="holds other files"):
            choose(out, {"n": 1})

    make("runs/a", n=1)
    make("runs/a-2", n=2)
    assert choose(None, {"n": 1}) == (Path("runs/a"), True)
    assert choose(None, {"n": 3}) == choose(None, {"n": 1}, resume=False) == (Path("runs/a-3"), False)
    with locked_folder(Path("runs/a")):
        assert choose(None, {"n": 1}) == (Path("runs/a-3"), False)


def test_what_gpt3_did_not_write_is_replaced_only_with_overwrite(tmp_path: Path) -> None:
    model, kind = tmp_path / "model", ("config.json", "*.safetensors")
    model.mkdir()
    (model / "config.json").touch()
    check_out(tmp_path / "new", overwrite=False, kind=kind)
    check_out(model, kind, overwrite=False, kind=kind)
    with pytest.raises(InputError, match=r"\(config.json\)\. Name a new folder, or replace it with --overwrite"):
        check_out(model, overwrite=False, kind=kind)
    check_out(model, overwrite=True, kind=kind)
    (model / "thesis.txt").touch()
    with pytest.raises(InputError, match=r"\(thesis.txt\), which --overwrite does not replace"):
        check_out(model, overwrite=True, kind=kind)
    with pytest.raises(InputError, match="is a file"):
        check_out(model / "thesis.txt", overwrite=True, kind=kind)

    (page := tmp_path / "page.html").write_text("mine")
    for overwrite, fix in ((False, "replace this one with --overwrite"), (None, "remove this one")):
        with pytest.raises(InputError, match=f"gpt3 did not write it. Name a new file, or {fix}"):
            check_file("--html", page, b"ours", overwrite=overwrite)
    check_file("--html", page, b"ours", overwrite=True)
    with pytest.raises(InputError, match="is a folder"):
        check_file("--html", model, b"ours", overwrite=True)
    page.write_text("<ours>")
    check_file("--html", page, b"ours", overwrite=False)
    for name, fault in (("-", "is not standard output"), (str(page / "x" / "y"), "page.html is not a folder")):
        with pytest.raises(InputError, match=fault):  # before the work, which a fault at its end would lose
            check_file("--html", Path(name), b"ours", overwrite=True)


def test_one_process_at_a_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "work"
    code = f"import time; from pathlib import Path; from gpt3.work_folder import *\nwith locked_folder(Path({str(folder)!r})):"
    other = subprocess.Popen(
        [sys.executable, "-c", f"{code}\n    print(flush=True); time.sleep(99)"], env=os.environ, stdout=subprocess.PIPE
    )
    try:
        assert other.stdout is not None
        other.stdout.readline()
        assert is_locked(folder)
        with pytest.raises(InputError, match=r"is in use by another process\. Wait"), locked_folder(folder):
            pass
        assert folder.exists()
        threading.Timer(0.3, other.kill).start()
        with locked(folder / ".lock", "waiting for it", wait=True):  # the dead hold no lock
            pass
        assert capsys.readouterr().err == "waiting for it\n"
    finally:
        other.kill()
        other.wait()
    assert not is_locked(folder)
    (folder / "half.partial").touch()
    with locked_folder(folder):
        assert [path.name for path in folder.iterdir()] == [".lock"]
    assert folder.exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows removes no open file")
def test_a_folder_that_stays_empty_goes_away(tmp_path: Path) -> None:
    for name, files in (("empty", []), ("used", ["file"])):
        with locked_folder(tmp_path / name):
            for file in files:
                (tmp_path / name / file).touch()
        assert (tmp_path / name).exists() == bool(files)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be made"), locked_folder(tmp_path / "file" / "x"):
        pass
