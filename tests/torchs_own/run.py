"""PyTorch's own tests of stft and istft, natively and under the patch, test by test.

python tests/torchs_own/run.py PATH/test_spectral_ops.py [--backend mlx] [--single] [--json]

Exit codes: 0 when both runs agree but for the known differences, 1 when they do not, 2 for wrong
usage. This file is also what runs the tests, in a process for each side.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
import tempfile
import unittest
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

# The side that runs tests natively must not import the package: at the top there is only Python's.

KNOWN = Path(__file__).with_name("known_differences.toml")
#: First argument of the process that runs one side.
ONE_SIDE = "_one_side"
SINGLE = {"double": "float", "float64": "float32", "cdouble": "cfloat", "complex128": "complex64"}
#: Absolute. The tests' own are for double precision: torch itself fails some, by up to 1e-4.
SINGLE_TOLERANCE = 1e-3
SIDES = ("native", "patched")
NUMBERS = ("accelerated", "native", "launches")
NO_CALLS: dict[str, Any] = {"calls": {}, "fallbacks": {}, **dict.fromkeys(NUMBERS, 0)}
Write = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Outcome:
    """``detail`` is the first line of a failure's message, or the reason of a skip."""

    outcome: str
    detail: str = ""


@dataclass
class Side:
    """What one process reported: all tests that could be run, those chosen by ``-k``, outcomes."""

    candidates: list[str] = field(default_factory=list)
    chosen: list[str] = field(default_factory=list)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    stats: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: Why the process did not end well, or could not load the file.
    broken: str = ""

    @property
    def tests(self) -> dict[str, None]:
        """Chosen tests, and classes whose set-up failed or was skipped, in order."""
        return dict.fromkeys([*self.chosen, *self.outcomes])

    def of(self, test: str) -> Outcome:
        return self.outcomes.get(test, Outcome("not run"))


@dataclass(frozen=True)
class Known:
    """A difference that is accepted; ``single``: of the run in single precision."""

    test: str
    reason: str
    single: bool = False


class Misuse(Exception):
    """Names the argument that is wrong."""


def uses_transforms(name: str, code: CodeType | None) -> bool:
    """Whether a test has "stft" in its name or in one that its body uses; so has "istft"."""
    if code is None or "stft" in name:
        return "stft" in name
    nested = [part for part in code.co_consts if isinstance(part, CodeType)]
    return "stft" in " ".join(code.co_names) or any(uses_transforms("", part) for part in nested)


class InSingle(ast.NodeTransformer):
    """Puts functions that have to do with the transforms in single precision, and no others."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        if "stft" in ast.unparse(node):
            for part in ast.walk(node):
                if isinstance(part, ast.Attribute) and ast.unparse(part.value) == "torch":
                    part.attr = SINGLE.get(part.attr, part.attr)
        return node


def load(path: Path, single: bool) -> ModuleType:
    """Import the test file under its own name."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    sys.path.insert(0, str(path.parent))
    tree = ast.parse(path.read_bytes(), str(path))
    exec(compile(InSingle().visit(tree) if single else tree, str(path), "exec"), module.__dict__)
    return module


def tests_of(suite: unittest.TestSuite) -> Iterator[Any]:
    """The tests of stft and istft."""
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from tests_of(item)
            continue
        name = item._testMethodName
        function = inspect.unwrap(getattr(item, name))
        if uses_transforms(name, getattr(function, "__code__", None)):
            yield item


def id_of(test: Any) -> str:
    """``Class.test``; also of what stands for a class whose set-up failed."""
    own: str = test.id()
    return own.removeprefix(f"{type(test).__module__}.")


def first_line(error: BaseException) -> str:
    """A failure in one line, which is the same wherever its objects lie in memory."""
    text = (str(error).strip().splitlines() or [""])[0]
    return re.sub(r"0x[0-9a-fA-F]+", "0x...", f"{type(error).__name__}: {text}")


class Reporter(unittest.TestResult):
    """Writes a line when a test starts and one when it ends: a crash loses no earlier outcome."""

    def __init__(self, write: Write, tms: Any, machine: Any) -> None:
        super().__init__()
        self._write, self._tms, self._machine = write, tms, machine
        self._running, self._outcome = "", Outcome("passed")

    def startTest(self, test: Any) -> None:
        super().startTest(test)
        self._running, self._outcome = id_of(test), Outcome("passed")
        self._write({"started": self._running})
        if self._tms is not None:
            self._tms.reset_stats()

    def stopTest(self, test: Any) -> None:
        super().stopTest(test)
        stats = NO_CALLS | ({} if self._tms is None else self._tms.stats().as_dict())
        stats.pop("sites", None)  # of no use in sums
        if self._machine is not None:
            stats["launches"] = len(self._machine.launches)
            self._machine.launches.clear()
        self._write({"test": self._running, **asdict(self._outcome), "stats": stats})
        self._running = ""

    def _note(self, test: Any, outcome: str, detail: str) -> None:
        if not self._running:  # a class's set-up
            self._write({"test": id_of(test), "outcome": outcome, "detail": detail})
        elif self._outcome.outcome != "failed":  # the first failure counts
            self._outcome = Outcome(outcome, detail)

    def addError(self, test: Any, err: Any) -> None:
        super().addError(test, err)
        self._note(test, "failed", first_line(err[1]))

    addFailure = addError

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._note(test, "failed", first_line(err[1]))

    def addSkip(self, test: Any, reason: str) -> None:
        super().addSkip(test, reason)
        self._note(test, "skipped", reason)

    def addUnexpectedSuccess(self, test: Any) -> None:
        super().addUnexpectedSuccess(test)
        self._note(test, "failed", "passed unexpectedly")


