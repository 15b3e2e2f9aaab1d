"""Runs: selections, verdicts, processes, and the package's own functions through all of quick."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from needs import needs_emulator
from small_calls import istft_case, stft_case

from stft_parity import (
    ASPECTS,
    VERDICTS,
    Candidate,
    Case,
    Difference,
    FellBack,
    Report,
    Result,
    Unsupported,
    run,
    select,
)
from stft_parity.cases.choices import VALUES
from stft_parity.cases.grid import quick
from torch_mlx_spectro import emulator
from torch_mlx_spectro.doctor import candidates as own
from torch_mlx_spectro.doctor.candidates import KNOWN_DIFFERENCES

SOME: list[Case] = list(quick()[::40])


@pytest.fixture(autouse=True)
def _single_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def assert_well(report: Report) -> None:
    shown = [(r.differences, r.case) for r in report.failures[:3]]
    assert report.ok, (report.counts(), report.problems, shown)


def assert_all_of_quick(report: Report) -> None:
    """Accelerated and natives, but for the dtypes on the list; every value of every argument."""
    assert_well(report)
    counts = report.counts()
    assert counts["pass"] >= 350
    assert counts["known"] <= 20
    assert sum(counts.values()) == len(quick()) == counts["pass"] + counts["known"]
    # Who was asked computed all that torch accepts and that is not on the list.
    routes = [r.route for r in report.results if r.accepted and r.verdict == "pass"]
    assert len(routes) > 200
    assert all(route.startswith("mlx: ") for route in routes)
    table = report.by_argument()
    for op in VALUES:
        for argument, values in VALUES[op].items():
            assert table[argument].keys() >= set(values)
    for gradient in ("input", "window", "both"):
        assert table["gradient"][gradient]["pass"] >= 20


def test_all_of_quick_in_mlx_blocks() -> None:
    report = run(candidate=own.make_strict("mlx"), known=KNOWN_DIFFERENCES)
    assert_all_of_quick(report)
    errors = [result.error for result in report.results if result.error is not None]
    # They are native's own, or twice as large where native is lucky.
    assert 0.5 < sorted(errors)[len(errors) // 2] < 2


@needs_emulator
def test_all_of_quick_in_emulated_kernels(metal_cache: Path) -> None:
    machine = emulator.Machine(checked=False, cache_dir=metal_cache)
    with machine.installed():
        report = run(candidate=own.make_strict("mlx"), known=KNOWN_DIFFERENCES)
    assert_all_of_quick(report)
    kernels = Counter(launch.kernel for launch in machine.launches)
    assert kernels["spectro_analysis"] > 100
    assert kernels["spectro_synthesis"] > 100


@pytest.mark.parametrize("name", ["quick", "models", "draws"])
def test_native_is_well(name: str) -> None:
    cases = select(name)
    assert_well(run(torch.stft, torch.istft, cases=cases[:: len(cases) // 20]))


def test_selections() -> None:
    assert select("quick") == quick()
    assert select(iter(SOME)) == tuple(SOME)
    drawn, everything = select("draws", 5), select("all", 5)
    assert set(everything) >= set(drawn) | set(select("models"))
    assert len(everything) == len(set(everything)) > len(drawn) + 20_000
    assert not set(drawn) <= set(select("draws", 6))
    with pytest.raises(ValueError, match="one of quick, grid, draws, models, all; got 'fast'"):
        select("fast")


def test_only_chosen_labels_are_run() -> None:
    report = run(torch.stft, torch.istft, select={"op": "istft", "n_fft": ["15", "31"]})
    assert {(r.case.op, r.case.label("n_fft")) for r in report.results} == {
        ("istft", "15"),
        ("istft", "31"),
    }
    assert report.selection == "quick op=istft n_fft=['15', '31']"


def refusing(signal: torch.Tensor, n_fft: int, *args: Any, **kwargs: Any) -> torch.Tensor:
    if n_fft == 1:
        raise Unsupported("n_fft=1")
    if n_fft == 2:
        raise FellBack("n_fft is two")
    if n_fft == 3:
        raise ArithmeticError("n_fft is three")
    result = torch.stft(signal, n_fft, *args, **kwargs)
    return result * 1.001 if n_fft == 4 else result


def sized(n_fft: int) -> Case:
    return stft_case(w=None, n_fft=str(n_fft))


def test_verdicts() -> None:
    cases = [*map(sized, (1, 2, 3, 4, 5)), istft_case(), stft_case(w=None, n_fft="0")]
    report = run(stft=refusing, cases=cases)
    assert [result.verdict for result in report.results] == [
        "unsupported",
        "fell back",
        "raised",
        "differs",
        "pass",
        "unsupported",
        "pass",
    ]
    assert [result.accepted for result in report.results] == [*6 * [True], False]
    unsupported, fell_back, raised, differs, *_, no_istft, _ = report.results
    assert (unsupported.reason, no_istft.reason) == ("n_fft=1", "there is no istft")
    assert (fell_back.reason, fell_back.differences[0].aspect) == ("n_fft is two", "route")
    assert "ArithmeticError" in raised.differences[0].actual
    assert differs.error is not None
    assert differs.error > 1000
    assert not report.ok
    assert len(report.failures) == 3
    assert report.counts() == {"pass": 2, "known": 0, "unsupported": 2, "differs": 1,
                               "raised": 1, "fell back": 1}  # fmt: skip
    assert report.aspects() == {"route": 1, "exception": 1, "values": 1}
    assert report.failing() == {
        "wrong values": 1,
        "raised": 1,
        "fell back": 1,
        "other conventions": 0,
    }


def test_a_fallback_that_a_hook_tells_of_is_no_pass() -> None:
    asked: list[str] = []

    def fallback() -> str:
        asked.append("asked")
        return "it was native" if len(asked) == 2 else ""

    candidate = Candidate(torch.stft, torch.istft, "native", lambda: "cpu", fallback)
    rejected = stft_case(n_fft="0")
    report = run(candidate=candidate, cases=[sized(4), rejected, sized(5)])
    assert [result.verdict for result in report.results] == ["pass", "pass", "fell back"]
    assert report.results[2].reason == "it was native"
    # What torch rejects nobody has computed.
    assert report.routes() == {"cpu": 2}
    assert len(asked) == 2


def test_tables_and_json() -> None:
    report = run(torch.stft, torch.istft, cases=SOME, seed=7)
    assert sum(report.by_argument()["op"]["stft"].values()) == sum(c.op == "stft" for c in SOME)
    told = json.loads(json.dumps(report.as_dict()))
    assert (told["seed"], told["ok"], told["reference"]) == (7, True, "torch")
    assert told["counts"]["pass"] == len(SOME) == len(told["results"])
    assert told["versions"]["torch"] == torch.__version__
    assert tuple(told["counts"]) == VERDICTS


def test_names_of_aspects_and_verdicts_are_checked() -> None:
    assert Difference(ASPECTS[0], "", "", "").aspect == "exception"
    with pytest.raises(ValueError, match="unknown aspect 'looks'"):
        Difference("looks", "", "", "")
    with pytest.raises(ValueError, match="unknown verdict 'fine'"):
        Result(SOME[0], "fine", True)


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    report = run(torch.stft, torch.istft, cases=quick()[:150],
                 progress=lambda done, total, results: told.append((done, total)))  # fmt: skip
    assert told == [(100, 150), (150, 150)]
    assert len(report.results) == 150


def test_processes_find_what_one_finds() -> None:
    alone = run(candidate="louder:LOUDER", cases=SOME)
    assert not alone.ok
    spawned = run(candidate="louder:LOUDER", cases=SOME, processes=2)
    assert [(r.case, r.verdict, r.differences) for r in spawned.results] == [
        (r.case, r.verdict, r.differences) for r in alone.results
    ]
    assert [r.case.labels for r in spawned.results] == [c.labels for c in SOME]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({}, "no candidate"),
        ({"stft": torch.stft, "candidate": "torch"}, "either a candidate or its functions"),
        ({"stft": torch.stft, "processes": 2}, "by its import path"),
        ({"candidate": "no_such_module"}, "no_such_module"),
        ({"candidate": "torch", "reference": "no_such_module"}, "no_such_module"),
        ({"candidate": "torch", "cases": "slow"}, "got 'slow'"),
    ],
)
def test_wrong_usage_is_told(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        run(**{"cases": SOME[:1], **given})


def test_another_reference() -> None:
    """What is right need not be torch."""
    report = run(stft=torch.stft, reference="louder:LOUDER", cases=[sized(5)])
    assert report.results[0].verdict == "differs"
