"""Verdicts on envelopes: what the host sees of what a device writes, and whose memory it is."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
import torch

from torch_mlx_spectro import nola
from torch_mlx_spectro.errors import UnresolvedArguments
from torch_mlx_spectro.nola import Flagged, Flags, wait_for

HOST = torch.device("cpu")


@pytest.fixture(autouse=True)
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(nola, "host_memory", torch.empty)
    monkeypatch.setattr(nola, "is_idle", lambda device: False)
    monkeypatch.setattr(nola, "_pool", nola._Pool())
    return


def write(address: int, verdicts: list[float]) -> None:
    values = torch.tensor(verdicts)
    ctypes.memmove(address, values.data_ptr(), 4 * len(verdicts))


@pytest.mark.parametrize("against", [None, 0, 4, 6])
def test_a_verdict_on_any_column_counts(against: int | None) -> None:
    verdict = Flagged(7, HOST)
    verdicts = [0.0] * 7
    if against is not None:
        verdicts[against] = 1.0
    write(verdict.ask(), [*verdicts, 1.0])  # nobody reads what is behind them
    if against is None:
        verdict.settle()
    else:
        with pytest.raises(UnresolvedArguments):
            verdict.settle()


def test_columns_are_waited_for_one_by_one() -> None:
    verdict = Flagged(3, HOST)
    address = verdict.ask()
    settled = threading.Event()

    def settle() -> None:
        verdict.settle()
        settled.set()

    thread = threading.Thread(target=settle)
    thread.start()
    for column in (2, 0, 1):
        time.sleep(0.01)
        assert not settled.is_set()
        write(address + 4 * column, [0.0])
    thread.join(10)
    assert settled.is_set()


def test_one_piece_of_memory_serves_one_launch_after_another() -> None:
    judged: list[bool] = []
    verdict = Flagged(2, HOST, lambda: judged.append(True))
    for vanishes in (False, True, False):
        address = verdict.ask()
        assert ctypes.string_at(address, 8) == b"\xff" * 8
        write(address, [0.0, float(vanishes)])
        if vanishes:
            with pytest.raises(UnresolvedArguments):
                verdict.settle()
        else:
            verdict.settle()
    assert judged == [True, True]


def test_memory_that_may_still_be_written_to_is_nobody_elses() -> None:
    settled = Flagged(2, HOST)
    first = settled.ask()
    write(first, [0.0, 0.0])
    settled.settle()
    del settled
    again = Flagged(5, HOST)
    assert again.ask() == first
    del again  # not settled
    assert Flagged(5, HOST).ask() != first


def test_memory_is_as_large_as_it_has_to_be() -> None:
    small, large = Flagged(2, HOST), Flagged(nola.LEAST_FLAGS + 1, HOST)
    for verdict, columns in ((small, 2), (large, nola.LEAST_FLAGS + 1)):
        write(verdict.ask(), [0.0] * columns)
        verdict.settle()
    del small, large, verdict
    places = {Flagged(columns, HOST).ask() for columns in (2, 2 * nola.LEAST_FLAGS)}
    assert places == {flags.address for flags in nola._pool._made}


def test_a_device_that_failed_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def failed(device: torch.device) -> bool:
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(nola, "_TURNS", 2)
    monkeypatch.setattr(nola, "is_idle", failed)
    verdict = Flagged(2, HOST)
    verdict.ask()
    with pytest.raises(RuntimeError, match="illegal memory access"):
        verdict.settle()


def test_a_kernel_without_a_verdict_is_no_endless_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nola, "_TURNS", 2)
    monkeypatch.setattr(nola, "is_idle", lambda device: True)
    verdict = Flagged(2, HOST)
    write(verdict.ask(), [0.0])
    with pytest.raises(RuntimeError, match="verdict has not come"):
        verdict.settle()


def test_others_have_their_turn_meanwhile() -> None:
    """The interpreter is let go of: else the writer below would wait for a switch interval."""
    flags = Flags(1)
    written = flags.first(1).tobytes
    turns = 0

    def is_idle() -> bool:
        return False

    def write_later() -> None:
        nonlocal turns
        for _ in range(50):
            turns += 1
            time.sleep(0)
        write(flags.address, [0.0])

    thread = threading.Thread(target=write_later)
    thread.start()
    assert wait_for(written, is_idle) == bytes(4)
    thread.join()
    assert turns == 50


def test_one_that_outlives_the_modules_ends_silently() -> None:
    """Modules are emptied one after another: of another's is what is kept of the last calls."""
    code = (
        "import torch\n"
        "from torch_mlx_spectro import nola\n"
        "nola.host_memory = torch.empty\n"
        "torch.nn.kept = nola, nola.Flagged(3, torch.device('cpu'))\n"
    )
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert ended.stderr == ""


def test_one_that_gets_no_memory_gives_none_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(columns: int) -> torch.Tensor:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(nola, "host_memory", refuse)
    with pytest.raises(RuntimeError, match="out of memory"):
        Flagged(3, HOST)  # and no warning of an exception that nobody sees
