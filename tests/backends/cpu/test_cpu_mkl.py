"""MKL's transforms have the bits of torch's own, whatever lies where, and torch does the rest."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from reference import random_tensor

import torch_mlx_spectro as tms
from torch_mlx_spectro.backends.cpu import mkl

pytestmark = pytest.mark.skipif(mkl.find_mkl() is None, reason="this torch shows no MKL")
DTYPES = [torch.float32, torch.float64]


@pytest.fixture(autouse=True)
def _empty() -> Iterator[None]:
    mkl._plans.clear()
    yield
    mkl._plans.clear()


def make_frames(rows: int, count: int, n_fft: int, dtype: torch.dtype, layout: str) -> torch.Tensor:
    if layout == "overlapping":
        signal = random_tensor(0, rows, 3 * (count - 1) + n_fft).to(dtype)
        return signal.unfold(1, n_fft, 3)
    if layout == "rows apart":
        return random_tensor(0, rows, count + 2, n_fft).to(dtype)[:, 1:-1]
    if layout == "frames apart":
        return random_tensor(0, rows, count, n_fft + 5).to(dtype)[..., :n_fft]
    return random_tensor(0, rows, count, n_fft).to(dtype)


@pytest.mark.parametrize("n_fft", [1, 2, 3, 15, 16, 31, 210, 1009, 2048, 6144])
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("layout", ["contiguous", "overlapping", "rows apart", "frames apart"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_are_those_of_torchs_own_transforms(
    n_fft: int, rows: int, layout: str, dtype: torch.dtype
) -> None:
    count = 20
    frames = make_frames(rows, count, n_fft, dtype, layout)
    room = torch.full((rows, count + 4, n_fft // 2 + 1), 7, dtype=dtype.to_complex())
    out = room[:, 2:-2]
    before = frames.clone()
    assert mkl.transform(frames, out)
    spectra = torch.fft.rfft(frames)
    assert torch.equal(out, spectra)
    assert torch.equal(frames, before)
    assert (room[:, :2] == 7).all()
    assert (room[:, -2:] == 7).all()
    wide = torch.full((rows, count + 4, n_fft + 3), 7, dtype=dtype)
    assert mkl.invert(out, wide[:, 2:-2, :n_fft])
    assert torch.equal(wide[:, 2:-2, :n_fft], torch.fft.irfft(spectra, n_fft))
    assert torch.equal(out, spectra)
    wide[:, 2:-2, :n_fft] = 7
    assert (wide == 7).all()


def test_what_it_does_not_know_is_left_to_torch() -> None:
    frames, out = torch.ones(2, 20, 16), torch.full((2, 20, 9), 7, dtype=torch.complex64)
    for wrong in (
        frames.to(torch.complex64),
        frames.double(),
        frames.half(),
        torch.ones(2, 16, 20).mT,
        frames[:, :0],
        frames[:, :3],  # few frames of rows that lie apart
    ):
        count = wrong.shape[1]
        assert not mkl.transform(wrong, out[:, :count])
    assert not mkl.transform(frames, torch.ones(2, 9, 20, dtype=torch.complex64).mT)
    assert (out == 7).all()
    assert len(mkl._plans) == 0


@pytest.mark.parametrize("inverse", [False, True])
def test_threads_share_a_plan(inverse: bool) -> None:
    inputs = [random_tensor(seed, 1, 200, 1024) for seed in range(8)]
    spectra = [torch.fft.rfft(one) for one in inputs]
    wrong: list[int] = []

    def work(number: int) -> None:
        torch.set_num_threads(2)
        own, spectrum = inputs[number], spectra[number]
        frames, out = torch.empty_like(own), torch.empty_like(spectrum)
        expected = torch.fft.irfft(spectrum, 1024)
        for _ in range(30):
            if inverse:
                is_right = mkl.invert(spectrum, frames) and torch.equal(frames, expected)
            else:
                is_right = mkl.transform(own, out) and torch.equal(out, spectrum)
            if not is_right:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(mkl._plans) == 1


class Counting:
    """A function that counts its calls, and what it returns."""

    def __init__(self, function: Any, status: int | None = None) -> None:
        self.function, self.status, self.calls = function, status, 0

    def __call__(self, *args: Any) -> Any:
        self.calls += 1
        return self.function(*args) if self.status is None else self.status


def test_plans_are_kept_and_freed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    known = mkl.find_mkl()
    assert known is not None
    commit, free = Counting(known.commit), Counting(known.free)
    monkeypatch.setattr(mkl, "find_mkl", lambda: known._replace(commit=commit, free=free))
    for _ in range(2):
        for count in range(1, mkl.MAX_PLANS + 1):
            frames = torch.ones(1, count, 8)
            assert mkl.transform(frames, torch.empty(1, count, 5, dtype=torch.complex64))
    assert (commit.calls, free.calls) == (mkl.MAX_PLANS, 0)
    assert mkl.transform(torch.ones(1, 1, 6), torch.empty(1, 1, 4, dtype=torch.complex64))
    assert (commit.calls, free.calls) == (mkl.MAX_PLANS + 1, 1)
    tms.clear_caches()
    assert free.calls == mkl.MAX_PLANS + 1


@pytest.mark.parametrize("function", ["set_value", "commit", "forward", "backward"])
def test_where_mkl_fails_torch_computes(monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    """Such as for want of memory."""
    known = mkl.find_mkl()
    assert known is not None
    failing, free = Counting(getattr(known, function), status=1), Counting(known.free)
    changed = {function: failing, "free": free}
    monkeypatch.setattr(mkl, "find_mkl", lambda: known._replace(**changed))
    signal, window = random_tensor(0, 2, 3000), torch.hann_window(64)
    expected = torch.stft(signal, 64, window=window, return_complex=True)
    with tms.backend("cpu", strict=True):
        spectrum = tms.stft(signal, 64, window=window, return_complex=True)
        back = tms.istft(spectrum, 64, window=window)
    assert failing.calls
    torch.testing.assert_close(spectrum, expected)
    torch.testing.assert_close(back, signal[:, : back.shape[1]])
    mkl._plans.clear()
    assert free.calls or function in ("forward", "backward")
