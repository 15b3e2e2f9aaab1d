"""Calls of many blocks, which are small here: of one frame, of a few, of several rows."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from drawn_calls import check_drawn
from map_identities import ISTFTS, KINDS, check_identities, check_istft
from needs import ONCE_ONLY
from patched import NATIVE
from reference import drawn, istft_params, random_tensor, stft_params
from strategies import istft_cases, stft_cases

from stft_parity.cases import Case
from torch_mlx_spectro.backends.cpu import analysis, blocks, mkl, synthesis
from torch_mlx_spectro.backends.cpu.backend import CPU
from torch_mlx_spectro.backends.cpu.blocks import Block, cut_blocks
from torch_mlx_spectro.calls.operation import Call
from torch_mlx_spectro.native.strides import with_view

pytestmark = ONCE_ONLY
SIZES = [1, 300, 5000]


@pytest.fixture(params=SIZES)
def block_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", request.param)
    monkeypatch.setattr(blocks, "LONG_BYTES", {2: 0})
    monkeypatch.setattr(blocks, "MAX_GROWTH", 1)
    cache = 0 if request.param == 300 else 1 << 60  # spectra that do not fit it are copied
    for module in (analysis, synthesis):
        monkeypatch.setattr(module, "find_cache_size", lambda: cache)
    if request.param == 1:  # as where torch shows no MKL
        monkeypatch.setattr(mkl, "find_mkl", lambda: None)
    return int(request.param)


@pytest.mark.parametrize("op", ["stft", "istft"])
@pytest.mark.usefixtures("block_bytes")
def test_drawn_calls_are_natives(op: str) -> None:
    compared = 0

    @drawn(80)
    @hypothesis.given({"stft": stft_cases, "istft": istft_cases}[op]())
    def check(case: Case) -> None:
        nonlocal compared
        compared += check_drawn("cpu", CPU, case)

    check()
    assert compared > 15


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_fft", [16, 15, 1, 130], ids=lambda n: f"n{n}")
@pytest.mark.usefixtures("block_bytes")
def test_identities(kind: str, n_fft: int) -> None:
    win = max(1, n_fft - 3)
    for mode in ("reflect", "replicate", "circular", "constant"):
        for hop in (max(1, n_fft // 3), n_fft + 2):
            check_identities(CPU, kind, n_fft, hop, win, 7 * n_fft + 7, pad_mode=mode)
    check_identities(CPU, kind, n_fft, max(1, n_fft // 2), win, 5 * n_fft, center=False)
    check_identities(CPU, kind, n_fft, max(1, n_fft // 7), win, 5 * n_fft, edge=0.5)


@pytest.mark.parametrize("arguments", ISTFTS, ids=str)
@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.usefixtures("block_bytes")
def test_adjoints_of_istft(arguments: dict[str, Any], is_complex: bool) -> None:
    check_istft(CPU, arguments, is_complex)


@pytest.mark.parametrize("rows", [1, 3, 10])
@pytest.mark.parametrize("frames", [1, 5, 40, 41])
@pytest.mark.parametrize("frame_bytes", [1, 30, 100, 1000])
def test_blocks_cover_each_frame_once_in_order(
    block_bytes: int, rows: int, frames: int, frame_bytes: int
) -> None:
    seen = []
    for block in cut_blocks(rows, 2, 2 + frames, frame_bytes):
        covered = range(rows)[block.rows]
        count = len(covered) * (block.last - block.first)
        assert 0 < count * frame_bytes <= max(block_bytes, frame_bytes)
        assert len(covered) == 1 or (block.first, block.last) == (2, 2 + frames)
        seen += [(row, frame) for row in covered for frame in range(block.first, block.last)]
    assert seen == [(row, frame) for row in range(rows) for frame in range(2, 2 + frames)]
    assert isinstance(block, Block)


def test_it_knows_the_size_of_the_cache_or_copies_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = iter(["32768K\n", "unknown"])
    monkeypatch.setattr(Path, "read_text", lambda path: next(texts))
    find = blocks.find_cache_size.__wrapped__
    assert [find(), find()] == [32 << 20, sys.maxsize]


def test_no_frame_matrix_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of nothing that is transformed there is more at once than a block of each thread."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 64 << 10)
    seen: list[int] = []

    def noting(transform: Any) -> Any:
        def call(values: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            seen.append(values.numel() * values.element_size())
            result: torch.Tensor = transform(values, *args, **kwargs)
            return result

        return call

    for name in ("rfft", "irfft", "fft", "ifft"):
        monkeypatch.setattr(torch.fft, name, noting(getattr(torch.fft, name)))
    monkeypatch.setattr(mkl, "_run", noting(mkl._run))
    window = torch.hann_window(256)
    for is_complex in (False, True):
        signal = random_tensor(0, 2, 50_000, complex_values=is_complex)
        params = stft_params(signal, window, n_fft=256)
        spectrum = CPU.stft(params, signal, window)
        inverse = istft_params(spectrum, window, n_fft=256, return_complex=is_complex)
        back = CPU.istft(inverse, spectrum, window)
        CPU.adjoint_synthesis(inverse, back, window)
        assert torch.allclose(back, signal[:, : back.shape[1]], atol=1e-5)
    assert len(seen) > 40
    # Neighbours transform some frames twice.
    assert max(seen) < 2 * blocks.BLOCK_BYTES * torch.get_num_threads()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128])
def test_errors_are_natives(dtype: torch.dtype) -> None:
    """Against double precision, and of double precision against native's result itself."""
    is_wide = dtype in (torch.float64, torch.complex128)
    signal = torch.randn(3, 300_000, dtype=dtype, generator=torch.Generator().manual_seed(0))
    window = torch.hann_window(1024, dtype=torch.float64 if is_wide else torch.float32)
    wide = signal.to(torch.complex128 if dtype.is_complex else torch.float64)
    given: dict[str, Any] = {"window": window, "return_complex": dtype.is_complex}
    own = NATIVE["stft"](signal, 1024, window=window, return_complex=True)
    exact = NATIVE["stft"](wide, 1024, window=window.double(), return_complex=True)
    found = CPU.stft(stft_params(signal, window, n_fft=1024), signal, window)
    back = NATIVE["istft"](own, 1024, onesided=not dtype.is_complex, **given)
    wide_given = {**given, "window": window.double()}
    exact_back = NATIVE["istft"](
        own.to(torch.complex128), 1024, onesided=not dtype.is_complex, **wide_given
    )
    params = istft_params(own, window, n_fft=1024, return_complex=dtype.is_complex)
    found_back = CPU.istft(params, own, window)
    for ours, natives, truth in ((found, own, exact), (found_back, back, exact_back)):
        assert (ours.dtype, ours.stride()) == (natives.dtype, natives.stride())
        if is_wide:
            assert float((ours - truth).abs().max()) <= 1e-14 * float(truth.abs().max())
        else:
            error, its = (float((one - truth).abs().square().mean()) for one in (ours, natives))
            assert error <= 1.05**2 * its


