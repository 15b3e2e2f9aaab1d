"""The ledger by itself: what it holds, counts, refuses and forgets; without calls."""

from __future__ import annotations

import torch

from torch_mlx_spectro.store.verdicts import Store
from torch_mlx_spectro.verify.ledger import (
    ALL_QUARANTINED,
    MAX_CASES,
    MAX_QUARANTINED,
    MAX_ROUTES,
    QUARANTINED,
    VERIFIED,
    Case,
    Ledger,
)

CASE = Case(
    op="stft",
    backend="mlx",
    kernel="mlx cpu blocks",
    device="cpu",
    n_fft=16,
    hop_length=4,
    dtype=torch.float32,
    window=None,
    contiguous=True,
    bins_innermost=True,
    flags=(True, False, "reflect"),
    size=30,
    chip="a chip",
)


def new_ledger(store: Store | None = None) -> Ledger:
    kept = store or Store(None, versions={})
    return Ledger(lambda: kept)


def test_what_an_earlier_version_has_stored_is_understood() -> None:
    """The texts of cases are keys of the store: another text needs another format of the file."""
    store = Store(None, versions={})
    way = "stft|mlx|mlx cpu blocks|cpu|16|4|torch.float32|None|True|True|(True, False, 'reflect')"
    store.put(VERIFIED, f"{way}|30|a chip", True)
    store.put(QUARANTINED, f"{way}|a chip", "it was wrong")
    ledger = new_ledger(store)
    assert not ledger.needs_comparison(CASE)
    assert ledger.needs_comparison(CASE._replace(size=31))
    reason = ledger.explain_refusal(CASE, asked_by_name=False)
    assert reason == "it was wrong (in an earlier process)"


def test_a_wrong_route_is_refused_to_everybody_here_and_to_auto_in_later_processes() -> None:
    store = Store(None, versions={})
    ledger = new_ledger(store)
    other = CASE._replace(chip="another chip")
    for by_name in (True, False):
        assert not ledger.may_refuse(asked_by_name=by_name)
    assert ledger.record_wrong(CASE, "its largest error is 1")
    assert not ledger.record_wrong(CASE._replace(size=2), "its largest error is 2")
    reason = (
        "verification: mlx (mlx cpu blocks) was wrong for stft of n_fft 16, hop 4, torch.float32: "
        "its largest error is 1"
    )
    for by_name in (True, False):
        assert ledger.may_refuse(asked_by_name=by_name)
        assert ledger.explain_refusal(CASE._replace(size=3), asked_by_name=by_name) == reason
        assert ledger.explain_refusal(other, asked_by_name=by_name) is None
    later = new_ledger(store)
    assert not later.may_refuse(asked_by_name=True)
    assert not later.may_refuse(asked_by_name=True)
    assert later.explain_refusal(CASE, asked_by_name=True) is None
    assert later.may_refuse(asked_by_name=False)
    found = later.explain_refusal(CASE, asked_by_name=False)
    assert found == f"{reason} (in an earlier process)"
    assert later.explain_refusal(other, asked_by_name=False) is None


def test_the_epoch_grows_with_what_is_wrong_and_when_the_ledger_is_cleared() -> None:
    ledger, epochs = new_ledger(), []

    def note_epoch() -> None:
        epochs.append((ledger.epoch, ledger.may_refuse(asked_by_name=True)))

    note_epoch()
    ledger.count_call(CASE, 2)
    ledger.note_comparison(CASE, conclusive=True)
    ledger.needs_comparison(CASE)
    note_epoch()
    ledger.record_wrong(CASE, "wrong")
    note_epoch()
    ledger.record_wrong(CASE, "wrong again")
    note_epoch()
    ledger.record_wrong(CASE._replace(n_fft=8), "wrong")
    note_epoch()
    ledger.clear()
    note_epoch()
    assert epochs == [(0, False), (0, False), (1, True), (1, True), (2, True), (3, False)]
    assert ledger.explain_refusal(CASE, asked_by_name=True) is None


def test_calls_are_counted_by_route_whatever_their_size() -> None:
    ledger = new_ledger()
    other = CASE._replace(op="istft")
    assert [ledger.count_call(CASE._replace(size=n), 3) for n in range(6)] == [
        False,
        False,
        True,
    ] * 2
    assert [ledger.count_call(other, 3) for _ in range(3)] == [False, False, True]
    assert not ledger.count_call(CASE, 2)  # of another number, another count
    assert ledger.count_call(CASE, 1)


def test_memory_of_a_ledger_is_bounded() -> None:
    ledger = new_ledger()
    for n in range(MAX_ROUTES):
        assert not ledger.count_call(CASE._replace(n_fft=n), 2)
    further = [ledger.count_call(CASE._replace(n_fft=-1 - n), 2) for n in range(4)]
    assert further == [False, True, False, True]
    assert len(ledger._steps) == MAX_ROUTES + 1
    assert ledger.count_call(CASE._replace(n_fft=0), 2)
    for size in range(MAX_CASES + 1):
        ledger.note_comparison(CASE._replace(size=size), conclusive=True)
        ledger.note_comparison(CASE._replace(size=size, chip="other"), conclusive=False)
    assert len(ledger._compared) <= MAX_CASES


def test_with_many_wrong_routes_nothing_is_accelerated_and_nothing_more_is_told() -> None:
    ledger = new_ledger()
    for n_fft in range(MAX_QUARANTINED):
        case = CASE._replace(n_fft=n_fft)
        assert ledger.explain_refusal(case, asked_by_name=True) is None
        assert ledger.record_wrong(case, "wrong")
    further = CASE._replace(n_fft=-1)
    assert not ledger.record_wrong(further, "wrong")
    assert ledger.explain_refusal(further, asked_by_name=True) == ALL_QUARANTINED
    assert len(ledger._wrong) == MAX_QUARANTINED


def test_a_forked_child_does_not_wait_for_a_thread_of_its_parent() -> None:
    ledger = new_ledger()
    ledger.record_wrong(CASE, "wrong")
    ledger._lock.acquire()
    ledger.after_fork_in_child()
    assert ledger.may_refuse(asked_by_name=True)
    ledger.clear()
    assert ledger.explain_refusal(CASE, asked_by_name=True) is None
