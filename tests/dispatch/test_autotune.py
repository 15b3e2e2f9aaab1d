"""Races with a clock of our own: the slower backend is never used once there is a decision."""

from __future__ import annotations

import itertools
import threading
from functools import partial
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from hypothesis import strategies

from torch_mlx_spectro.calls.timer import HostTimer, Spent
from torch_mlx_spectro.dispatch.autotune import (
    ADVANTAGE,
    AGREEING,
    CHEAP,
    HOPELESS,
    LONG,
    MAX_AGE,
    MAX_ASKED,
    MAX_KINDS,
    MAX_TRIALS,
    MAX_WARM_UPS,
    ROUTES,
    RULE,
    STEADY_ADVANTAGE,
    TRIALS,
    Trials,
    read_stored_seconds,
)
from torch_mlx_spectro.dispatch.gradient_timer import GradientTimer
from torch_mlx_spectro.store.caches import Cache
from torch_mlx_spectro.store.verdicts import Store

MLX = ("mlx",)
BOTH = ("mps", "mlx")


class Clock:
    """A clock that calls advance by what they are said to take."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def race(
    trials: Trials,
    costs: dict[str, list[float]],
    calls: int,
    candidates: tuple[str, ...] = MLX,
    signature: str = "signature",
) -> list[str]:
    """Make calls as auto would, each taking the next cost of its backend; who computed them."""
    clock: Any = trials.clock
    chosen = []
    for _ in range(calls):
        name, timed = trials.pick(signature, candidates)
        chosen.append(name)
        cost = costs[name][min(chosen.count(name) - 1, len(costs[name]) - 1)]

        def call(seconds: float = cost) -> None:
            clock.now += seconds

        if timed:
            trials.time(signature, name, call)
    return chosen


def computed_by(
    costs: dict[str, list[float]], calls: int, candidates: tuple[str, ...] = MLX
) -> list[str]:
    return race(Trials(Clock()), costs, calls, candidates)


def test_native_goes_first_and_the_faster_one_keeps_the_signature() -> None:
    chosen = computed_by({"native": [0.1], "mlx": [0.9, 0.05]}, 20)
    assert chosen[: 2 * TRIALS] == ["native"] * TRIALS + ["mlx"] * TRIALS
    assert set(chosen[2 * TRIALS :]) == {"mlx"}


def test_the_slower_one_is_never_used_again() -> None:
    chosen = computed_by({"native": [0.1], "mlx": [0.12]}, 30)
    assert chosen.count("mlx") == TRIALS
    assert set(chosen[2 * TRIALS :]) == {"native"}


@pytest.mark.parametrize(
    ("native", "mlx", "winner"),
    [
        (0.1, 0.096, "native"),
        (0.1, 0.094, "mlx"),  # long calls vary less
        (1e-4, 0.94e-4, "native"),
        (1e-4, 0.89e-4, "mlx"),
    ],
)
def test_a_tie_is_natives(native: float, mlx: float, winner: str) -> None:
    assert computed_by({"native": [native], "mlx": [mlx]}, 60)[-1] == winner


@pytest.mark.parametrize(
    ("mps", "mlx", "winner"),
    [(0.05, 0.04, "mlx"), (0.05, 0.048, "mps"), (0.04, 0.05, "mps"), (0.098, 0.2, "native")],
)
def test_of_several_the_fastest_and_of_a_tie_the_first(mps: float, mlx: float, winner: str) -> None:
    chosen = computed_by({"native": [0.1], "mps": [mps], "mlx": [mlx]}, 30, BOTH)
    assert set(chosen[4 * TRIALS :]) == {winner}


@pytest.mark.parametrize("ours", [0.3, 0.003])
def test_a_slow_candidate_is_left_after_few_calls(ours: float) -> None:
    calls = computed_by({"native": [0.001], "mlx": [5.0, ours]}, 50)
    assert calls[-1] == "native"
    # The more often the cheaper.
    assert calls.count("mlx") == (TRIALS if 2 * ours > CHEAP else MAX_TRIALS)


@pytest.mark.parametrize("warming", list(itertools.product([0.0013, 0.005, 0.02], repeat=3)))
@pytest.mark.parametrize("compiling", [0.02, 1.5])
@pytest.mark.parametrize("native", [[1e-4], [0.3, 1e-4], [0.005, 0.003, 7.5e-5]])
def test_calls_that_still_warm_up_do_not_cost_a_small_call_the_faster_backend(
    native: list[float], compiling: float, warming: tuple[float, ...]
) -> None:
    """As seen on an H100's host: the call after the one that compiles took 1.3 to 20 ms."""
    for number in range(4):
        costs = {"native": native, "cuda": [compiling, *warming[:number], 1e-5]}
        assert computed_by(costs, 40, ("cuda",))[-1] == "cuda"


