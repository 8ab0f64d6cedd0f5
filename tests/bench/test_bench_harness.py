"""The harness of all speed measurements: cases, workers, rounds, tables."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

import pytest

from gpt3.bench import harness
from gpt3.bench.harness import Case, System
from gpt3.cli.main import COMMANDS
from gpt3.errors import InputError, RunError
from gpt3.tables import markdown


def test_a_case_is_parsed_from_its_text() -> None:
    assert harness.parse_case("small:1x2048") == Case("125M", 1, 2048)
    assert str(harness.parse_case("17M:12x512")) == "17M:12x512"
    with pytest.raises(InputError, match=r"1,000 tokens and 100 generated ones exceed the 1,024 positions of 17M"):
        harness.parse_case("17M:1x1000", lambda case: 100 * case.batch)


def test_systems_alternate_and_are_reported(capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[str] = []

    def measure(case: Case, system: System) -> int:
        calls.append(system.name)
        return len(calls)

    case, systems = Case("demo", 1, 8), [System("gpt3", "int8"), System("llama.cpp", "int8")]
    found = harness.alternate(
        [case], systems, 2, measure, describe=lambda number: f"call {number}", after_round=lambda: calls.append("-")
    )
    assert calls == ["gpt3", "llama.cpp", "-"] * 2
    assert found == {(case, systems[0]): [1, 4], (case, systems[1]): [2, 5]}
    assert "demo:1x8, round 2 of 2: llama.cpp q8_0, call 5" in capsys.readouterr().err


def test_rates_are_of_the_median_and_of_the_slowest_and_fastest_round() -> None:
    assert harness.spread([[1.0, 1.0, 9.0], [2.0, 2.0, 2.0], [1.0, 1.0, 1.0]]) == (1.0, 1.0, 2.0)
    rates = harness.rates(32, [[1.0, 1.0, 9.0], [2.0, 2.0, 2.0], [1.0, 1.0, 1.0]])
    assert rates == {"tokens_per_s": 32, "slowest": 16, "fastest": 32}
    assert harness.rate_cell(rates, 0) == "32 (16-32)"


def test_sequences_have_their_beginning_in_common() -> None:
    assert harness.common_prefix([1, 2, 3], [1, 5, 3]) == 1
    assert harness.common_prefix([1, 2], [1, 2, 3]) == 2


def test_a_worker_answers_in_a_process_of_its_own(tmp_path: Path) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text(
        "import json, os, sys\nrequest = json.loads(sys.stdin.readline())\nprint('noise')\n"
        "if request['fail'] == 'input':\n"
        "    from gpt3.errors import InputError\n    raise InputError('--device cuda is not available')\n"
        "sys.exit('first\\nsecond') if request['fail'] else None\n"
        "print(json.dumps([os.getpid(), os.environ.get('OMP_NUM_THREADS')]))\n"
    )
    process, threads = harness.call(str(worker), {"fail": False}, "the worker", threads=3)
    assert threads == "3"
    assert process != os.getpid()
    with pytest.raises(RunError, match=r"the worker failed: first \| second"):
        harness.call(str(worker), {"fail": True}, "the worker")
    with pytest.raises(InputError, match=r"^--device cuda is not available$"):  # a user's mistake stays one
        harness.call(str(worker), {"fail": "input"}, "the worker")


def test_the_machine_s_speed_is_measured() -> None:
    found = harness.measure_machine({"device": "cpu", "dtypes": ["fp32"], "threads": 1, "memory": False})
    assert (found["device"], found["threads"], found["device_name"]) == ("cpu", 1, None)
    assert found["gemm_flops"]["fp32"] > 0
    assert found["auto"] in ("fp32", "bf16")


def test_a_ratio_is_to_the_fastest_of_the_systems_in_the_same_case() -> None:
    speeds = {"gpt3": 6.0, "transformers": 2.0, "transformers-static": 4.0}
    results = [{"case": "demo:1x8", "weights": "fp32", "who": who, "tokens_per_s": s} for who, s in speeds.items()]
    results.append(results[0] | {"case": "demo:2x8", "tokens_per_s": 12.0})
    assert harness.times(results[0], results, "transformers") == "1.50"
    assert harness.times(results[3], results, "transformers") == ""
    assert harness.times(results[3], results, "gpt3", case="demo:1x8") == "2.00"
    assert harness.times(results[0], results, "transformers", weights="int8") == ""


def test_markdown_has_one_cell_per_heading() -> None:
    assert markdown(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
    assert harness.gigabytes(1_500_000_000) == "1.50 GB"


def test_the_commands_of_the_page_have_these_options() -> None:
    text = (Path(__file__).parents[2] / "docs" / "speed.md").read_text(encoding="utf-8")
    commands = re.findall(r"^gpt3 (bench \w+)(.*)$", text, re.MULTILINE)
    assert len(commands) >= 9
    for name, rest in commands:
        fields = {field.name for field in dataclasses.fields(COMMANDS[name].load()[0])}
        assert {flag.replace("-", "_") for flag in re.findall(r"--([a-z-]+)", rest)} <= fields
