"""A pytest plugin: the session runs on an emulated Metal machine, and its failures are listed.

``run_peers.py`` loads it. The session fails, too, if fewer tests pass than have to, if a test was
skipped for lack of anything but torchaudio, or if MLX compiled no function that launches a kernel.
"""

from __future__ import annotations

import os
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import mlx.core as mx
import pytest

from torch_mlx_spectro import emulator
from torch_mlx_spectro.cli.pytest_plugin import Known, read_known

#: Not published for every release of torch; eight tests compare with it.
MAY_LACK = "torchaudio"


class Session:
    """The hooks of a session on a machine."""

    def __init__(self, machine: emulator.Machine, known: tuple[Known, ...], least: int) -> None:
        self._machine, self._known, self._least = machine, known, least
        self._outcomes: Counter[str] = Counter()
        self._problems: list[str] = []
        self._launches = 0

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for entry in self._known:
            fitting = [item for item in items if entry.fits(item.nodeid)]
            for item in fitting:
                item.add_marker(pytest.mark.xfail(reason=entry.reason, strict=True))
            if not fitting:
                self._problems.append(f"known failure {entry.test!r} fits no collected test")

    def pytest_runtest_setup(self) -> None:
        mx.random.seed(0)  # some tests draw without a seed

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            known = report.skipped and hasattr(report, "wasxfail")
            self._outcomes["known" if known else report.outcome] += 1
            if report.skipped and not known and MAY_LACK not in str(report.longrepr):
                self._problems.append(f"{report.nodeid} is skipped: {report.longrepr}")
        if report.when == "teardown":
            self._launches += len(self._machine.launches)
            self._machine.launches.clear()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._outcomes["passed"] < self._least:
            self._problems.append(f"fewer than {self._least} tests passed")
        if not any(one.kernels for one in self._machine.compiled_functions):
            self._problems.append("MLX compiled no function that launches a kernel")
        if self._problems and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("emulated Metal")
        functions = self._machine.compiled_functions
        compiled = [one for one in functions if one.kernels]
        outcomes = ", ".join(f"{n} {outcome}" for outcome, n in self._outcomes.items())
        lines = [
            f"tests: {outcomes}",
            f"{self._launches} launches of {self._machine.compilations} newly compiled texts",
            f"mx.compile: {len(compiled)} functions with {sum(one.kernels for one in compiled)}"
            f" kernels were compiled, {sum(not one.uncompiled for one in functions)} in all",
        ]
        reasons = Counter((one.name, one.uncompiled) for one in functions if one.uncompiled)
        lines += [f"uncompiled: {name}, {n} times: {why}" for (name, why), n in reasons.items()]
        for line in [*lines, *(f"ERROR {problem}" for problem in self._problems)]:
            terminalreporter.write_line(line)


def pytest_configure(config: pytest.Config) -> None:
    """Install the machine before the suite is imported."""
    machine = emulator.Machine(checked=os.environ["PEERS_CHECKED"] == "1")
    known = read_known(Path(os.environ["PEERS_KNOWN"]))
    with ExitStack() as stack:
        stack.enter_context(machine.installed())
        config.pluginmanager.register(Session(machine, known, int(os.environ["PEERS_LEAST"])))
        config.add_cleanup(stack.pop_all().close)
