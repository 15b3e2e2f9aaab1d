"""``parity``: compare an STFT with torch's, argument combination by argument combination."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

from .. import interrupts
from ..backends import registry
from ..terminal import lacks_folder, refuse

HELP = "compare an STFT with torch's, argument by argument"
DESCRIPTION = (
    "Compare the stft and istft of a candidate with torch's on many calls: exceptions, warnings,"
    " layout, values, gradients, memory. Without a candidate it is this package's own backend, of"
    " which a call that fell back to native torch counts as failed. Exit code 0 when nothing"
    " differs but what is known; 1 when values are wrong or calls fail; 3 when the values are right"
    " and conventions differ, such as strides or error texts; 4 when nothing was compared; 2 for"
    " wrong usage."
)
SELECTIONS = ("quick", "grid", "draws", "models", "all")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    first = parser.add_argument_group("an adapter to begin with")
    first.add_argument(
        "--new", type=Path, metavar="FILE.py", help="write one that works, to put an STFT into"
    )
    first.add_argument(
        "--arrays",
        choices=("numpy", "torch", "mlx"),
        help="what that STFT takes (default: numpy)",
    )
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
    which.add_argument(
        "--aspects",
        type=_split,
        metavar="A,B,...",
        help="compare only these, such as values,shape,dtype (default: all)",
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
    output = parser.add_argument_group("what is reported")
    output.add_argument(
        "--minimise", action="store_true", help="shrink a failing case of each kind"
    )
    output.add_argument("--json", action="store_true", help="print one JSON object, no table")
    output.add_argument("--junit", type=Path, metavar="FILE.xml", help="write JUnit XML")
    output.add_argument("--html", type=Path, metavar="FILE.html", help="write a page")


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def command(options: argparse.Namespace) -> int:
    """Run the comparison and report it; return the exit code of what it found.

    Raises:
        Problem: wrong usage, or what was asked for is not available.
    """
    if options.new:
        return _write_new(options.new, options.arrays or "numpy")
    _check(options)
    from . import parity_session as session  # imports torch

    interrupts.raise_again()
    return session.run(options, _find_backend(options))


def _write_new(path: Path, arrays: str) -> int:
    """Write an adapter to begin with, and say how to compare it."""
    from stft_parity.starting import write_adapter  # imports torch

    from ..errors import Problem

    try:
        compare = write_adapter(path, arrays, "torch-mlx-spectro parity --candidate")
    except (OSError, ValueError) as error:
        raise Problem(f"--new: {error}") from None
    print(f"{path} compares an STFT that is written out in it. Run it, then put yours in:\n")
    print(f"  {compare}")
    return 0


def _find_backend(options: argparse.Namespace) -> str | None:
    """Return the backend of this package that is the candidate; None if another one is named."""
    if options.candidate or options.stft or options.istft:
        return None
    return str(options.backend or _find_default(options.device))


def _find_default(device_type: str) -> str:
    """The backend that is compared where none is named: the last one for a device."""
    able = [one for one in registry.specs() if device_type in one.device_types]
    return min(able, key=lambda one: one.priority).name


def _check(options: argparse.Namespace) -> None:
    """Raise now for what would fail at the end of a long run."""
    own, emulates, several = _find_backend(options), options.emulate_metal, options.processes > 1
    single, by_default = options.stft or options.istft, _find_default(options.device)
    metal = [spec.name for spec in registry.specs() if spec.has_metal_kernels]
    refuse(
        (
            (options.candidate and single, "either --candidate, or --stft and --istft"),
            (options.arrays, "--arrays goes with --new"),
            (
                options.backend and not own,
                "--backend is this package's own: it goes without a candidate",
            ),
            (
                emulates and (own or by_default) not in metal,
                f"--emulate-metal is for {' and '.join(metal)}: others have no Metal kernels",
            ),
            (
                several and single,
                "--processes needs --candidate: other processes find it by its name",
            ),
            (
                several and emulates and not own,
                "--emulate-metal emulates in one process, unless it is for this package",
            ),
            (
                not registry.is_present(options.device),
                f"--device {options.device}: torch has no such device here",
            ),
            *(
                (lacks_folder(path), f"--{name} {path}: there is no such folder")
                for name, path in (("junit", options.junit), ("html", options.html))
            ),
            (
                options.html and importlib.util.find_spec("jinja2") is None,
                "--html needs jinja2: pip install jinja2",
            ),
        )
    )