def run_side(settings: dict[str, Any], write: Write) -> None:
    """Run the tests in this process; ``settings["backend"]`` is None for the native side."""
    # PyTorch's harness reads the arguments of the process, and makes tests for every device.
    sys.argv = [settings["path"]]
    os.environ["PYTORCH_TESTING_DEVICE_ONLY_FOR"] = "cpu"
    tms: Any = None
    machine: Any = None
    with contextlib.ExitStack() as stack:
        if settings["emulate_metal"] and settings["backend"] is not None:
            from torch_mlx_spectro import emulator

            machine = stack.enter_context(emulator.Machine().installed())
        if settings["backend"] is not None:
            import torch_mlx_spectro as tms

            stack.enter_context(tms.patch(backend=settings["backend"]))
        try:
            module = load(Path(settings["path"]), settings["single"])
            candidates = list(tests_of(unittest.defaultTestLoader.loadTestsFromModule(module)))
        except Exception as error:
            write({"broken": f"cannot be loaded: {first_line(error)}"})
            return
        chosen = [test for test in candidates if settings["k"] in id_of(test)]
        write({"candidates": [*map(id_of, candidates)], "chosen": [*map(id_of, chosen)]})
        for test in chosen if settings["single"] else ():
            # Where PyTorch's harness keeps the least tolerance of a test.
            test.precision = max(getattr(test, "precision", 0), SINGLE_TOLERANCE)
        unittest.TestSuite(chosen).run(Reporter(write, tms, machine))


