"""Small calls for tests, each of which says only in what it differs from a plain one."""

from __future__ import annotations

from typing import Any

from stft_parity.cases import Case
from stft_parity.cases.faults import Changes

#: Accepted by torch: the plain call most often, and integers that are not ``int``.
UNUSUAL: Changes = {
    "": {},
    "a NumPy hop_length": {"hop_length": "np.int32({hop})"},
    "a NumPy n_fft": {"n_fft": "np.int64({n_fft})"},
    "a NumPy win_length": {"win_length": "np.int16({win})"},
    **{f"{'plain ' * n}call": {} for n in range(1, 10)},
}

SIGNAL = "torch.randn((3, 120), generator=g)"
COMPLEX_SIGNAL = "torch.randn((3, 120), dtype=torch.complex64, generator=g)"
SPECTRUM = "torch.randn((3, 20, 9), dtype=torch.complex64, generator=g).transpose(1, 2)"
WINDOW = "torch.hann_window(16)"


def stft_case(x: str = SIGNAL, w: str | None = WINDOW, fault: str = "", **changes: Any) -> Case:
    """A call with n_fft 16; ``changes`` are expressions of arguments, None for one left out."""
    given = {"input": "x", "n_fft": "16", "hop_length": "4", "return_complex": "True"}
    return _apply_changes("stft", x, w, given, changes, fault)


def istft_case(x: str = SPECTRUM, w: str | None = WINDOW, fault: str = "", **changes: Any) -> Case:
    """A call with n_fft 16; ``changes`` are expressions of arguments, None for one left out."""
    given = {"input": "x", "n_fft": "16", "hop_length": "4"}
    return _apply_changes("istft", x, w, given, changes, fault)


def _apply_changes(
    op: str, x: str, w: str | None, given: dict[str, str], changes: dict[str, Any], fault: str
) -> Case:
    if w is not None:
        given["window"] = "w"
    given = {**given, **changes}
    sizes = {"n_fft": 16, "hop": 4, "win": 16}
    passed = {name: value.format(**sizes) for name, value in given.items() if value is not None}
    return Case(op, x, w, tuple(passed.items()), fault=fault)
