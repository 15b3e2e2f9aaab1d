"""``doctor``: what is installed, what works, who computes what, and what to do about the rest."""

from __future__ import annotations

import argparse
import dataclasses
import faulthandler
import importlib
import json
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..backends import registry
from ..settings import RECOGNISED, autotune_settings, list_unread, mlx_settings
from ..terminal import STDOUT, write_file
from ..version import __version__

HELP = "whether all is well here, and what to do next"
DESCRIPTION = (
    "Tell whether all is well, and what to do next. A small stft, istft and gradient are computed"
    " by every backend that is here and compared with float64; versions, settings and files are"
    " looked through for known problems. --verbose shows these, and which backend would compute"
    " which calls. Exit code 0 when all is well; 1 when something is wrong:"
    " no backend is here that accelerates, one computes wrongly, a release is known to be bad, a"
    " setting is not one, or the check takes too long; 2 for wrong usage. Warnings and notes alone"
    " leave it at 0."
)

#: Seconds after which a self-check counts as hanging: it takes about one, compilations a few more.
HANGS_AFTER = 120
#: The same where every variant is compiled.
HANGS_AFTER_ALL = 3600


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--verbose",
        action="store_true",
        help="show everything that was looked at, and who computes which calls, too",
    )
    form.add_argument("--json", action="store_true", help="print one JSON object instead")
    form.add_argument(
        "--fix", action="store_true", help="print the commands that mend what was found; runs none"
    )
    form.add_argument(
        "--report",
        nargs="?",
        const=STDOUT,
        metavar="FILE.md",
        help="print, or write, Markdown for an issue, without paths and names of users",
    )
    parser.add_argument(
        "--pipelines",
        action="store_true",
        help="compile every variant of the kernels on the GPU, not a few; takes minutes",
    )
    parser.add_argument(
        "--write-kernels",
        type=Path,
        metavar="FOLDER",
        help="write the text of every variant of the Metal kernels there, and do nothing else",
    )
    parser.add_argument(
        "--no-self-check", action="store_true", help="compute nothing, should that end or hang"
    )


def command(options: argparse.Namespace) -> int:
    """Examine this installation, report the findings, and return 0 when all is well, else 1.

    Raises:
        Problem: the report cannot be written.
    """
    from . import show

    found = _examine_without_torch()
    if found is None:
        from . import pipelines

        if options.write_kernels is not None:
            print(f"written: {pipelines.write_kernels(options.write_kernels)} kernels")
            return 0
        with _end_if_it_hangs(HANGS_AFTER_ALL if options.pipelines else HANGS_AFTER):
            found = examine(self_check=not options.no_self_check, every_pipeline=options.pipelines)
    if options.json:
        print(json.dumps(found, indent=2))
    elif options.fix:
        show.print_commands(found, sys.stdout)
    elif options.report:
        write_file("report", options.report, show.write_markdown(found))
        if options.report != STDOUT:
            print(f"written: {options.report}")
    else:
        show.print_summary(found, sys.stdout)
        if "backends" in found and (options.verbose or options.pipelines):
            show.print_tables(found, sys.stdout)
    return 0 if found["ok"] else 1


def _examine_without_torch() -> dict[str, Any] | None:
    """Report what can be said where torch cannot be imported; None if it can."""
    from . import findings

    try:
        importlib.import_module("torch")
        return None
    except (ImportError, OSError) as error:  # OSError: a library that it loads
        finding = dataclasses.asdict(findings.explain_torch(str(error)))
    return {
        "versions": findings.list_versions(__version__),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "findings": [finding],
        "ok": False,
        "next": [finding["text"]],
    }


def examine(self_check: bool = True, every_pipeline: bool = False) -> dict[str, Any]:
    """Examine everything that ``doctor`` reports; return a JSON object. Raises nothing.

    Args:
        self_check: compute something by every backend, and compile what programs usually need.
        every_pipeline: compile all variants of the kernels.
    """
    import torch_mlx_spectro as tms

    from ..functional import names_left
    from ..native import private_state as torch_state
    from . import checks, findings, golden, pipelines, state

    backends = {
        name: {"available": backend.available, "reason": backend.reason}
        for name, backend in tms.available_backends().items()
    }
    checked = [
        dataclasses.asdict(checks.check(*pair))
        for pair in (checks.list_pairs() if self_check else ())
    ]
    present = registry.list_present_devices()
    found: dict[str, Any] = {
        "versions": findings.list_versions(__version__),
        "package": str(Path(__file__).parents[2]),
        "platform": platform.platform(),
        "system": platform.system(),
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "backends": backends,
        "devices": list(present),
        "absent": [name for name in registry.device_types() if name not in present],
        "absent_names": dict(torch_state.ABSENT),
        "variables": dict(RECOGNISED),
        "settings": _settings(),
        "processes": state.describe_process(),
        "unread": list_unread(),
        "left": list(names_left()),
        "mps_storage": state.examine_mps_storage(),
        "self_check": _select_mlx(checked, backends),
        "self_checks": checked,
        "bits": golden.compare() if self_check else [],
        "pipelines": pipelines.examine_pipelines(every_pipeline) if self_check else [],
        "matrix": checks.matrix(),
        "verdicts": state.read_verdicts(),
        "folders": state.measure_folders(),
    }
    gathered = findings.gather_findings(found)
    found["findings"] = [dataclasses.asdict(finding) for finding in gathered]
    found["ok"] = all(finding.level != "error" for finding in gathered)
    well = (f"All is well. {findings.NEXT}",) if found["ok"] else ()
    return found | {"next": [*(finding.text for finding in gathered), *well]}


def _select_mlx(checked: list[dict[str, Any]], backends: dict[str, Any]) -> dict[str, Any]:
    """Select the self-check of MLX on the CPU, which reports of earlier versions had alone."""
    why = "it was left out" if backends["mlx"]["available"] else "mlx is not available"
    none = {"ok": False, "error": f"not run: {why}", "max_error": {}}
    chosen = (check for check in checked if (check["backend"], check["device"]) == ("mlx", "cpu"))
    found = next(chosen, none)
    return {name: found[name] for name in none}


def _settings() -> dict[str, Any]:
    """Read what the environment asks for, and what is wrong with it."""
    from ..dispatch.choice import environment_settings

    values: dict[str, Any] = {}
    errors = []
    for read in (environment_settings, mlx_settings, autotune_settings):
        try:
            values |= {
                name: value if isinstance(value, (bool, int, type(None))) else str(value)
                for name, value in vars(read()).items()
            }
        except ValueError as error:
            errors.append(str(error))
    return {"values": values, "error": "; ".join(errors)}


@contextmanager
def _end_if_it_hangs(seconds: int) -> Iterator[None]:
    """End the process and print every thread's stack, if the block takes too long.

    A deadlock may hold Python's global lock; faulthandler's timer does not need it.
    """
    stream = sys.__stderr__
    if stream is not None:
        faulthandler.dump_traceback_later(seconds, exit=True, file=stream)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
