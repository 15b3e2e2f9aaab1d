"""Turns, batches and summaries, by a clock of our own."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest

from torch_mlx_spectro.bench import measuring
from torch_mlx_spectro.bench.measuring import (
    Clock,
    Side,
    choose_batch,
    compute_ratios,
    summarise,
    take_turns,
)


class Machine:
    """A clock that calls move on, once the device has been waited for."""

    def __init__(self) -> None:
        self.time, self.queued = 0.0, 0.0
        self.log: list[str] = []

    def clock(self, sample_seconds: float = 1e-3) -> Clock:
        return Clock(lambda: self.time, self.synchronize, sample_seconds)

    def synchronize(self) -> None:
        self.time, self.queued = self.time + self.queued, 0.0

    def side(self, name: str, seconds: float) -> Side:
        @contextmanager
        def context():
            self.log.append(f"+{name}")
            yield
            self.log.append(f"-{name}")

        def call(number: int) -> int:
            self.queued += seconds
            self.log.append(name)
            return number

        return Side(name, context, call)


def test_samples_are_device_time_of_one_call():
    machine = Machine()
    sides = [machine.side("a", 0.010), machine.side("b", 0.004)]
    taken = take_turns(sides, machine.clock(), samples=3, batch=5, seconds=100)
    assert taken == {"a": pytest.approx([0.010] * 3), "b": pytest.approx([0.004] * 3)}


def test_sides_take_turns_whose_order_alternates_each_in_its_context():
    machine = Machine()
    sides = [machine.side("a", 0.1), machine.side("b", 0.1)]
    take_turns(sides, machine.clock(), samples=2, batch=1, seconds=100)
    a, b = (["+a", "a", "a", "-a"], ["+b", "b", "b", "-b"])
    assert machine.log == [*a, *b, *b, *a]


def test_drift_hits_both_sides_alike():
    machine = Machine()
    slowing = [1.0]

    def side(name, seconds):
        plain = machine.side(name, 0.0)

        def call(number):
            slowing[0] *= 1.01
            machine.queued += seconds * slowing[0]

        return Side(name, plain.context, call)

    taken = take_turns([side("a", 2.0), side("b", 1.0)], machine.clock(), 20, 1, 1e9)
    assert taken["a"][-1] > 1.5 * taken["a"][0]
    (relative,) = compute_ratios([taken["a"]], [taken["b"]])
    assert summarise(relative)["median"] == pytest.approx(2.0, rel=0.03)


def test_time_that_is_over_ends_a_pass_but_not_before_the_least_samples():
    machine = Machine()
    taken = take_turns([machine.side("a", 1.0)], machine.clock(), 20, 1, seconds=5)
    assert len(taken["a"]) == 3  # of two calls each
    taken = take_turns([machine.side("a", 1.0)], machine.clock(), 20, 1, seconds=0)
    assert len(taken["a"]) == measuring.LEAST_SAMPLES


@pytest.mark.parametrize(
    ("seconds", "batch"), [(1e-4, 10), (0.5, 1), (1e-9, measuring.MAX_BATCH), (3e-4, 4)]
)
def test_short_calls_are_timed_in_batches(seconds, batch):
    machine = Machine()
    assert choose_batch(machine.side("a", seconds), machine.clock()) == batch


def test_calls_are_numbered_so_that_inputs_rotate_and_results_are_kept():
    machine, numbers, living, most = Machine(), [], [0], [0]

    class Result:
        def __init__(self) -> None:
            living[0] += 1
            most[0] = max(most[0], living[0])

        def __del__(self) -> None:
            living[0] -= 1

    def call(number):
        numbers.append(number)
        return Result()

    side = Side("a", machine.side("a", 0).context, call)
    take_turns([side], machine.clock(), samples=2, batch=4, seconds=1, kept=3)
    assert numbers == [0, 1, 2, 3, 4, 4, 5, 6, 7, 8]
    assert most == [4]  # three that are kept, and the one that takes the place of the first


@pytest.mark.parametrize("n", [1, 2, 3, 4, 9])
def test_quartiles_are_numpys(n):
    values = np.random.default_rng(n).random(n).tolist()
    found = summarise(values)
    wanted = np.percentile(values, (25, 50, 75))
    np.testing.assert_allclose([found[key] for key in ("low", "median", "high")], wanted)


def test_summary_has_quartiles():
    assert summarise([4.0, 1.0, 3.0, 2.0, 5.0]) == {"median": 3.0, "low": 2.0, "high": 4.0, "n": 5}


def test_pairs_of_other_lengths_are_no_pairs():
    with pytest.raises(ValueError, match="shorter"):
        compute_ratios([[1.0, 2.0]], [[1.0]])


@pytest.mark.parametrize("device", ["cpu", "mps", "cuda"])
def test_every_device_has_a_watch(device):
    clock = measuring.make_clock(device)
    assert clock.now() <= clock.now()
    assert clock.sample_seconds > 0
