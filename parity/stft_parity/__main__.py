"""``stft-parity``, also ``python -m stft_parity``: compare an STFT with torch's from a terminal."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from rich.console import Console

from stft_parity.candidates import Candidate, load
from stft_parity.known import read
from stft_parity.report import junit, machine, summary
from stft_parity.results import ASPECTS, Report, Result
from stft_parity.running import SELECTIONS, Progress, read_choices, run
from stft_parity.starting import TEMPLATES, write_adapter

#: Columns of lines that go to a file: they are not folded.
_UNFOLDED = 10_000
#: Seconds within which no log is told how far a run is.
_SHORT = 10.0


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "stft-parity",
        description="Compare the stft and istft of a candidate with torch's, on many calls, in"
        " every respect. Exit code 0 when nothing differs but what is known, 1 when values are"
        " wrong or calls raise, 3 when only conventions differ, 4 when no ordinary call was"
        " compared, 2 for wrong usage.",
    )
    add = parser.add_argument
    add(
        "candidate",
        nargs="?",
        metavar="MODULE[:NAME]",
        help="a module or an object with stft and istft, a function that returns one, or one of"
        " both functions",
    )
    add("--new", type=Path, metavar="FILE.py", help="write an adapter that works, to begin with")
    add("--arrays", choices=TEMPLATES, help="with --new: what your STFT takes (default: numpy)")
    add("--reference", default="torch", metavar="MODULE:NAME", help="what is right, if not torch's")
    add("--device", default="cpu", help="where the tensors are (default: %(default)s)")
    add("--cases", choices=SELECTIONS, default="quick", help="default: %(default)s")
    add("--seed", type=int, default=0, metavar="N", help="of the drawn calls")
    add(
        "--select",
        action="append",
        default=[],
        metavar="ARGUMENT=VALUE",
        help="only calls with this value; may be repeated",
    )
    add(
        "--aspects",
        type=lambda text: text.split(","),
        default=ASPECTS,
        metavar="NAME,NAME",
        help="compare only these, values,shape,dtype for example",
    )
    add("--no-gradients", action="store_true", help="do not compare gradients")
    add("--known", type=Path, metavar="FILE.toml", help="accepted differences, strictly")
    add("--processes", type=int, default=1, metavar="N", help="how many (default: %(default)s)")
    add("--json", action="store_true", help="print one JSON object, no table")
    add("--junit", type=Path, metavar="FILE.xml", help="write JUnit XML")
    add("--html", type=Path, metavar="FILE.html", help="write a page")
    return parser


def _check(options: argparse.Namespace) -> None:
    """Raise now for what would fail at the end of a long run.

    Raises:
        ValueError: wrong usage.
    """
    if options.arrays and not options.new:
        raise ValueError("--arrays goes with --new")
    if not (options.candidate or options.new):
        raise ValueError("name a candidate, or begin with --new my_parity.py")
    for name, path in (("junit", options.junit), ("html", options.html)):
        if path and not path.resolve().parent.is_dir():
            raise ValueError(f"--{name} {path}: there is no such folder")
    read_choices(options.select)
    if options.processes < 1:
        raise ValueError(f"--processes {options.processes}: at least 1")
    if options.html and importlib.util.find_spec("jinja2") is None:
        raise ValueError("--html needs jinja2: pip install jinja2")


def _compare(options: argparse.Namespace) -> Report:
    """Run the comparison.

    Raises:
        ValueError, OSError: there is no such candidate, reference or list, or nothing to compare.
    """
    found: Candidate = load(options.candidate)
    report = run(
        # Other processes find it by its name.
        candidate=options.candidate if options.processes > 1 else found,
        reference=options.reference,
        device=options.device,
        cases=options.cases,
        seed=options.seed,
        known=read(options.known or ()),
        gradients=not options.no_gradients,
        processes=options.processes,
        progress=_make_progress(),
        select=read_choices(options.select),
        aspects=options.aspects,
    )
    if not report.results:
        raise ValueError(f"no case of {options.cases!r} has {' and '.join(options.select)}")
    return report


def _make_progress() -> Progress:
    """Make what says on stderr how far the comparison is: a line that moves, or some ten in a log.

    A log of a run that is over within seconds has none.
    """
    begun, told, in_terminal = time.monotonic(), 0, sys.stderr.isatty()

    def show(done: int, total: int, results: Sequence[Result]) -> None:
        nonlocal told
        past = time.monotonic() - begun
        times = (timedelta(seconds=round(s)) for s in (past, past * (total - done) / done))
        line = "comparing {}/{} in {}, {} left".format(done, total, *times)
        if in_terminal:
            print(f"\r{line}", end="\n" if done == total else "", file=sys.stderr, flush=True)
        elif past > _SHORT and 10 * (done - told) >= total:
            told = done
            print(line, file=sys.stderr, flush=True)

    return show


def _report(options: argparse.Namespace, report: Report) -> None:
    """Write the reports that were asked for, and print one."""
    if options.junit:
        options.junit.write_text(junit.to_junit(report), encoding="utf-8")
    if options.html:
        from stft_parity.report.html import to_html  # needs jinja2, which comes with an extra

        options.html.write_text(to_html(report), encoding="utf-8")
    if options.json:
        print(machine.to_json(report))
        return
    width = None if sys.stdout.isatty() else _UNFOLDED
    summary.print_summary(report, Console(width=width, highlight=False, markup=False, emoji=False))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _build_parser().parse_args(argv)
    # As `python -m` does: a candidate is usually a file in the current folder.
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        _check(options)
        if options.new:
            print(
                f"{options.new} compares an STFT that is written out in it. Run it, then put yours"
            )
            print(f"in: {write_adapter(options.new, options.arrays or 'numpy')}")
            return 0
        report = _compare(options)
        _report(options, report)
    except (ValueError, OSError) as error:
        print(f"stft-parity: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stft-parity: interrupted", file=sys.stderr)
        return 130
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
