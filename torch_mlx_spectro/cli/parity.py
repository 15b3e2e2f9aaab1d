"""``parity``: compare an STFT with torch's, argument combination by argument combination."""

from __future__ import annotations

import argparse
import functools
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import interrupts
from ..backends import registry
from ..errors import Problem
from ..terminal import make_console, write_file

if TYPE_CHECKING:
    from stft_parity import Candidate, Case, Report, Result

HELP = "compare an STFT with torch's, argument by argument"
DESCRIPTION = (
    "Compare the stft and istft of a candidate with torch's on many calls: exceptions, warnings,"
    " layout, values, gradients, memory. Without a candidate it is this package's own backend, of"
    " which a call that fell back to native torch counts as failed. Exit code 0 when nothing"
    " differs but what is known, 1 otherwise, 2 for wrong usage."
)
SELECTIONS = ("quick", "grid", "draws", "models", "all")

#: Failing cases that ``--minimise`` shrinks: one of each kind, the most frequent kinds first.
MINIMISED = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    what = parser.add_argument_group("what is compared")
    what.add_argument(
        "--candidate",
        metavar="MODULE:NAME",
        help="a module or an object with stft and istft, a function that returns one, or one of"
        " both functions",
    )
    for op in ("stft", "istft"):
        what.add_argument(f"--{op}", metavar="MODULE:NAME", help=f"a function like torch.{op}")
    what.add_argument(
        "--reference", default="torch", metavar="MODULE:NAME", help="what is right (default: torch)"
    )
    what.add_argument(
        "--device", choices=registry.device_types(), default="cpu", help="where the tensors are"
    )
    what.add_argument(
        "--backend",
        choices=registry.names(),
        help="this package's own, without a candidate (default mlx, on a CUDA device cuda)",
    )
    what.add_argument(
        "--emulate-metal", action="store_true", help="run Metal kernels on the CPU, emulated"
    )
    which = parser.add_argument_group("which calls")
    which.add_argument("--cases", choices=SELECTIONS, default="quick", help="default: %(default)s")
    which.add_argument("--seed", type=int, default=0, metavar="N", help="of the drawn calls")
    which.add_argument(
        "--select",
        action="append",
        default=[],
        metavar="ARGUMENT=VALUE",
        help="only calls with this value; may be repeated",
    )
    which.add_argument("--no-gradients", action="store_true", help="do not compare gradients")
    which.add_argument(
        "--known", type=Path, metavar="FILE.toml", help="differences that are accepted, strictly"
    )
    which.add_argument(
        "--processes",
        type=_positive,
        default=1,
        metavar="N",
        help="how many (default: %(default)s)",
    )
    told = parser.add_argument_group("what is reported")
    told.add_argument("--minimise", action="store_true", help="shrink a failing case of each kind")
    told.add_argument("--json", action="store_true", help="print one JSON object, no table")
    told.add_argument("--junit", type=Path, metavar="FILE.xml", help="write JUnit XML")
    told.add_argument("--html", type=Path, metavar="FILE.html", help="write a page")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def command(options: argparse.Namespace) -> int:
    """Run the comparison and report it; return 0 when nothing differs but what is known, else 1.

    Raises:
        Problem: wrong usage, or what was asked for is not here.
    """
    _check(options)
    from stft_parity import Judge, Misstated
    from stft_parity.known import read

    from ..doctor.candidates import KNOWN

    interrupts.raise_again()
    known = options.known
    if known is None and not _has_candidate(options) and options.backend != registry.NATIVE:
        known = KNOWN
    try:
        entries = read(known if known is not None else ())
    except Misstated as error:
        raise Problem(f"--known: {error}") from None
    except OSError as error:
        raise Problem(f"--known {known}: {error.strerror}") from None
    with _machine(options):
        candidate = _candidate(options)
        report = _run(options, candidate, entries)
        smaller: dict[Case, Result] = {}
        if options.minimise and report.failures:
            judge = functools.partial(
                Judge,
                candidate,
                options.reference,
                device=options.device,
                gradients=not options.no_gradients,
                known=entries,
            )
            # Of what is tried it does not matter why it fails.
            smaller = _minimised(report, judge(diagnosed=0), judge())
    _tell(options, report, smaller)
    return 0 if report.ok else 1


def _has_candidate(options: argparse.Namespace) -> bool:
    return bool(options.candidate or options.stft or options.istft)


def _own(options: argparse.Namespace) -> str:
    """The backend of this package that is the candidate, where there is no other."""
    return str(options.backend or registry.list_candidates(options.device)[-1])


