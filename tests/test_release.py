"""What is released: source package and wheel hold every file, and the wheel works where the source tree is not.

The two are made by setuptools as pip would make them, the wheel from the unpacked source package; nothing is downloaded.
"""

from __future__ import annotations

import email
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import pytest

import gpt3
from gpt3.errors import DISTRIBUTION

ROOT = Path(__file__).parents[1]
BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"
SOURCE = ["src", "tests", "docs", "examples", "benchmarks"]
SOURCE += [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "NOTICE",
    "MANIFEST.in",
    "constraints.txt",
    "pyproject.toml",
]
OUTSIDE = [
    "test_cli.py",
    "test_options.py",
    "tokenizer/test_gpt2_tokenizer.py",
    "corpus/test_wiki.py",
    "report/test_report.py",
]
"""Tests of package data and of the command line that the installed package passes."""


def copy(names: list[str], target: Path) -> None:
    """Files and folders of the source tree, without what was built or cached in it."""
    target.mkdir(exist_ok=True)
    for name in names:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copyfile(ROOT / name, target / name)


def build(kind: str, folder: Path, out: Path) -> Path:
    out.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", BUILD, kind, str(out)], cwd=folder, capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> tuple[Path, Path]:
    """The source package, and the wheel that is built from it."""
    pytest.importorskip("setuptools", minversion="77")
    folder = tmp_path_factory.mktemp("release")
    copy(SOURCE, folder / "tree")
    source = build("build_sdist", folder / "tree", folder / "dist")
    with tarfile.open(source) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    return source, build("build_wheel", unpacked, folder / "dist")


def files(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and ".egg-info" not in str(path)
    }


@pytest.mark.slow
def test_both_hold_every_file(packages):
    source, wheel = packages
    with tarfile.open(source) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    for folder in ("src", "tests", "docs", "examples"):
        assert {f"{folder}/{name}" for name in files(ROOT / folder)} <= packed
    with zipfile.ZipFile(wheel) as archive:
        assert {f"gpt3/{name}" for name in files(ROOT / "src/gpt3")} == {
            name for name in archive.namelist() if not name.split("/")[0].endswith(".dist-info")
        }
        (metadata,) = (name for name in archive.namelist() if name.endswith("METADATA"))
        head = email.message_from_bytes(archive.read(metadata))
    assert (head["Name"], head["Version"]) == (DISTRIBUTION, gpt3.__version__)


@pytest.mark.slow
def test_the_wheel_passes_tests_outside_the_source_tree(packages, tmp_path):
    with zipfile.ZipFile(packages[1]) as archive:
        archive.extractall(tmp_path / "site")
    copy(["tests", "docs", "examples", "README.md", "pyproject.toml"], tmp_path)
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    where = f"import gpt3, importlib.metadata as m; print(gpt3.__file__); print(m.version({DISTRIBUTION!r}))"
    done = subprocess.run([sys.executable, "-c", where], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.split() == [str(tmp_path / "site/gpt3/__init__.py"), gpt3.__version__]
    tests = [f"tests/{name}" for name in OUTSIDE]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        env=environment, capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]


def test_name_and_version_are_the_same_everywhere():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'\nname = "{DISTRIBUTION}"' in project
    assert set(re.findall(r'"([\w-]+)\[', project)) == {DISTRIBUTION}
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+) \((?:unreleased|\d{4}-\d\d-\d\d)\)$", changes, re.MULTILINE)[0] == gpt3.__version__
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    assert not [page.name for page in pages if re.search(r"\bgpt3\[", page.read_text(encoding="utf-8"))]


def test_data_files_are_named_in_pyproject():
    (line,) = re.findall(r"^gpt3 = (\[.*\])$", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    data = {name for name in files(ROOT / "src/gpt3") if not name.endswith(".py")}
    assert data
    assert data == {name for name in data if any(fnmatch(name, pattern) for pattern in json.loads(line))}
