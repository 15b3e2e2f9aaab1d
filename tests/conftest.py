"""Hypothesis profiles, and the count of drawn calls that the run reports."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import metal
import pytest
import torch

import torch_mlx_spectro as tms
from stft_parity.cases import Case
from torch_mlx_spectro.dispatch.plans import plans
from torch_mlx_spectro.store import verdicts

#: Calls drawn by each of the two parity tests, by profile (``--hypothesis-profile``): ``ci`` is
#: the default and draws the same calls on every run, ``full`` draws new ones.
DRAWS = {"quick": 100, "ci": 3_000, "full": 25_000}

for _name, _draws in DRAWS.items():
    hypothesis.settings.register_profile(
        _name,
        max_examples=_draws,
        deadline=None,  # tests assert no wall time
        derandomize=_name != "full",
        database=None,
        print_blob=False,  # a case prints its own reproducer
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
hypothesis.settings.load_profile("ci")


class Tally:
    """Which drawn calls were compared, and what native did with them."""

    def __init__(self) -> None:
        self._seen: dict[str, set[Case]] = {"stft": set(), "istft": set()}
        self._outcomes: Counter[str] = Counter()

    def add(self, case: Case, accepted: bool) -> None:
        """Note a compared call; drawn again, it does not count again."""
        if case not in self._seen[case.op]:
            self._seen[case.op].add(case)
            self._outcomes["accepted" if accepted else "rejected"] += 1

    def distinct(self, op: str) -> int:
        return len(self._seen[op])

    @property
    def expected(self) -> int:
        """How many distinct calls of each function the profile is to compare: 2,500 in ``ci``."""
        # By name: of a profile that an import has loaded behind our back there are no numbers.
        return DRAWS[hypothesis.settings.get_current_profile_name()] * 5 // 6

    def summary(self) -> str:
        counts = ", ".join(f"{len(cases)} of {op}" for op, cases in self._seen.items())
        outcomes = ", ".join(f"{n} {what}" for what, n in sorted(self._outcomes.items()))
        return f"{sum(map(len, self._seen.values()))} drawn calls compared ({counts}; {outcomes})"


@pytest.fixture(scope="session", autouse=True)
def _verdicts_of_this_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What processes of tests measure is neither the user's nor another session's."""
    with pytest.MonkeyPatch.context() as patch:
        path = tmp_path_factory.mktemp("verdicts") / "verdicts.json"
        patch.setenv("SPEC_MLX_AUTOTUNE_CACHE_PATH", str(path))
        yield


@pytest.fixture
def strict_mlx() -> Iterator[None]:
    with tms.patch(backend="mlx", strict=True):
        yield


@pytest.fixture(scope="session")
def metal_cache(pytestconfig: pytest.Config) -> Path:
    """Where the Metal emulator keeps what it compiled, from one run to the next."""
    assert pytestconfig.cache is not None
    # A folder that the machine makes itself, for this user: not a container's with another.
    return pytestconfig.cache.mkdir("metal") / (str(os.getuid()) if hasattr(os, "getuid") else "")


_TALLY = pytest.StashKey[Tally]()


@pytest.fixture(scope="session")
def tally(pytestconfig: pytest.Config) -> Tally:
    return pytestconfig.stash.setdefault(_TALLY, Tally())


#: What the processes of pytest-xdist have compared.
_OF_WORKERS = pytest.StashKey[list[str]]()


def pytest_configure() -> None:
    """Let processes of pytest-xdist share the cores, and with them the processes that they start.

    Threads of torch spin while they wait for one that has no core: beside other programs on two
    cores, 208 tests took 23 CPU seconds with two threads, and 14 with one. Tests of threads say how
    many they want.
    """
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if processes > 1 and "OMP_NUM_THREADS" not in os.environ:
        threads = max(1, (os.cpu_count() or 1) // processes)
        os.environ["OMP_NUM_THREADS"] = str(threads)
        torch.set_num_threads(threads)


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["launches"] = dict(metal.LAUNCHES)
        if _TALLY in session.config.stash:
            output["compared"] = session.config.stash[_TALLY].summary()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    output = getattr(node, "workeroutput", {})
    metal.LAUNCHES.update(output.get("launches", {}))
    if "compared" in output:
        node.config.stash.setdefault(_OF_WORKERS, []).append(output["compared"])


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    compared = config.stash.get(_OF_WORKERS, [])
    if _TALLY in config.stash:
        compared = [*compared, config.stash[_TALLY].summary()]
    for summary in compared:
        terminalreporter.write_line(f"torch parity: {summary}")
    if metal.LAUNCHES:
        counts = ", ".join(f"{n} of {name}" for name, n in sorted(metal.LAUNCHES.items()))
        terminalreporter.write_line(f"launches in the Metal emulator: {counts}")


@pytest.fixture(autouse=True)
def _unpatched() -> Iterator[None]:
    """Every test begins and ends with torch's own functions, counters at zero, no verdicts."""
    originals = (torch.stft, torch.istft)
    assert not tms.is_patched(), "an earlier test left torch patched"
    tms.reset_stats()
    verdicts._process["store"] = verdicts.Store(None)
    plans.clear()  # what a test replaces, others have not decided on
    yield
    left = tms.is_patched()
    tms.unpatch()
    assert not left, "this test left torch patched"
    assert (torch.stft, torch.istft) == originals, "this test left other functions in torch"