#: What the host took, in microseconds, for the first calls of a kind that were trained, there and
#: back, of a computer with nothing to compute; they end as the last one.
COLD_NATIVE = [9999, 584, 450, 328, 291, 247, 223, 219, 213, 209, 199, 189, 186, 182, 178]
COLD_OURS = [9999, 640, 430, 323, 248, 197, 171, 152, 143, 130, 127, 121, 118, 114, 112]


@pytest.mark.parametrize("is_ours_faster", [True, False])
def test_close_calls_are_timed_until_the_host_knows_them(is_ours_faster: bool) -> None:
    fast, slow = [1e-6 * took for took in COLD_OURS], [0.95e-6 * took for took in COLD_NATIVE]
    native, ours = (slow, fast) if is_ours_faster else (fast, [0.8 * took for took in slow])
    chosen = computed_by({"native": native, "cuda": ours}, 60, ("cuda",))
    assert set(chosen[2 * MAX_TRIALS :]) == {"cuda" if is_ours_faster else "native"}
    turns = [(name, len(list(calls))) for name, calls in itertools.groupby(chosen)]
    assert len(turns) <= 5  # in a row: an interpreter's caches forget what comes in turns


def test_nothing_is_dropped_on_one_timing() -> None:
    for native, ours in ((1e-4, [1.0, 0.02, 1e-5]), (0.6, [9.0, 9.0, 0.1])):
        assert computed_by({"native": [native], "mlx": ours}, 40)[-1] == "mlx"


def test_natives_first_call_makes_its_plan_and_does_not_count() -> None:
    trials = Trials(Clock())
    race(trials, {"native": [1e-9, 0.1], "mlx": [0.9, 0.05]}, 20)
    assert trials.pick("signature", MLX) == ("mlx", False)


def test_a_call_that_prepares_is_no_measurement() -> None:
    """However alike such calls are; and where each one prepares, what it takes is what it takes."""
    for preparing, winner in ((MAX_WARM_UPS, "mlx"), (100, "native")):
        clock, made = Clock(), Cache[int, int](1000)
        trials = Trials(clock)
        chosen: list[str] = []
        for _ in range(40):
            name, timed = trials.pick("signature", MLX)
            prepares = name == "mlx" and chosen.count(name) < preparing
            took = 0.003 if prepares else {"native": 0.001, "mlx": 0.0001}[name]
            chosen.append(name)

            def call(took: float = took, kept: int = len(chosen) * prepares) -> None:
                clock.now += took  # noqa: B023
                if kept:
                    made.put(kept, kept)  # noqa: B023

            if timed:
                trials.time("signature", name, call)
        assert chosen[-1] == winner
        assert chosen.count("native") >= TRIALS
        if winner == "native":
            assert chosen.count("mlx") == MAX_TRIALS