def observe(options: argparse.Namespace, backend: str | None) -> Side:
    """Run one side in a process of its own."""
    import torch_mlx_spectro

    asked = vars(options) | {"path": options.path.resolve(), "backend": backend}
    env = {key: value for key, value in os.environ.items() if key != "TORCH_MLX_SPECTRO_BACKEND"}
    paths = [str(Path(torch_mlx_spectro.__file__).parents[1]), env.get("PYTHONPATH", "")]
    env["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report")
        report.touch()
        command = [sys.executable, __file__, ONE_SIDE, json.dumps(asked, default=str)]
        ended = subprocess.run(
            [*command, str(report)],
            env=env,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        lines = [json.loads(line) for line in report.read_text().splitlines()]
    last = (ended.stderr.strip().splitlines() or [""])[-1]
    return side_of(lines, f"exit code {ended.returncode}: {last}" if ended.returncode else "")


def side_of(lines: Sequence[dict[str, Any]], ended: str) -> Side:
    """Put a side's lines together; ``ended`` tells of a process that did not end well."""
    side, running = Side(), ""
    for line in lines:
        if "started" in line:
            running = line["started"]
        elif "test" in line:
            running = ""
            side.outcomes[line["test"]] = Outcome(line["outcome"], line["detail"])
            side.stats[line["test"]] = line.get("stats", NO_CALLS)
        else:
            vars(side).update(line)
    if running:
        side.outcomes[running] = Outcome("crashed", ended)
    elif ended:
        side.broken = side.broken or ended
    return side


def read_known(path: Path) -> list[Known]:
    """The differences that are accepted: tests, each once, with reasons."""
    # Python 3.10 has no tomllib; pytest brings what it was made of.
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        listed = toml.loads(path.read_text())
        known = [Known(**entry) for entry in listed.pop("difference", [])]
    except (OSError, TypeError, ValueError) as error:
        raise Misuse(f"--known {path}: {error}") from error
    twice = len({(entry.test, entry.single) for entry in known}) < len(known)
    if listed or twice or not all(entry.test and entry.reason.strip() for entry in known):
        raise Misuse(f"--known {path}: takes [[difference]], a test (once) and a reason in each")
    return known


def judge(native: Side, patched: Side, known: dict[str, str]) -> list[str]:
    """Every reason why the runs do not agree, or why the list of known differences is wrong."""
    problems = [f"the patched run: {patched.broken}"] if patched.broken else []
    for test in native.tests | patched.tests:
        differs = native.of(test) != patched.of(test)
        if differs and test not in known:
            problems.append(f"{test}: differs")
        elif test in known and not differs:
            problems.append(f"{test}: is a known difference, but does not differ")
    seen = {*native.candidates, *native.tests, *patched.tests}
    return problems + [f"{test}: a known difference, but no test" for test in {*known} - seen]


def summary(native: Side, patched: Side, known: dict[str, str]) -> dict[str, Any]:
    """The rows and sums of both sides, in JSON's types."""
    rows: list[dict[str, Any]] = []
    for test in native.tests | patched.tests:
        pair = {"native": asdict(native.of(test)), "patched": asdict(patched.of(test))}
        verdict = {"differs": pair["native"] != pair["patched"], "known": known.get(test)}
        calls = {"stats": patched.stats.get(test, NO_CALLS)}
        rows.append({"test": test} | pair | verdict | calls)
    stats = {key: sum(row["stats"][key] for row in rows) for key in NUMBERS}
    for key in ("calls", "fallbacks"):
        stats[key] = sum((Counter(row["stats"][key]) for row in rows), Counter())
    problems = judge(native, patched, known)
    return {
        "ok": not problems,
        "problems": problems,
        "outcomes": {side: Counter(row[side]["outcome"] for row in rows) for side in SIDES},
        "differing": sum(row["differs"] for row in rows),
        "stats": stats,
        "tests": rows,
    }


def show(told: dict[str, Any]) -> None:
    """Print what :func:`summary` tells as tables."""
    from torch_mlx_spectro.terminal import make_console, table

    console = make_console(sys.stdout)
    tests = table(("test", "native", "patched", ""), ("accelerated", "by torch"))
    for row in told["tests"]:
        sides = [" ".join(row[side].values()).strip() for side in SIDES]
        verdict = ("differs" if row["known"] is None else "known") if row["differs"] else "same"
        numbers = [str(row["stats"][key]) for key in ("accelerated", "native")]
        tests.add_row(row["test"], *sides, verdict, *numbers)
    console.print(tests)
    for side, outcomes in told["outcomes"].items():
        listed = ", ".join(f"{n} {outcome}" for outcome, n in sorted(outcomes.items()))
        console.print(f"{side}: {listed}")
    stats = told["stats"]
    counts = "{accelerated} accelerated, {native} by torch; Metal launches: {launches}"
    console.print(f"differing: {told['differing']}; patched calls: {counts.format(**stats)}")
    reasons = table(("why a call fell back to torch",), ("calls",))
    for reason, count in stats["fallbacks"].items():
        reasons.add_row(reason, str(count))
    console.print(reasons if stats["fallbacks"] else "No call fell back to torch.")
    for problem in told["problems"]:
        console.print(f"problem: {problem}")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="run.py", description=(__doc__ or "").splitlines()[0])
    made.add_argument("path", type=Path, metavar="PATH", help="PyTorch's test_spectral_ops.py")
    made.add_argument("--backend", default="mlx", choices=("mlx", "cpu", "auto", "native"))
    made.add_argument("--single", action="store_true", help="the tests in single precision")
    made.add_argument("--emulate-metal", action="store_true", help="Metal kernels on the CPU")
    made.add_argument("-k", default="", metavar="TEXT", help="only tests with TEXT in their names")
    made.add_argument("--known", type=Path, default=KNOWN, help="list of known differences")
    made.add_argument("--json", action="store_true", help="print JSON")
    return made


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Run both sides and compare them, unless these arguments are wrong."""
    if not options.path.is_file():
        raise Misuse(f"PATH: {options.path} is not a file")
    if options.emulate_metal:
        from torch_mlx_spectro import emulator

        reason = "only --backend mlx uses it" if options.backend != "mlx" else emulator.available()
        if reason is not None:
            raise Misuse(f"--emulate-metal: {reason}")
    listed = read_known(options.known)
    known = {entry.test: entry.reason for entry in listed if entry.single == options.single}
    native = observe(options, None)
    if native.broken:
        raise Misuse(f"PATH: {options.path} natively: {native.broken}")
    if not native.candidates:
        raise Misuse(f"PATH: {options.path} has no tests of stft or istft")
    if not native.chosen:
        raise Misuse(f"-k {options.k}: in the name of no test of stft or istft")
    patched = observe(options, options.backend)
    unchosen = set(native.candidates) - set(native.chosen)
    return summary(native, patched, {t: why for t, why in known.items() if t not in unchosen})


def main(argv: Sequence[str] | None = None) -> int:
    """Run and return the exit code."""
    options = parser().parse_args(argv)
    try:
        told = compare(options)
    except Misuse as misuse:
        if options.json:
            print(json.dumps({"ok": False, "error": str(misuse)}))
        print(f"run.py: error: {misuse}", file=sys.stderr)
        return 2
    print(json.dumps(told)) if options.json else show(told)
    return 0 if told["ok"] else 1


if __name__ == "__main__":
    if sys.argv[1:2] == [ONE_SIDE]:
        with open(sys.argv[3], "w", buffering=1) as report:
            run_side(json.loads(sys.argv[2]), lambda line: print(json.dumps(line), file=report))
        sys.exit()
    sys.exit(main())
