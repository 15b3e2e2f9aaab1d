"""Blocks that threads share: each is done once, by as many threads as torch has."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from needs import ONCE_ONLY
from reference import istft_params, random_tensor, stft_params

from torch_mlx_spectro.backends.cpu import analysis, blocks, threads
from torch_mlx_spectro.backends.cpu.backend import CPU
from torch_mlx_spectro.backends.cpu.threads import find_team, share

pytestmark = ONCE_ONLY
TEAMS = pytest.mark.skipif(find_team() is None, reason="torch has no OpenMP library of GNU's kind")


@pytest.fixture(autouse=True)
def threads_of_torch(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two threads, which take whole blocks of short calls, too."""
    monkeypatch.setattr(blocks, "LONG_BYTES", dict.fromkeys((2, 3, 4), 1 << 20))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def compute() -> tuple[torch.Tensor, ...]:
    signal_ = random_tensor(0, 2, 400_000)
    window = torch.hann_window(1024)
    params = stft_params(signal_, window, n_fft=1024)
    spectrum = CPU.stft(params, signal_, window)
    return spectrum, CPU.istft(istft_params(spectrum, window, n_fft=1024), spectrum, window)


@TEAMS
def test_two_threads_are_in_two_parts_at_once() -> None:
    meeting, seen = threading.Barrier(2, timeout=30), []

    def work(part: int) -> None:
        meeting.wait()
        seen.append((part, threading.get_ident()))

    share(range(2), work)
    assert sorted(part for part, _ in seen) == [0, 1]
    assert threading.get_ident() in {thread for _, thread in seen}
    assert len({thread for _, thread in seen}) == 2


@TEAMS
@pytest.mark.parametrize(
    ("samples", "count", "shared"),
    [
        (400_000, 2, True),
        (400_000, 4, True),
        (400_000, 1, False),
        (400_000, 5, False),
        (50_000, 2, False),
    ],
)
def test_threads_take_whole_blocks_of_long_calls_if_they_are_few(
    monkeypatch: pytest.MonkeyPatch, samples: int, count: int, shared: bool
) -> None:
    """Many wait for each other at Python's lock."""
    torch.set_num_threads(count)
    calls: list[int] = []
    monkeypatch.setattr(blocks, "share", lambda parts, work: calls.append(len(parts)))
    signal_, window = random_tensor(0, 1, samples), torch.hann_window(512)
    CPU.stft(stft_params(signal_, window, n_fft=512), signal_, window)
    assert bool(calls) == shared


@TEAMS
def test_torch_shares_nothing_within_a_part() -> None:
    """A thread that it started would be a third; the settings of the program are as they were."""
    counts: list[int] = []

    def work(part: int) -> None:
        counts.append(torch.get_num_threads())
        torch.fft.rfft(torch.ones(256, 1024)).abs().mul_(2)

    share(range(16), work)
    in_new_threads: list[int] = []
    other = threading.Thread(target=lambda: in_new_threads.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert (torch.get_num_threads(), in_new_threads, len(counts)) == (2, [2], 16)


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("parts", [0, 1, 2, 100])
def test_each_part_is_done_once(count: int, parts: int) -> None:
    torch.set_num_threads(count)
    seen: list[int] = []
    share(range(parts), seen.append)
    assert sorted(seen) == list(range(parts))


@pytest.mark.parametrize("raised", [ValueError, KeyboardInterrupt])
def test_what_a_part_raises_is_raised_by_all(raised: type[BaseException]) -> None:
    def work(part: int) -> None:
        if part == 3:
            raise raised("in part 3")

    with pytest.raises(raised, match="in part 3"):
        share(range(8), work)


@TEAMS
def test_no_interrupt_is_lost_before_the_first_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """ctypes only reports what is raised there."""
    monkeypatch.setattr(threads, "find_team", lambda: lambda function, threads: None)
    with pytest.raises(KeyboardInterrupt):
        share(range(8), lambda part: None)


def test_an_interrupt_in_the_midst_loses_nothing() -> None:
    expected, main = compute(), threading.get_ident()
    told: list[int] = []
    own = analysis.transform_frames

    def interrupt(*args: Any, **kwargs: Any) -> None:
        if not told and threading.get_ident() == main:
            told.append(1)
            signal.raise_signal(signal.SIGINT)
        own(*args, **kwargs)

    def compute_until_interrupted() -> None:
        while True:
            compute()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(analysis, "transform_frames", interrupt)
        with pytest.raises(KeyboardInterrupt):
            compute_until_interrupted()
    assert all(map(torch.equal, compute(), expected))
    assert not torch.is_inference_mode_enabled()


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    expected = compute()
    for count in (1, 3):
        torch.set_num_threads(count)
        assert all(map(torch.equal, compute(), expected))


def test_results_made_in_inference_mode_are_written_by_all_threads() -> None:
    expected = compute()
    with torch.inference_mode():
        found = compute()
    assert all(one.is_inference() for one in found)
    assert all(map(torch.equal, found, expected))


def test_without_a_team_torch_shares_the_work_on_each_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = compute()
    monkeypatch.setattr(threads, "find_team", lambda: None)
    monkeypatch.setattr(blocks, "find_team", lambda: None)
    for one, other in zip(compute(), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-6)