def _check(options: argparse.Namespace) -> None:
    """Say now what would go wrong at the end of a long run."""
    import torch

    if options.candidate and (options.stft or options.istft):
        raise Problem("either --candidate, or --stft and --istft")
    if options.backend and _has_candidate(options):
        raise Problem("--backend is this package's own: it goes without a candidate")
    metal = [spec.name for spec in registry.specs() if spec.has_metal_kernels]
    if options.emulate_metal and _own(options) not in metal:
        raise Problem(f"--emulate-metal is for {' and '.join(metal)}: others have no Metal kernels")
    if options.processes > 1 and (options.stft or options.istft):
        raise Problem("--processes needs --candidate: other processes find it by its name")
    if options.processes > 1 and options.emulate_metal and _has_candidate(options):
        raise Problem("--emulate-metal emulates in one process, unless it is for this package")
    available = options.device == "cpu" or getattr(torch, options.device).is_available()
    if not available:
        raise Problem(f"--device {options.device}: torch has no such device here")
    for name in ("junit", "html"):
        path: Path | None = getattr(options, name)
        if path is not None and not path.resolve().parent.is_dir():
            raise Problem(f"--{name} {path}: there is no such folder")
    missing = [name for name in ("jinja2", "matplotlib") if importlib.util.find_spec(name) is None]
    if options.html and missing:
        raise Problem(
            f"--html needs {' and '.join(missing)}: pip install 'torch-mlx-spectro[plot]'"
        )


@contextmanager
def _emulated() -> Iterator[None]:
    from .. import emulator

    reason = emulator.available()
    if reason is not None:
        raise Problem(f"--emulate-metal: {reason}", 1)
    with emulator.Machine().installed():
        yield


def _machine(options: argparse.Namespace) -> AbstractContextManager[None]:
    """The machine that this process computes on."""
    return _emulated() if options.emulate_metal else nullcontext()


def _candidate(options: argparse.Namespace) -> Candidate:
    """The candidate in this process.

    Raises:
        Problem: there is none of that name, or its backend is not here.
    """
    from stft_parity import Candidate, load

    if not _has_candidate(options):
        from .. import available_backends
        from ..doctor.candidates import strictly

        backend = _own(options)
        found = available_backends()[backend]
        if not found.available:
            raise Problem(f"{backend} is not available: {found.reason}", 1)
        return strictly(backend)
    # As `python -m` does: a candidate is mostly a file in the folder where one is.
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        if options.candidate:
            return load(options.candidate)
        return Candidate(
            _function(options.stft) if options.stft else None,
            _function(options.istft) if options.istft else None,
            " and ".join(filter(None, (options.stft, options.istft))),
        )
    except ValueError as error:
        raise Problem(str(error)) from None


def _function(path: str) -> Callable[..., Any]:
    """The function that an import path names, whatever it is called."""
    import importlib

    module, _, name = path.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in filter(None, name.split(".")):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"no function at {path!r}: {error}") from error
    if not callable(found):
        raise ValueError(f"{path!r} is no function; write it as package.module:function")
    function: Callable[..., Any] = found
    return function


def _selected(given: Sequence[str]) -> dict[str, list[str]]:
    chosen: dict[str, list[str]] = {}
    for text in given:
        argument, equals, value = text.partition("=")
        if not equals:
            raise Problem(f"--select {text}: write it as argument=value")
        chosen.setdefault(argument, []).append(value)
    return chosen


def _run(options: argparse.Namespace, candidate: Candidate, entries: Any) -> Report:
    """The comparison, with a bar that shows how far it is.

    Raises:
        Problem: there is nothing to compare, or no such reference.
    """
    import stft_parity as parity

    from ..doctor.candidates import progress

    chosen = _selected(options.select)
    given: Candidate | str = candidate
    if options.processes > 1:
        own = _own(options)
        if options.emulate_metal:
            own = f"emulated_{own}"
        given = options.candidate or f"torch_mlx_spectro.doctor.candidates:{own}"
    try:
        with progress() as show:
            report = parity.run(
                candidate=given,
                reference=options.reference,
                device=options.device,
                cases=options.cases,
                seed=options.seed,
                known=entries,
                gradients=not options.no_gradients,
                processes=options.processes,
                progress=show,
                select=chosen,
            )
    except ValueError as error:  # of the reference: the rest has been looked at
        raise Problem(str(error)) from None
    if not report.results:
        raise Problem(f"no case of {options.cases!r} has {' and '.join(options.select)}")
    return report


def _minimised(
    report: Report, trying: Callable[[Case], Result], judge: Callable[[Case], Result]
) -> dict[Case, Result]:
    """The first case of each group of failing ones -> the smallest that fails alike."""
    from stft_parity import minimise
    from stft_parity.report import tables

    firsts = [group.results[0] for group in tables.groups(report)[:MINIMISED]]
    return {first.case: judge(minimise(first, trying).case) for first in firsts}


def _tell(options: argparse.Namespace, report: Report, smaller: Mapping[Case, Result]) -> None:
    """Write what was asked for, and print the report."""
    from stft_parity.report.machine import to_json

    if options.junit:
        from stft_parity.report.junit import to_junit

        write_file("junit", options.junit, to_junit(report, smaller=smaller).encode())
    if options.html:
        from stft_parity.report.html import to_html

        write_file("html", options.html, to_html(report, smaller=smaller).encode())
    if options.json:
        print(to_json(report, smaller=smaller))
        return
    from stft_parity.report.summary import print_summary

    print_summary(report, make_console(sys.stdout), smaller=smaller)
