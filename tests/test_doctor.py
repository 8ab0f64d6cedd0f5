"""`gpt3 doctor`, and what it rests on: cores allowed, extras, install commands, caches."""

from __future__ import annotations

import importlib.metadata
import json
import shlex
import sys
from pathlib import Path

import pytest

from gpt3 import device
from gpt3.cli.main import main
from gpt3.durable import folder_bytes
from gpt3.errors import InputError, extras, install_command, require


def test_the_page_and_its_json(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("GPT3_CACHE", str(tmp_path))
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "tokens").write_bytes(bytes(2_000_000))
    assert main(["doctor"]) == 0
    page = capsys.readouterr().out
    assert str(tmp_path / "shards") in page
    assert "2.00 MB" in page
    rows = page.partition("\nextras:")[0]  # below are commands and folders to copy
    assert all(len(line) <= 80 or " " not in line[15:] for line in rows.splitlines())
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["versions"]["torch"] == importlib.metadata.version("torch")
    assert found["compute"]["dtype"] in ("fp32", "bf16", "fp16")
    assert all(flops > 1e6 for flops in found["compute"]["matrix_product_flops"].values())
    assert found["memory"]["disk_free"] <= found["memory"]["disk_total"]
    assert found["caches"][0] == {"owner": "gpt3", "folder": str(tmp_path / "shards"), "bytes": 2_000_000}


def test_clear_cache_removes_our_folders_only(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("GPT3_CACHE", str(tmp_path / "cache"))
    assert main(["doctor", "--clear-cache"]) == 0
    assert "nothing to remove" in capsys.readouterr().out
    (tmp_path / "cache" / "tasks").mkdir(parents=True)
    (tmp_path / "cache" / "tasks" / "a").write_text("four")
    (tmp_path / "other").mkdir()
    assert main(["doctor", "--clear-cache", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"folder": str(tmp_path / "cache" / "tasks"), "bytes": 4}]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["cache", "other"]


@pytest.mark.parametrize(
    ("group", "files", "cores"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b\n", {"a/cpu.max": "50000 100000", "a/b/cpu.max": "max 100000"}, 0.5),  # the one above is tighter
        ("0::/\n", {"cpu.max": "max 100000"}, None),
        ("0::/\n", {}, None),
        ("3:cpu,cpuacct:/x\n", {"cpu,cpuacct/x/cpu.cfs_quota_us": "200000", "cpu,cpuacct/x/cpu.cfs_period_us": "100000"}, 2),
        ("3:cpu,cpuacct:/x\n", {"cpu,cpuacct/x/cpu.cfs_quota_us": "-1", "cpu,cpuacct/x/cpu.cfs_period_us": "100000"}, None),
        ("4:memory:/x\n", {"memory/x/cpu.max": "1 1"}, None),
        ("nonsense", {}, None),
    ],
)  # fmt: skip
def test_cgroup_quota(tmp_path, group, files, cores):
    own, root = tmp_path / "cgroup", tmp_path / "fs"
    own.write_text(group)
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    assert device._cgroup_cores(root, own) == cores


@pytest.mark.parametrize(
    ("allowed", "cores"),
    [
        ({"affinity": 4, "cgroup": 2.5}, 2),
        ({"affinity": 1, "cgroup": None}, 1),
        ({"affinity": 8, "cgroup": 0.3}, 1),
    ],
)
def test_usable_cores_is_the_tighter_limit(monkeypatch, allowed, cores):
    monkeypatch.setattr(device, "allowed_cores", lambda: allowed)
    assert device.usable_cores() == cores


class Installed:
    """A distribution that says where it was installed from."""

    def __init__(self, origin: dict | None) -> None:
        self.origin = origin

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return None if self.origin is None else json.dumps(self.origin)


@pytest.mark.parametrize(
    ("origin", "last"),
    [
        ({"url": "file:///home/me/a%20clone", "dir_info": {"editable": True}}, ["-e", "/home/me/a clone[serve]"]),
        ({"url": "file:///home/me/gpt3", "dir_info": {}}, ["/home/me/gpt3[serve]"]),
        (
            {"url": "https://host/gpt3.git", "vcs_info": {"vcs": "git"}},
            ["gpt3-paper[serve] @ git+https://host/gpt3.git"],
        ),
        (None, ["gpt3-paper[serve]"]),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="paths of other systems")
def test_install_command_is_for_this_interpreter_and_this_project(monkeypatch, origin, last):
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Installed(origin))
    assert shlex.split(install_command("serve")) == [sys.executable, "-m", "pip", "install", *last]


def test_a_missing_extra_names_that_command():
    with pytest.raises(InputError, match=r"^drawing needs no_such_module; install it with: ") as caught:
        require("no_such_module", extra="data", purpose="drawing")
    assert str(caught.value).endswith(install_command("data"))


def test_extras_of_this_installation():
    found = extras()
    assert {"wandb", "serve", "finetune", "all"} <= set(found)
    assert found["export"] == []  # the tests need it
    for missing in found.values():
        for name in missing:
            with pytest.raises(importlib.metadata.PackageNotFoundError):
                importlib.metadata.distribution(name)


def test_an_extra_made_of_others_lacks_what_they_lack(monkeypatch):
    lines = ["no-such-a>=1; extra == 'one'", "pytest; extra == 'two'", "no-such-b; extra == 'all'"]
    lines += ["gpt3-paper[one,two]; extra == 'all'", "gpt3-paper[all, one]; extra == 'dev'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: lines)
    assert extras() == {
        "one": ["no-such-a"],
        "two": [],
        "all": ["no-such-b", "no-such-a"],
        "dev": ["no-such-b", "no-such-a"],
    }


def test_folder_bytes(tmp_path: Path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_bytes(bytes(10))
    (tmp_path / "d").write_bytes(bytes(5))
    assert folder_bytes(tmp_path) == 15
    assert folder_bytes(tmp_path / "nowhere") == 0
