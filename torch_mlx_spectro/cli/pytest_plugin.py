"""Runs somebody else's test suite under ``patch()`` and reports what was accelerated.

pytest loads :mod:`torch_mlx_spectro_pytest`, beside this package; that module calls :func:`begin`
when ``--torch-mlx-spectro`` is given. The list of known differences is TOML:

    [[known]]
    test = "tests/test_audio.py::test_mel*"    # a node id; * and ? stand for any characters
    reason = "asserts on bits, which differ by rounding"

It is strict: a listed test that passes counts as failed, and an entry that fits no collected test
fails the session.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from .. import settings as environment
from ..backends import registry
from ..dispatch.choice import environment_settings, is_patched
from ..functional import stats
from ..patching import patch

#: Not ``auto``, which would choose native torch for the small tensors of tests.
DEFAULT_BACKEND = "mlx"
_TOTALS = ("accelerated", "native", "verified", "mismatches")
_FALLBACK = "fallback: "
_NAME = "torch_mlx_spectro_session"
#: The key under which the numbers of a pytest-xdist worker reach the process that started it.
_OUTPUT = "torch_mlx_spectro"


@dataclass(frozen=True)
class Known:
    """One entry of the list: which tests fail, and why."""

    test: str
    reason: str

    def fits(self, node_id: str) -> bool:
        # The brackets of a parametrised test stand for themselves.
        return fnmatchcase(node_id, self.test.replace("[", "[[]"))


def read_known(path: Path) -> tuple[Known, ...]:
    """Read the entries of a list.

    Raises:
        pytest.UsageError: there is no such file, or it is not such a list.
    """
    # Python 3.10 has no tomllib. There pytest depends on tomli, which has the same functions.
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        table = toml.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # toml's own and unicode's errors are ValueErrors
        raise pytest.UsageError(f"{path}: {error}") from None
    entries = table.pop("known", [])
    if table or not isinstance(entries, list):
        raise pytest.UsageError(f"{path}: only [[known]] is known here")
    known = tuple(_entry(given, f"{path}, entry {n}") for n, given in enumerate(entries, 1))
    (repeated, times), *_ = Counter(entry.test for entry in known).most_common(1) or [("", 0)]
    if times > 1:
        raise pytest.UsageError(f"{path}: {repeated!r} is listed {times} times")
    return known


def _entry(given: Any, source: str) -> Known:
    if not isinstance(given, Mapping) or given.keys() != {"test", "reason"}:
        raise pytest.UsageError(f"{source}: has to have test and reason, and nothing else")
    if not all(isinstance(value, str) and value.strip() for value in given.values()):
        raise pytest.UsageError(f"{source}: test and reason have to be texts that say something")
    return Known(given["test"], given["reason"].strip())


def begin(config: pytest.Config, options: argparse.Namespace) -> None:
    """Patch until the session's configuration ends.

    Raises:
        pytest.UsageError: the options contradict each other or the environment.
    """
    path = options.torch_mlx_spectro_known
    known = read_known(Path(path)) if path is not None else ()
    with ExitStack() as stack:
        words = _accelerate(options, stack)
        config.add_cleanup(stack.pop_all().close)
    config.pluginmanager.register(Session(words, known), _NAME)


def _accelerate(options: argparse.Namespace, stack: ExitStack) -> str:
    """Apply the patch that the options ask for until the stack ends; return its description."""
    emulated, strict = options.torch_mlx_spectro_emulate_metal, options.torch_mlx_spectro_strict
    try:
        backend = registry.check_name(
            options.torch_mlx_spectro_backend or DEFAULT_BACKEND, "--torch-mlx-spectro-backend"
        )
        every = options.torch_mlx_spectro_verify
        if every is not None:
            environment.check_verify(every, "--torch-mlx-spectro-verify")
        environment_settings()  # raises for variables that concern the program's own patch()
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None
    if emulated:
        if backend != DEFAULT_BACKEND:
            raise pytest.UsageError("--torch-mlx-spectro-emulate-metal needs the backend mlx")
        from .. import emulator

        if missing := emulator.available():
            raise pytest.UsageError(f"--torch-mlx-spectro-emulate-metal: {missing}")
        stack.enter_context(emulator.Machine().installed())
    stack.enter_context(patch(backend, strict=strict, verify=every))
    words = (
        f"backend {backend}",
        "Metal kernels emulated" if emulated else "",
        "strict" if strict else "",
        f"every call in {every} verified" if every else "",
    )
    return ", ".join(filter(None, words))


class Session:
    """The hooks of a session under the patch.

    Args:
        words: the description of the patch.
        known: tests that are expected to fail.
    """

    def __init__(self, words: str, known: tuple[Known, ...]) -> None:
        self._words, self._known = words, known
        self._before = _numbers()
        self._total: Counter[str] = Counter()
        self._unmatched: list[str] = []

    def pytest_report_header(self) -> str:
        return f"torch_mlx_spectro: {self._words}"

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Mark the known tests, before -k and -m deselect any."""
        for entry in self._known:
            fitting = [item for item in items if entry.fits(item.nodeid)]
            for item in fitting:
                mark = pytest.mark.xfail(reason=f"known: {entry.reason}", strict=True)
                item.add_marker(mark, append=False)
            if not fitting:
                self._unmatched.append(entry.test)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Collect the numbers, of this process or of its workers, and check the list."""
        self._total += _numbers() - self._before
        self._total["unpatched"] += not is_patched()
        output = getattr(session.config, "workeroutput", None)
        if output is not None:
            output[_OUTPUT] = {"numbers": dict(self._total), "unmatched": self._unmatched}
        elif self._unmatched and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Collect the numbers of a pytest-xdist worker that ended; a crashed one leaves none."""
        counts = getattr(node, "workeroutput", {}).get(_OUTPUT)
        if counts is None:
            self._total["silent workers"] += 1
            return
        self._total += Counter(counts["numbers"])
        self._unmatched = counts["unmatched"]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        total = self._total
        by_number = sorted(total.items(), key=lambda item: (-item[1], item[0]))
        fallbacks = [(name, n) for name, n in by_number if name.startswith(_FALLBACK)]
        verified = f"{total['verified']} verified, {total['mismatches']} of them wrong"
        silent = f"{total['silent workers']} workers ended without telling their numbers"
        lines = (
            f"{total['accelerated']} calls accelerated, {total['native']} native",
            total["verified"] and verified,
            *(f"{number} fell back: {name.removeprefix(_FALLBACK)}" for name, number in fallbacks),
            not total["accelerated"]
            and "NOTHING WAS ACCELERATED: these tests say nothing about torch_mlx_spectro",
            total["unpatched"] and "a test has called unpatch(): torch was native from then on",
            total["silent workers"] and silent,
            *(
                f"ERROR known difference {test!r} fits no collected test"
                for test in self._unmatched
            ),
        )
        terminalreporter.section("torch_mlx_spectro")
        for line in filter(None, lines):
            terminalreporter.write_line(str(line))


def _numbers() -> Counter[str]:
    """Return the counters of this process, under one name each."""
    now = stats()
    totals = {name: getattr(now, name) for name in _TOTALS}
    return Counter({f"{_FALLBACK}{reason}": n for reason, n in now.fallbacks.items()} | totals)
