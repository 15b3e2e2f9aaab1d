"""The own tests of programs that use mlx-spectro, with this package in its place.

python tests/dependants/run.py [PROGRAM ...] [--folder FOLDER] [--json]

Everything is installed and unpacked in a temporary folder, which is removed at the end. Exit codes:
0 when the same tests fail as known_failures.toml lists, and as many pass as it says, 1 when not, 2
for wrong usage and where something cannot be installed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
KNOWN = HERE / "known_failures.toml"
REQUIREMENTS = HERE / "requirements.txt"
#: Python runs this line in each process of the environment, also in those that tests start.
STAND_IN = "import torch_mlx_spectro; torch_mlx_spectro.as_mlx_spectro()\n"
#: A port that nothing listens on: downloads fail alike with a network and without one.
NO_PROXY = dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9")


class Misuse(Exception):
    """Names the argument that is wrong, or what cannot be installed."""


@dataclass(frozen=True)
class Failure:
    """Tests that are known to fail, by a pattern of their names, and the reason.

    ``sometimes``: on other machines they pass.
    """

    tests: str
    reason: str
    sometimes: bool = False


@dataclass(frozen=True)
class Program:
    """A program, its release, how many of its tests pass with mlx-spectro and with this package."""

    name: str
    version: str
    passed_by_mlx_spectro: int
    passed: int
    failures: tuple[Failure, ...] = ()


@dataclass
class Outcome:
    """Tests by what came of them."""

    passed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def read_known(path: Path) -> list[Program]:
    """Read the programs and their known failures.

    Raises:
        Misuse: the file cannot be read, or an entry lacks something.
    """
    # Python 3.10 has no tomllib; the package brings what it was made of.
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        listed = toml.loads(path.read_text())["program"]
        programs = []
        for entry in listed:
            failures = tuple(Failure(**each) for each in entry.pop("failure", []))
            programs.append(Program(**entry, failures=failures))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise Misuse(f"--known {path}: {error}") from error
    if not all(each.tests and each.reason.strip() for one in programs for each in one.failures):
        raise Misuse(f"--known {path}: each [[program.failure]] has tests and a reason")
    return programs


def read_outcome(report: Path) -> Outcome:
    """Read pytest's report in JUnit's format."""
    outcome = Outcome()
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        # A module that cannot be imported is a case without a class.
        name = "::".join(filter(None, (case.get("classname"), case.get("name"))))
        kinds = {child.tag for child in case}
        if kinds & {"failure", "error"}:
            outcome.failed.append(name)
        else:
            (outcome.skipped if "skipped" in kinds else outcome.passed).append(name)
    return outcome


def judge(program: Program, outcome: Outcome) -> list[str]:
    """List every reason why the outcome is not what is known."""
    problems = [
        f"{test}: failed, and is not listed"
        for test in outcome.failed
        if not any(fnmatchcase(test, known.tests) for known in program.failures)
    ]
    for known in (each for each in program.failures if not each.sometimes):
        if not any(fnmatchcase(test, known.tests) for test in outcome.failed):
            problems.append(f"{known.tests}: is listed, and no such test failed")
        problems += [
            f"{test}: is listed, and passed"
            for test in outcome.passed
            if fnmatchcase(test, known.tests)
        ]
    least = max(program.passed, program.passed_by_mlx_spectro)
    if len(outcome.passed) < least:
        problems.append(f"{len(outcome.passed)} passed; {least} have to")
    return problems


def call(*command: str | Path, cwd: Path, **variables: str) -> None:
    """Run an installation step.

    Raises:
        Misuse: it failed; with the end of what it printed.
    """
    ended = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if ended.returncode:
        step = " ".join(str(part) for part in command[1:])
        raise Misuse(f"{step}: exit code {ended.returncode}\n{ended.stdout[-3000:]}")


def install(folder: Path) -> Path:
    """Make an environment with this package, without torch, and return its Python."""
    environment = folder / "environment"
    call(sys.executable, "-m", "venv", environment, cwd=folder)
    python = environment / "bin" / "python"
    pip = (python, "-m", "pip", "install", "--quiet", *os.environ.get("PIP_ARGS", "").split())
    call(*pip, "--requirement", REQUIREMENTS, cwd=folder)
    call(*pip, "--no-deps", ROOT, cwd=folder)
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "mlx_spectro_stand_in.pth").write_text(STAND_IN)
    return python


def unpack(python: Path, program: Program, folder: Path) -> Path:
    """Download a program's source distribution, and return the folder that it unpacks to."""
    wanted = f"{program.name}=={program.version}"
    only = ("--no-deps", "--no-binary", program.name, "--dest", folder)
    call(python, "-m", "pip", "download", "--quiet", *only, wanted, cwd=folder)
    stem = f"{program.name.replace('-', '_')}-{program.version}"
    with tarfile.open(folder / f"{stem}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / stem


def run_tests(python: Path, source: Path, folder: Path, limit: int) -> Outcome:
    """Run a program's tests in its folder, without a network and with a home folder of its own.

    Raises:
        Misuse: pytest did not end well, or in time.
    """
    home, report = folder / "home", folder / f"{source.name}.xml"
    home.mkdir(exist_ok=True)
    options = ("-q", "--continue-on-collection-errors", "-p", "no:cacheprovider", "--tb=line")
    command = [python, "-m", "pytest", *options, f"--junitxml={report}", "tests"]
    variables = {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), **NO_PROXY}
    dropped = {"PYTHONPATH", "PYTEST_ADDOPTS", "no_proxy", "NO_PROXY"}
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    with open(folder / f"{source.name}.log", "w") as log:
        try:
            ended = subprocess.run(
                [str(part) for part in command],
                cwd=source,
                env=kept | variables | {"PYTHONPATH": str(source)},
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=limit,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Misuse(f"{source.name}: its tests took more than {limit} s") from None
    if ended.returncode not in (0, 1) or not report.exists():
        raise Misuse(f"{source.name}: pytest ended with {ended.returncode}; see {log.name}")
    return read_outcome(report)


@contextmanager
def working_folder(given: Path | None) -> Iterator[Path]:
    """Yield the folder to work in: a temporary one unless it is given."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="dependants-") as folder:
        yield Path(folder)


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Run the tests of the programs and return what came of them, in JSON's types."""
    programs = {each.name: each for each in read_known(options.known)}
    if unknown := [name for name in options.programs if name not in programs]:
        raise Misuse(f"PROGRAM: {unknown[0]} is none of {', '.join(programs)}")
    told: dict[str, Any] = {}
    with working_folder(options.folder) as folder:
        python = install(folder)
        for name in options.programs or programs:
            program = programs[name]
            outcome = run_tests(python, unpack(python, program, folder), folder, options.limit)
            told[name] = {
                "version": program.version,
                "passed": len(outcome.passed),
                "passed_by_mlx_spectro": program.passed_by_mlx_spectro,
                "failed": outcome.failed,
                "skipped": len(outcome.skipped),
                "problems": judge(program, outcome),
            }
    return told


def show(told: Mapping[str, Any]) -> None:
    """Print the counts and problems, with the line that says how many tests passed and failed."""
    for name, found in told.items():
        print(
            f"{name} {found['version']}: {found['passed']} passed "
            f"(with mlx-spectro {found['passed_by_mlx_spectro']}), {len(found['failed'])} failed "
            f"as listed or below, {found['skipped']} skipped"
        )
        for problem in found["problems"]:
            print(f"problem: {problem}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run and return the exit code."""
    parser = argparse.ArgumentParser(prog="run.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("programs", nargs="*", metavar="PROGRAM", help="default: all listed")
    parser.add_argument("--folder", type=Path, help="work there, and keep it")
    parser.add_argument("--known", type=Path, default=KNOWN, help="list of known failures")
    parser.add_argument("--limit", type=int, default=1800, help="seconds for a program's tests")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(argv)
    try:
        told = compare(options)
    except Misuse as misuse:
        print(f"run.py: error: {misuse}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(told))
    else:
        show(told)
    return 1 if any(found["problems"] for found in told.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