def test_what_a_backward_pass_prepares_is_no_measurement_either() -> None:
    class Preparing(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
            return tensor.clone()

        @staticmethod
        def backward(ctx: Any, *cotangents: torch.Tensor) -> torch.Tensor:
            kept.get("kernel", lambda: 1)
            return cotangents[0]

    kept = Cache[str, int](4)
    noted: list[Any] = []
    preparing: Any = Preparing.apply
    for _ in range(2):
        before = torch.ones(3, requires_grad=True).view(3)
        result = preparing(before)
        GradientTimer(Fixed(1.0), HostTimer(Clock(), lambda: None), noted.append).watch(
            result, before
        )
        result.sum().backward()
    assert [timing.prepared for timing in noted] == [True, False]
    there = Fixed(1.0)
    there.prepared = True
    assert GradientTimer(there, HostTimer(Clock(), lambda: None), noted.append).prepared


def test_times_that_an_earlier_rule_took_are_taken_again() -> None:
    store = Store(None, versions={})
    seconds = {"native": 0.1, "mlx": 0.5}
    store.put(ROUTES, "signature", {"winner": "native", "seconds": seconds, "measured": 1000})
    trials = Trials(Clock(), lambda: store, lambda: 1000.0)
    assert trials.pick("signature", MLX) == ("native", True)
    assert race(trials, {"native": [0.1], "mlx": [0.5, 0.01]}, 20)[-1] == "mlx"


def test_the_first_call_of_mlx_warms_up_and_does_not_count() -> None:
    assert computed_by({"native": [0.1], "mlx": [0.9, 0.01]}, 20)[-1] == "mlx"


def test_of_long_calls_fewer_are_timed() -> None:
    chosen = computed_by({"native": [LONG], "mlx": [LONG * 0.9, LONG / 2]}, 20)
    assert chosen[:4] == ["native", "native", "mlx", "mlx"]
    assert set(chosen[4:]) == {"mlx"}


def test_a_call_that_raises_leaves_no_time() -> None:
    trials = Trials(Clock())

    def broken() -> None:
        raise KeyError("broken")

    for _ in range(10):
        with pytest.raises(KeyError):
            trials.time("signature", "native", broken)
    assert trials.pick("signature", MLX) == ("native", True)


COSTS = strategies.lists(strategies.floats(1e-5, 10), min_size=1, max_size=2 * TRIALS)


@hypothesis.given(native=COSTS, mps=COSTS, mlx=COSTS, count=strategies.integers(0, 2))
@hypothesis.settings(max_examples=300)
def test_whatever_the_times_the_decision_is_bounded_final_and_the_fastest(
    native: list[float], mps: list[float], mlx: list[float], count: int
) -> None:
    candidates, costs = BOTH[:count], {"native": native, "mps": mps, "mlx": mlx}
    store = Store(None, versions={})
    trials = Trials(Clock(), lambda: store)
    most = MAX_TRIALS * (1 + count)
    chosen = race(trials, costs, most + 20, candidates)
    (winner,) = set(chosen[most:])
    found = trials._races.find("signature")
    assert found is not None
    seen: dict[str, float] = {}
    for name in ("native", *candidates):
        times = found._times[name]
        assert times.warm_ups == 1
        assert times.calls - 1 == len(times.counted)
        assert 2 <= times.calls <= MAX_TRIALS
        assert name == winner or chosen.count(name) == times.calls
        best, *others = sorted(times.counted)
        assert others or best >= LONG
        if len(times.counted) < MAX_TRIALS - 1 and sum(times.counted) < LONG:
            assert others[0] <= AGREEING * best
        seen[name] = best
    if winner != "native":
        assert seen[winner] < STEADY_ADVANTAGE * seen["native"] * (1 + 1e-9)
    for name in candidates:
        # Of two within a tenth of each other either may win.
        assert seen[winner] * ADVANTAGE <= seen[name] * (1 + 1e-9)
    # A later process decides the same, at once.
    later = Trials(Clock(), lambda: store)
    assert later.pick("signature", candidates) == (winner, False)


def test_an_outcome_is_kept_once_and_taken_up_by_the_next_process(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.json"
    puts: list[tuple[Any, ...]] = []

    def process() -> Trials:
        store = Store(path, versions={})
        put = store.put
        store.put = lambda *given: puts.append(given) or put(*given)  # type: ignore[func-returns-value, method-assign]
        return Trials(Clock(), lambda: store)

    costs = {"native": [0.1], "mlx": [0.5, 0.05], "mps": [0.01]}
    race(process(), costs, 30)
    assert [put[:2] for put in puts] == [(ROUTES, "signature")]
    assert puts[0][2]["winner"] == "mlx"
    assert puts[0][2]["seconds"] == pytest.approx({"mlx": 0.05, "native": 0.1})
    assert set(race(process(), costs, 30)) == {"mlx"}
    assert len(puts) == 1
    # A candidate that was not there is timed against the times of the others.
    chosen = race(process(), costs, 30, BOTH)
    assert chosen == ["mps"] * 30
    assert puts[1:] == [puts[1]]
    assert puts[1][2]["winner"] == "mps"
    assert set(puts[1][2]["seconds"]) == {"native", "mlx", "mps"}
    # One that is no longer there leaves the place to the next.
    assert set(race(process(), costs, 5, MLX)) == {"mlx"}
    assert set(race(process(), costs, 5, ())) == {"native"}
    assert len(puts) == 2


@pytest.mark.parametrize(
    "outcome",
    [
        None, 1, "mlx", [], {}, {"winner": "mlx"}, {"seconds": []}, {"seconds": {"mlx": 1.0}},
        {"seconds": {"native": "1"}}, {"seconds": {"native": -1.0}}, {"seconds": {"native": 0}},
        {"seconds": {"native": 1.0, "mlx": None}}, {"seconds": {"native": float("inf")}},
        {"seconds": {"native": True}}, {"seconds": {"native": 10**400}},
    ],
)  # fmt: skip
def test_an_outcome_that_makes_no_sense_is_measured_again(outcome: Any) -> None:
    if isinstance(outcome, dict):
        outcome |= {"measured": 1000, "rule": RULE}
    assert read_stored_seconds(outcome, 1000.0) == {}


def test_an_old_outcome_is_measured_again() -> None:
    seconds = {"native": 1, "mlx": 2.0}
    kept: dict[str, Any] = {"seconds": seconds, "measured": 1000, "rule": RULE}
    for age in (0.0, float(MAX_AGE)):
        assert read_stored_seconds(kept, 1000 + age) == {"native": 1.0, "mlx": 2.0}
    for now in (1001.0 + MAX_AGE, 999.0):  # from the future: of a clock that was set
        assert read_stored_seconds(kept, now) == {}
    for measured in (None, "1000", float("nan")):
        assert read_stored_seconds(kept | {"measured": measured}, 1000.0) == {}
    days = [1000.0]
    store = Store(None, versions={})
    for day, winner, cost in ((0, "mlx", 0.05), (1, "mlx", 9.0), (9, "native", 0.3)):
        days[0] = 1000.0 + day * 86_400
        trials = Trials(Clock(), lambda: store, lambda: days[0])
        assert race(trials, {"native": [0.1], "mlx": [cost]}, 10)[-1] == winner


def test_calls_in_two_candidate_lists_do_not_write_in_turns() -> None:
    """A candidate that can compute some calls of a signature only."""
    store = Store(None, versions={})
    puts = []
    put = store.put
    store.put = lambda *given: puts.append(given) or put(*given)  # type: ignore[func-returns-value, method-assign]
    trials = Trials(Clock(), lambda: store)
    for candidates in (BOTH, MLX, BOTH, MLX, BOTH):
        race(trials, {"native": [0.1], "mps": [0.01], "mlx": [0.05]}, 20, candidates)
    assert len(puts) == 1


def test_old_signatures_are_forgotten_when_there_are_too_many() -> None:
    trials = Trials(Clock())
    for signature in range(MAX_KINDS + 1):
        for _ in range(TRIALS):
            trials.time(signature, "native", lambda: None)
    assert trials.pick(0, MLX) == ("native", True)
    assert trials.pick(MAX_KINDS, MLX) == ("mlx", True)
    assert len(trials._races) == MAX_KINDS


def test_trials_of_many_threads_lose_no_time() -> None:
    trials = Trials(Clock())
    threads, calls = 8, 200
    barrier = threading.Barrier(threads)
    picked: list[str] = []

    def work() -> None:
        barrier.wait()
        for call in range(calls):
            name, timed = trials.pick(call % 5, MLX)
            if timed:
                trials.time(call % 5, name, lambda: None)
            picked.append(name)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(picked) == threads * calls
    # Calls that began before a decision may be timed beyond it, one of each other thread.
    for signature in list(trials._races._values):
        found = trials._races.find(signature)
        assert found is not None
        for name in ("native", "mlx"):
            assert MAX_TRIALS <= found._times[name].calls < MAX_TRIALS + threads  # all tie
    assert {trials.pick(signature, MLX) for signature in range(5)} == {("native", False)}


def test_locks_of_a_parent_do_not_stop_its_forked_child() -> None:
    trials = Trials(Clock())
    assert trials._lock.acquire(timeout=1)
    trials.after_fork_in_child()
    trials.time("signature", "native", lambda: None)
    trials.clear()
    assert trials.pick("signature", MLX) == ("native", True)


class Events:
    """A device's clock: the time is known once the device has finished."""

    prepared = False
    name = ""

    def __init__(self, took: float) -> None:
        self.took, self.finished, self.called = took, False, list[str]()

    def begin(self) -> None:
        self.called.append("begin")

    def end(self) -> None:
        self.called.append("end")

    def read(self) -> Spent | None:
        return Spent(self.took, self.took) if self.finished else None


@pytest.mark.parametrize(("ours", "winner"), [(0.5, "cuda"), (0.95, "native"), (1.5, "native")])
def test_a_devices_times_are_waited_for_by_nobody(ours: float, winner: str) -> None:
    trials = Trials(Clock())
    timers: list[Events] = []
    for _ in range(2 * TRIALS):
        name, timed = trials.pick("signature", ("cuda",))
        assert timed
        timer = Events(1.0 if name == "native" else ours)
        timers.append(timer)
        trials.time("signature", name, partial(timer.called.append, "call"), timer)
        assert timer.called == ["begin", "call", "end"]
    # All are under way and none is known: ours goes on, undecided.
    assert trials.pick("signature", ("cuda",)) == ("cuda", False)
    assert trials.is_running("signature")
    for timer in timers:
        timer.finished = True
    assert trials.pick("signature", ("cuda",)) == (winner, False)
    assert not trials.is_running("signature")


@pytest.mark.parametrize("late", [0, 1, 2, 7])
@pytest.mark.parametrize("warming", [[], [0.0013], [0.02, 0.0013], [0.005, 0.005, 0.005]])
def test_a_device_that_tells_late_and_warms_up_settles_on_the_faster(
    late: int, warming: list[float]
) -> None:
    """A program that waits for nothing is calls ahead of its device."""
    trials = Trials(Clock())
    costs = {"native": [0.3, 1e-4], "cuda": [1.5, *warming, 1e-5]}
    timers: list[Events] = []
    chosen: list[str] = []
    for _ in range(60):
        name, timed = trials.pick("signature", ("cuda",))
        if timed:
            number = len([one for one in timers if one.name == name])
            timer = Events(costs[name][min(number, len(costs[name]) - 1)])
            timer.name = name
            timers.append(timer)
            trials.time("signature", name, lambda: None, timer)
        for timer in timers[: len(timers) - late] if timed else timers:
            timer.finished = True
        chosen.append(name)
    assert set(chosen[-20:]) == {"cuda"}
    assert len(timers) <= 2 * MAX_TRIALS
    assert not trials.is_running("signature")


def test_close_calls_of_a_device_are_made_in_a_row_and_those_between_by_who_is_ahead() -> None:
    trials = Trials(Clock())
    timers: list[Events] = []
    chosen: list[tuple[str, bool]] = []
    for _ in range(60):
        name, timed = trials.pick("signature", ("cuda",))
        chosen.append((name, timed))
        if timed:
            timers.append(Events(1e-4 if name == "native" else 1.5e-4))
            trials.time("signature", name, lambda: None, timers[-1])
        elif len(chosen) % 5 == 0:
            for timer in timers:
                timer.finished = True
    turns = [(*turn, len(list(calls))) for turn, calls in itertools.groupby(chosen)]
    again = MAX_TRIALS - TRIALS
    assert [(name, calls) for name, timed, calls in turns if timed] == [
        *(("native", TRIALS), ("cuda", TRIALS), ("native", again), ("cuda", again))
    ]
    assert [name for name, timed, _ in turns if not timed] == ["cuda", "native"]


def test_a_devices_call_that_raises_leaves_no_time() -> None:
    trials = Trials(Clock())

    def broken() -> None:
        raise KeyError("broken")

    with pytest.raises(KeyError):
        trials.time("signature", "native", broken, Events(1.0))
    assert not trials.is_running("signature")


def test_the_hopeless_are_those_of_more_than_twice_natives_time() -> None:
    just = {"native": [0.1], "mlx": [0.1, 0.1 * HOPELESS * 0.99]}
    assert computed_by(just, 20).count("mlx") == TRIALS


class Fixed:
    """A timing that is known, or one that is not."""

    prepared = False

    def __init__(self, took: float | None) -> None:
        self.took = took

    def read(self) -> Spent | None:
        return None if self.took is None else Spent(self.took, self.took)


def both_ways(
    costs: dict[str, tuple[float, float]], calls: int, is_trained: bool = True
) -> list[str]:
    """Differentiated calls, as auto makes them: of each backend what it takes there, and back."""
    return both_ways_of(Trials(Clock()), costs, calls, is_trained)


def both_ways_of(
    trials: Trials,
    costs: dict[str, tuple[float, float]],
    calls: int,
    is_trained: bool = True,
    every: int = 1,
) -> list[str]:
    """As above; one of ``every`` so many calls is trained."""
    chosen = []
    for call in range(calls):
        name, timed = trials.pick_both_ways("call", "both", MLX)
        chosen.append(name)
        there, back = costs[name]
        if timed:
            trials.note("call", name, Fixed(there))
            if is_trained and call % every == 0:
                trials.note("both", name, Fixed(there + back))
    return chosen


def test_what_is_trained_is_won_by_the_fastest_there_and_back() -> None:
    slow_back = {"native": (0.2, 0.1), "mlx": (0.1, 0.9)}
    assert both_ways(slow_back, 20)[2 * TRIALS :] == ["native"] * (20 - 2 * TRIALS)
    fast_back = {"native": (0.2, 0.9), "mlx": (0.25, 0.1)}
    assert both_ways(fast_back, 20)[2 * TRIALS :] == ["mlx"] * (20 - 2 * TRIALS)


def test_what_nobody_takes_gradients_of_is_won_by_the_fastest_there() -> None:
    costs = {"native": (0.2, 0.1), "mlx": (0.1, 0.9)}
    chosen = both_ways(costs, 40, is_trained=False)
    decided = 2 * TRIALS + MAX_ASKED
    assert chosen[decided:] == ["mlx"] * (40 - decided)


@pytest.mark.parametrize("every", [2, 4, MAX_ASKED])
def test_what_is_trained_now_and_then_is_won_by_the_fastest_there_and_back(every: int) -> None:
    costs = {"native": (0.2, 0.1), "mlx": (0.1, 0.9)}
    chosen = both_ways_of(Trials(Clock()), costs, 100, every=every)
    decided = 2 * TRIALS * every
    assert set(chosen[decided:]) == {"native"}


def test_what_was_there_and_back_in_an_earlier_process_is_known() -> None:
    store = Store(None, versions={})
    for calls in (2 * TRIALS, 0):
        trials = Trials(Clock(), lambda: store)
        for _ in range(calls):
            name, _ = trials.pick_both_ways("call", "both", MLX)
            trials.note("call", name, Fixed(0.1 if name == "mlx" else 0.2))
            trials.note("both", name, Fixed(0.9 if name == "mlx" else 0.3))
        assert trials.pick_both_ways("call", "both", MLX) == ("native", False)
    assert set(store.sections()[ROUTES]) == {"call", "both"}


def test_nobody_waits_for_a_backward_pass_that_a_device_has_not_finished() -> None:
    trials = Trials(Clock())
    backs = []
    for _ in range(2 * TRIALS):
        name, timed = trials.pick_both_ways("call", "both", MLX)
        assert timed
        trials.note("call", name, Fixed(0.1 if name == "mlx" else 0.2))
        backs.append(Fixed(None))
        trials.note("both", name, backs[-1])
    assert trials.pick_both_ways("call", "both", MLX) == ("mlx", False)
    assert trials.is_running("both")
    for number, back in enumerate(backs):
        back.took = 0.3 if number < TRIALS else 0.9
    assert trials.pick_both_ways("call", "both", MLX) == ("native", False)
    assert not trials.is_running("both")


def test_the_first_backward_pass_is_timed_and_what_lies_around_it_is_not() -> None:
    clock = Clock()

    class Costly(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
            return tensor.clone()

        @staticmethod
        def backward(ctx: Any, *cotangents: torch.Tensor) -> torch.Tensor:
            clock.now += 2.0
            return cotangents[0]

    costly: Any = Costly.apply
    noted: list[Any] = []
    tensor = torch.ones(3, requires_grad=True)
    before = costly(tensor).view(3)
    result = costly(before)
    back = GradientTimer(Fixed(1.0), HostTimer(clock, lambda: None), noted.append)
    back.watch(result, before)
    for _ in range(2):
        costly(result).sum().backward(retain_graph=True)
    assert [timing.read() for timing in noted] == [(3.0, 3.0)]
    back = GradientTimer(Fixed(None), HostTimer(clock, lambda: None), noted.append)
    assert back.read() is None


def test_a_pass_that_does_not_come_to_the_tensor_is_not_timed() -> None:
    clock = Clock()
    noted: list[Any] = []
    tensor, other = (torch.ones(3, requires_grad=True) for _ in range(2))
    before = tensor.view(3)
    result = before * other
    GradientTimer(Fixed(1.0), HostTimer(clock, lambda: None), noted.append).watch(result, before)
    torch.autograd.grad(result.sum(), other, retain_graph=True)
    clock.now += 100.0
    result.sum().backward()
    assert [timing.read() for timing in noted] == [(1.0, 1.0)]
