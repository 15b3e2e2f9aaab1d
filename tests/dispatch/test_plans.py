"""Calls on MPS that were decided before: what is taken from then, and what is decided anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import metal
import pytest
import torch
from needs import ONCE_ONLY
from torch.utils._python_dispatch import TorchDispatchMode

import torch_mlx_spectro as tms
from torch_mlx_spectro.calls.operation import STFT
from torch_mlx_spectro.dispatch import decide as deciding
from torch_mlx_spectro.dispatch import plans as known_plans
from torch_mlx_spectro.dispatch import run as dispatching
from torch_mlx_spectro.dispatch.choice import Choice
from torch_mlx_spectro.native import functions as native
from torch_mlx_spectro.native import private_state as torch_state

pytestmark = ONCE_ONLY
WINDOW = torch.hann_window(16)
SIGNAL = torch.randn(2, 100)
SPECTRUM = native.stft(SIGNAL, 16, 4, window=WINDOW, return_complex=True)


@pytest.fixture
def decided(metal_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Metal is emulated, and MPS is host tensors; notes what is decided."""
    found: list[str] = []

    def decide(op: Any, *arguments: Any) -> Any:
        found.append(op.name)
        return deciding.decide(op, *arguments)

    monkeypatch.setattr(dispatching, "decide", decide)
    known_plans.plans.clear()
    with metal.emulated(metal_cache, backend="mps"):
        yield found
    known_plans.plans.clear()


def stft(signal: torch.Tensor = SIGNAL, **more: Any) -> torch.Tensor:
    given = {"hop_length": 4, "window": WINDOW, "return_complex": True, **more}
    return tms.stft(signal, 16, **given)


def istft(**more: Any) -> torch.Tensor:
    return tms.istft(SPECTRUM, 16, 4, **{"window": WINDOW, **more})


def test_a_call_is_decided_once(decided: list[str]) -> None:
    tms.reset_stats()
    for _ in range(3):
        signal = torch.randn(2, 100)
        expected = native.stft(signal, 16, 4, window=WINDOW, return_complex=True)
        torch.testing.assert_close(stft(signal), expected, rtol=1e-5, atol=1e-5)
        window = WINDOW.clone()
        torch.testing.assert_close(
            istft(window=window), native.istft(SPECTRUM, 16, 4, window=window)
        )
    assert decided == ["stft", "istft"]
    assert tms.stats().calls == {("stft", "mps"): 3, ("istft", "mps"): 3}


@pytest.mark.parametrize(
    "changes",
    [
        {"signal": torch.randn(2, 101)},
        {"signal": torch.randn(100, 2).t()},
        {"signal": torch.randn(2, 100).requires_grad_()},
        {"window": torch.ones(16, dtype=torch.complex64), "onesided": False},
        {"hop_length": 5},
        {"center": False},
        {"pad_mode": "constant"},
    ],
    ids=lambda changes: str(list(changes)),
)
def test_what_differs_is_decided_anew(decided: list[str], changes: dict[str, Any]) -> None:
    stft()
    assert decided.pop()
    stft(**changes)
    assert decided.pop()
    stft()
    assert not decided


@pytest.mark.parametrize("state", ["verified", "quarantined", "vmap"])
def test_where_each_is_decided(
    decided: list[str], state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stft()
    decided.clear()
    if state == "verified":
        with tms.backend("mps", verify=1):
            stft()
    elif state == "quarantined":
        monkeypatch.setattr(deciding.ledger, "has_wrong", True)
        stft()
    else:
        torch.func.vmap(stft)(torch.randn(3, 2, 100))
    assert decided


class Sees(TorchDispatchMode):
    """A mode that changes nothing."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def test_under_a_mode_nothing_is_known(decided: list[str]) -> None:
    stft()
    with Sees(), pytest.raises(tms.NotAccelerated, match="TorchDispatchMode"):
        stft()


def test_what_may_be_computed_again_is_decided_anew_under_auto(
    decided: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    args = (torch.randn(2, 100, requires_grad=True), 16)
    monkeypatch.setattr(torch_state, "recomputes", lambda: True)
    assert known_plans.key_of_call(STFT, Choice("auto"), args, {}) is None
    assert known_plans.key_of_call(STFT, Choice("mps"), args, {}) is not None
    with torch.no_grad():
        assert known_plans.key_of_call(STFT, Choice("auto"), args, {}) is not None


@pytest.mark.parametrize("given", [3, None, [1.0], torch.zeros(4).to_sparse()], ids=type)
def test_what_is_no_call_on_mps_has_no_key(given: Any) -> None:
    assert known_plans.key_of_call(STFT, Choice("mps"), (given, 16), {}) is None
    assert known_plans.key_of_call(STFT, Choice("mps"), (), {"input": given}) is None
    assert known_plans.recall(STFT, None, (), {}) is None


def test_a_vanishing_envelope_is_torchs_to_refuse(decided: list[str]) -> None:
    istft()
    istft()
    with pytest.raises(RuntimeError, match="window overlap add min"):
        istft(window=torch.zeros(16))
    assert decided == ["istft"]


def test_a_window_of_another_device_is_torchs_to_refuse(decided: list[str]) -> None:
    """Both are on device -1, by torch's numbers."""
    stft()
    istft()
    for call in (stft, istft):
        with pytest.raises(RuntimeError, match="same device"):
            call(window=torch.ones(16, device="meta"))


def test_a_wrong_argument_is_torchs_to_refuse(decided: list[str]) -> None:
    stft()
    for wrong in ({"hop_length": 4.0}, {"center": 1}, {"unknown": 1}):
        with pytest.raises((TypeError, RuntimeError)):
            stft(**wrong)


def test_what_compiles_otherwise_decides_otherwise(decided: list[str], metal_cache: Path) -> None:
    stft()
    with metal.emulated(metal_cache, backend="mps"):
        stft()
    assert decided == ["stft", "stft"]