@pytest.mark.parametrize("hop", [16, 64, 200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("op", ["stft", "istft"])
def test_what_is_prepared_computes_the_same(op: str, dtype: torch.dtype, hop: int) -> None:
    n_fft = 256 if hop > 16 else 64
    window = torch.hann_window(n_fft, dtype=dtype) + 0.5
    for rows in (None, 3):
        shape = (4000,) if op == "stft" else (n_fft // 2 + 1, 40)
        tensor = random_tensor(
            0, *(shape if rows is None else (rows, *shape)), complex_values=op == "istft"
        )
        find = {"stft": stft_params, "istft": istft_params}[op]
        tensor = tensor.to(torch.complex128 if op == "istft" else dtype)
        params = find(tensor, window, n_fft=n_fft, hop_length=hop)
        expected = getattr(CPU, op)(params, tensor, window)
        found_how = CPU.prepare(Call(params, tensor, window), expected)
        assert found_how is not None
        prepared = with_view(params, found_how)
        for changed in (window, window.clone(), window + 1, window):
            values, found = getattr(CPU, op)(params, tensor, changed), prepared(tensor, changed)
            assert torch.equal(found, values)
            assert (found.stride(), found._is_view()) == (values.stride(), values._is_view())
        window.numpy()[10] = 3.0  # which leaves no trace
        assert torch.equal(prepared(tensor, window), getattr(CPU, op)(params, tensor, window))
        window = torch.hann_window(n_fft, dtype=dtype) + 0.5


def test_how_calls_are_cut_changes_last_bits_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "LONG_BYTES", {2: 0})
    monkeypatch.setattr(blocks, "MAX_GROWTH", 1)
    signal, window = random_tensor(0, 2, 40_000), torch.hann_window(512)
    params = stft_params(signal, window, n_fft=512)
    found = []
    for size in (1, 100_000, 1 << 30):
        monkeypatch.setattr(blocks, "BLOCK_BYTES", size)
        spectrum = CPU.stft(params, signal, window)
        inverse = istft_params(spectrum, window, n_fft=512)
        found.append((spectrum, CPU.istft(inverse, spectrum, window)))
    for spectrum, back in found[1:]:
        torch.testing.assert_close(spectrum, found[0][0], rtol=0, atol=2e-6)
        torch.testing.assert_close(back, found[0][1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("layout", ["native's", "contiguous", "frames outermost", "conjugated"])
@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize(
    "given", [{}, {"length": 300}, {"length": 9000}, {"center": False}], ids=str
)
def test_short_istfts_of_any_layout(layout: str, is_complex: bool, given: dict[str, Any]) -> None:
    bins = 256 if is_complex else 129
    spectrum = random_tensor(0, 3, bins, 20, complex_values=True)
    if layout == "native's":
        spectrum = spectrum.mT.contiguous().mT
    elif layout == "frames outermost":
        spectrum = spectrum.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    elif layout == "conjugated":
        spectrum = spectrum.conj()
    for window in (random_tensor(1, 256).abs() + 1, torch.ones(256).to(torch.complex64), None):
        if window is not None and window.is_complex() and not is_complex:
            continue
        more: dict[str, Any] = {"n_fft": 256, "return_complex": is_complex, **given}
        params = istft_params(spectrum, window, **more, onesided=not is_complex)
        expected = CPU.istft(params, spectrum, window)
        prepared = CPU.prepare(Call(params, spectrum, window), expected)
        assert prepared is not None
        found = prepared(spectrum, window)
        assert torch.equal(found, expected)
        assert found.stride() == expected.stride()
        native = NATIVE["istft"](
            spectrum,
            256,
            window=window if window is not None else torch.ones(256),
            onesided=not is_complex,
            return_complex=is_complex,
            **given,
        )
        torch.testing.assert_close(found, native, atol=1e-5, rtol=1e-5)
