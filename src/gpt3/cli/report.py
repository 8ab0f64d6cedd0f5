"""``gpt3 report``: which runs, and where the page goes. Nothing heavy is imported to list the options."""

from __future__ import annotations

import contextlib
import difflib
from dataclasses import dataclass
from pathlib import Path

from gpt3.errors import InputError
from gpt3.model_folder.locate import RUNS
from gpt3.options import Options, option
from gpt3.progress import say
from gpt3.report.run_folder import METRICS
from gpt3.work_folder import check_file

PAGE = "report.html"


@dataclass(frozen=True)
class ReportOptions(Options):
    """Draw one run, or compare several, in one HTML file that needs no network; or in a page that follows them."""

    runs: list[str] = option([])
    """Run folders, or names of runs in ./runs. Default: the newest run in ./runs."""
    out: str | None = option(None)
    """The HTML file, new or an earlier report. Default: report.html in the run folder; of several runs, report.html here."""
    overwrite: bool = option(False)
    """Replace a file at --out that is no earlier report."""
    live: bool = option(False)
    """Serve the page on this machine instead; it follows runs while they train, until Ctrl-C."""
    port: int = option(8001, least=0, most=65535)
    """The port of --live; 0: any free one."""

    def errors(self) -> list[str]:
        """Options that exclude each other."""
        return ["--live writes no file. Leave out --out, or --live"] if self.live and self.out else []


def run(options: ReportOptions) -> None:
    """Write the page and print where it is; or serve it until Ctrl-C.

    Raises:
        InputError: a name that is no run folder, an --out that is something else than an earlier page, or a port that is
            not available.
    """
    found = [find_run(name) for name in options.runs] or [find_run(None)]
    folders = list({folder.resolve(): folder for folder in found}.values())  # a run named twice is drawn once
    if options.live:
        serve_live(folders, options.port)
        return
    out = Path(options.out) if options.out else (folders[0] / PAGE if len(folders) == 1 else Path(PAGE))

    from gpt3.report.page import PAGE_MARK, write_report

    if out != folders[0] / PAGE:
        check_file("--out", out, PAGE_MARK, overwrite=options.overwrite)

    print(write_report(folders, out))


def serve_live(folders: list[Path], port: int) -> None:
    """Serve the page of these runs until Ctrl-C."""
    from gpt3.report.page import read_runs
    from gpt3.serving.host import address_of, listen
    from gpt3.serving.live_report import report_server

    read_runs(folders)  # errors are reported here, not in the browser
    with listen("127.0.0.1", port) as listening, contextlib.suppress(KeyboardInterrupt):
        say(f"gpt3 report: {address_of(listening)}/ follows {', '.join(map(str, folders))}; Ctrl-C ends it")
        report_server(folders, listening).serve_forever()


def find_run(name: str | None) -> Path:
    """The run folder that `name` means: a path, or a name in ./runs; None: the run there whose metrics were written last.

    Raises:
        InputError: there is none. (That a named one holds a run is checked where it is read.)
    """
    if name is None:
        newest = max(RUNS.glob(f"*/{METRICS}"), key=lambda path: path.stat().st_mtime_ns, default=None)
        if newest is None:
            raise InputError(f"no run is named and none is in ./{RUNS}; give a run folder, or make one with gpt3 train")
        return newest.parent
    places = [place for place in (Path(name).expanduser(), RUNS / name) if place.is_dir()]
    if places:  # a folder of texts may have the name of the run that was trained on them
        return next((place for place in places if (place / METRICS).is_file()), places[0])
    near = difflib.get_close_matches(name, sorted(path.parent.name for path in RUNS.glob(f"*/{METRICS}")), n=1)
    hint = f"did you mean {near[0]}?" if near else "runs are made by gpt3 train"
    raise InputError(f"{name}: no such run folder, nor a run of that name in ./{RUNS}; {hint}")
