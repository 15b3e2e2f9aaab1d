"""Blocks: values that do not depend on the cut, inputs of every layout, bounded memory."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from reference import (
    Array,
    close,
    drawn,
    istft_params,
    native_istft,
    native_stft,
    no_default_stream,
    random_tensor,
    runtime_of,
    stft_params,
)

from torch_mlx_spectro.backends.mlx.bridge import host_view, window_values
from torch_mlx_spectro.core.envelope import pad_window, resolve_envelope
from torch_mlx_spectro.core.params import IstftParams, StftParams
from torch_mlx_spectro.mlx import blocks
from torch_mlx_spectro.mlx.blocks import cut_frames, istft_blocks, stft_blocks
from torch_mlx_spectro.mlx.host import HostView
from torch_mlx_spectro.mlx.runtime import runtime

MIB = 1 << 20


def mlx_window(params: StftParams | IstftParams, window: torch.Tensor | None) -> Any:
    if window is None:
        return None
    scale = params.scale if isinstance(params, StftParams) else 1.0
    full = pad_window(window_values(window), params.win_length, params.n_fft) * scale
    return runtime().mx.array(full.astype(np.complex64 if window.is_complex() else np.float32))


def as_rows(tensor: torch.Tensor, batched: bool) -> HostView:
    return host_view(tensor if batched else tensor.unsqueeze(0))


def stft_of(
    signal: torch.Tensor, window: torch.Tensor | None, streams: int = 1, **arguments: Any
) -> Array:
    """(rows, frames, bins) computed by blocks; every value is written, or is not a number."""
    params = stft_params(signal, window, **arguments)
    out = np.full((params.rows, params.frames, params.bins), np.nan, np.complex64)
    view = as_rows(signal, params.batched)
    stft_blocks(runtime_of(streams), params, view, mlx_window(params, window), out)
    return out


def istft_of(
    spectrum: torch.Tensor, window: torch.Tensor | None, streams: int = 1, **arguments: Any
) -> Array:
    params = istft_params(spectrum, window, **arguments)
    kind = np.complex64 if params.return_complex else np.float32
    out = np.full((params.rows, params.output_length), np.nan, kind)
    view = as_rows(spectrum.mT, params.batched)
    envelope = resolve_envelope(window_values(window), params)
    prepared = mlx_window(params, window)
    istft_blocks(runtime_of(streams), params, view, prepared, envelope.rows, out)
    return out


@pytest.fixture
def many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many streams as there are, however few threads this machine gives torch."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)


CUTS = [(1, 1 << 10, 1 << 30), (2, 1 << 12, 1), (3, 1 << 10, 1), (3, 1 << 16, 1), (2, 4 << 20, 1)]


def cut_into(monkeypatch: pytest.MonkeyPatch, block_bytes: int, stream_bytes: int) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(blocks, "MAX_BLOCK_BYTES", 4 * block_bytes)
    monkeypatch.setattr(blocks, "STREAM_BYTES", stream_bytes)


STFT_CALLS: list[tuple[int, int, bool, dict[str, Any]]] = [
    (64, 16, False, {}),
    (60, 17, False, {"pad_mode": "circular", "normalized": True}),
    (37, 5, False, {"onesided": False, "pad_mode": "constant"}),
    (48, 50, True, {}),
    (64, 7, False, {"center": False}),
]


@pytest.mark.usefixtures("many_threads")
@pytest.mark.parametrize(("n_fft", "hop", "complex_signal", "arguments"), STFT_CALLS)
def test_spectra_are_bit_for_bit_the_same_however_they_are_cut(
    n_fft: int,
    hop: int,
    complex_signal: bool,
    arguments: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    signal = random_tensor(0, 3, 4001, complex_values=complex_signal)
    window = torch.hann_window(n_fft)
    call = {"n_fft": n_fft, "hop_length": hop} | arguments
    whole = stft_of(signal, window, **call)
    close(whole, native_stft(signal, window=window, **call).mT)
    for streams, block_bytes, stream_bytes in CUTS:
        cut_into(monkeypatch, block_bytes, stream_bytes)
        np.testing.assert_array_equal(stft_of(signal, window, streams, **call), whole)


ISTFT_CALLS: list[tuple[int, int, int, dict[str, Any]]] = [
    (64, 16, 150, {}),
    (60, 17, 150, {"normalized": True}),
    (37, 37, 90, {"center": False}),
    (48, 20, 150, {"return_complex": True}),
    (64, 1, 700, {}),
    (64, 3, 400, {"length": 1500}),
    (40, 2, 11, {}),
]


@pytest.mark.usefixtures("many_threads")
@pytest.mark.parametrize(("n_fft", "hop", "frames", "arguments"), ISTFT_CALLS)
def test_signals_are_bit_for_bit_the_same_however_they_are_cut(
    n_fft: int, hop: int, frames: int, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Including hops so small that the frames go in several passes."""
    bins = n_fft if arguments.get("return_complex") else n_fft // 2 + 1
    spectrum = random_tensor(0, 3, bins, frames, complex_values=True)
    window = torch.hamming_window(n_fft)
    call = {"n_fft": n_fft, "hop_length": hop} | arguments
    whole = istft_of(spectrum, window, **call)
    wide = spectrum.to(torch.complex128)
    close(whole, native_istft(wide, window=window.double(), **call), 5e-6)
    for streams, block_bytes, stream_bytes in CUTS:
        cut_into(monkeypatch, block_bytes, stream_bytes)
        np.testing.assert_array_equal(istft_of(spectrum, window, streams, **call), whole)


@pytest.mark.parametrize(("n_fft", "hop"), [(64, 1), (51, 2), (64, 3), (17, 1), (16, 1), (70, 4)])
@pytest.mark.parametrize("frames", [1, 3, 20, 130])
def test_small_hops_go_in_passes_and_add_up(n_fft: int, hop: int, frames: int) -> None:
    """Where a sample would take more than MAX_OVERLAP additions; also with fewer frames."""
    spectrum = random_tensor(0, 2, n_fft // 2 + 1, frames, complex_values=True)
    window = torch.hann_window(n_fft + 2)[1:-1].contiguous()
    wide, double = spectrum.to(torch.complex128), window.double()
    call: dict[str, Any] = {"n_fft": n_fft, "hop_length": hop}
    kept = (frames - 1) * hop + n_fft - 2 * (n_fft // 2)
    lengths = [length for length in (None, kept // 2, kept + 5) if length is None or length > 0]
    for length in lengths if kept > 0 else [3]:
        expected = native_istft(wide, window=double, length=length, **call)
        close(istft_of(spectrum, window, length=length, **call), expected, 5e-6)
    uncentred = native_istft(wide, window=double, center=False, **call)
    close(istft_of(spectrum, window, center=False, **call), uncentred, 5e-6)


def test_passes_add_infinities_up_without_a_word() -> None:
    # NumPy adds the passes, and would warn where infinities of both signs meet, or where a sum
    # becomes one; torch does not.
    arguments = {"n_fft": 512, "hop_length": 1, "onesided": False}
    spectrum = random_tensor(1, 1, 7, 512, complex_values=True)
    spectrum[..., 256] = complex("inf+infj")
    found = istft_of(spectrum.mT, torch.ones(512), **arguments)
    assert np.isnan(found).any()
    loud = torch.zeros_like(spectrum)
    loud[..., 0] = 3e38
    found = istft_of(loud.mT, torch.full((512,), 1.2e-3), **arguments)
    assert not np.isfinite(found).all()


@drawn(200)
@hypothesis.given(st.data())
def test_cut_covers_every_frame_once_in_order_within_bounds(data: Any) -> None:
    rows = data.draw(st.integers(1, 6))
    frames = data.draw(st.integers(1, 40) | st.integers(1, 10**6))
    n_fft = data.draw(st.integers(1, 40) | st.integers(1, 1 << 22))
    item = data.draw(st.sampled_from([4, 8]))
    streams = data.draw(st.integers(1, 8))
    halo = data.draw(st.integers(0, 15))
    cut = cut_frames(rows, frames, n_fft, item, streams, halo)
    assert 1 <= len(cut.shares) <= streams
    at = 0
    for share in (share for shares in cut.shares for share in shares):
        assert share.row * frames + share.first == at
        assert share.first < share.last <= frames
        at += share.last - share.first
    assert at == rows * frames
    counts = [sum(share.last - share.first for share in shares) for shares in cut.shares]
    assert max(counts) - min(counts) <= 1
    frame_bytes = n_fft * item
    if len(cut.shares) > 1:
        assert rows * frames * frame_bytes >= len(cut.shares) * blocks.STREAM_BYTES
    assert 1 <= cut.block_frames <= rows * frames
    # One frame may be larger than any bound; a few frames for the vector lanes, too.
    slack = (1 + blocks.FRAME_MULTIPLE) * frame_bytes
    assert cut.block_frames * frame_bytes <= blocks.MAX_BLOCK_BYTES + slack
    assert 1 <= cut.depth <= blocks.MAX_DEPTH
    in_flight = 3 * cut.depth * cut.block_frames * frame_bytes
    assert in_flight <= blocks.FLIGHT_BYTES or cut.depth == 1


@pytest.mark.parametrize("n_fft", [16, 512, 2048, 65536])
def test_blocks_fill_the_vector_lanes_and_repeat_few_frames(n_fft: int) -> None:
    plain = cut_frames(1, 10**6, n_fft, 4, 1)
    assert plain.block_frames % blocks.FRAME_MULTIPLE == 0
    assert plain.block_frames * n_fft * 4 == MIB
    halo = 3
    inverse = cut_frames(1, 10**6, n_fft, 4, 1, halo=halo)
    assert (inverse.block_frames + halo) % blocks.FRAME_MULTIPLE == 0
    assert inverse.block_frames >= min(
        16 * halo, 2 * blocks.INVERSE_BLOCK_BYTES // (4 * n_fft) - blocks.FRAME_MULTIPLE
    )


def test_rows_meet_only_at_their_own_frames() -> None:
    cut = cut_frames(3, 5 * MIB // 400, 100, 4, 4)
    assert len(cut.shares) == 4
    for before, after in pairwise([share for shares in cut.shares for share in shares]):
        assert (after.row, after.first) in {(before.row, before.last), (before.row + 1, 0)}


def layouts(batch: torch.Tensor) -> dict[str, torch.Tensor]:
    """The same kind of values in every layout that torch can hand over."""
    other = torch.complex(batch, batch.flip(-1))
    return {
        "transposed": batch.t().contiguous().t(),
        "every second": batch.repeat_interleave(2, dim=1)[:, ::2],
        "offset": torch.cat([batch, batch], dim=1)[:, 7:-9],
        "expanded rows": batch[:1].expand(3, -1),
        "expanded samples": batch[:, :1].expand(-1, 300),
        "overlapping": batch.reshape(-1).as_strided((3, 200), (11, 1)),
        "negated": other.conj().imag,
        "conjugated": other.conj(),
        "conjugated and negated": torch._neg_view(other.conj()),
        "requires grad": batch.clone().requires_grad_(),
    }


SIGNAL_LAYOUTS = list(layouts(torch.zeros(2, 4000)))


@pytest.mark.parametrize("name", SIGNAL_LAYOUTS)
def test_spectra_of_every_layout(name: str) -> None:
    signal = layouts(random_tensor(0, 2, 4000))[name]
    window = torch.hann_window(32)
    got = stft_of(signal, window, n_fft=32, hop_length=11)
    close(got, native_stft(signal.detach(), window=window, n_fft=32, hop_length=11).mT)


def spectrum_layouts(spectrum: torch.Tensor) -> dict[str, torch.Tensor]:
    """(rows, bins, frames) in what native stft gives, and in whatever programs make of it."""
    rows, bins, frames = spectrum.shape
    return {
        "as stft gives it": spectrum.mT.contiguous().mT,
        "contiguous": spectrum.contiguous(),
        "rows innermost": spectrum.permute(1, 2, 0).contiguous().permute(2, 0, 1),
        "every second frame": spectrum.repeat_interleave(2, dim=2)[:, :, ::2],
        "every second bin": spectrum.repeat_interleave(2, dim=1)[:, ::2],
        "expanded rows": spectrum[:1].expand(rows, -1, -1),
        "expanded frames": spectrum[:, :, :1].expand(-1, -1, frames),
        "expanded bins": spectrum[:, :1].expand(-1, bins, -1),
        "conjugated": spectrum.mT.contiguous().mT.conj(),
        "negated": torch._neg_view(spectrum.mT.contiguous().mT),
        "conjugated and negated": torch._neg_view(spectrum.conj()),
        "requires grad": spectrum.clone().requires_grad_(),
    }


SPECTRUM_LAYOUTS = list(spectrum_layouts(torch.zeros(1, 1, 1, dtype=torch.complex64)))


@pytest.mark.parametrize("name", SPECTRUM_LAYOUTS)
@pytest.mark.parametrize("onesided", [True, False])
def test_signals_of_every_layout(name: str, onesided: bool) -> None:
    bins = 17 if onesided else 32
    spectrum = spectrum_layouts(random_tensor(0, 2, bins, 40, complex_values=True))[name]
    window = torch.hamming_window(32)
    call: dict[str, Any] = {"n_fft": 32, "hop_length": 9, "onesided": onesided}
    expected = native_istft(spectrum.detach(), window=window, **call)
    close(istft_of(spectrum, window, **call), expected, 5e-6)


def test_spectra_are_written_into_any_layout() -> None:
    signal, window = random_tensor(0, 2, 900), torch.hann_window(32)
    expected = stft_of(signal, window, n_fft=32)
    params = stft_params(signal, window, n_fft=32)
    out = np.zeros((params.bins, params.frames, params.rows), np.complex64).transpose(2, 1, 0)
    stft_blocks(runtime_of(1), params, host_view(signal), mlx_window(params, window), out)
    np.testing.assert_array_equal(out, expected)


def test_everything_behind_the_last_frame_is_zero() -> None:
    for hop in (8, 1):
        spectrum = random_tensor(0, 17, 6, complex_values=True)
        params = istft_params(spectrum, None, n_fft=32, hop_length=hop, length=200)
        out = istft_of(spectrum, None, n_fft=32, hop_length=hop, length=200)
        assert not out[:, params.kept :].any()
        assert np.isfinite(out).all()


def test_every_operation_runs_on_the_runtime_s_streams() -> None:
    """MLX's default stream belongs to the user's program."""
    window = torch.hamming_window(32)
    signal = random_tensor(0, 2, 900)
    spectrum = random_tensor(1, 2, 17, 40, complex_values=True)
    with no_default_stream():
        for arguments in ({}, {"onesided": False}, {"pad_mode": "constant"}):
            stft_of(signal, window, n_fft=32, **arguments)
        for hop in (8, 5, 1):
            istft_of(spectrum, window, n_fft=32, hop_length=hop)


@pytest.mark.parametrize("op", ["stft", "istft"])
@pytest.mark.parametrize("hop", [512, 1000])
@pytest.mark.parametrize("streams", [1, 2])
def test_long_signals_take_no_more_memory_than_a_few_blocks(
    op: str, hop: int, streams: int
) -> None:
    """8 million samples make 64 to 128 MB of frames and spectra, of which little may live."""
    n_fft, samples = 1024, 8_000_000
    window, mx = torch.ones(n_fft), runtime().mx
    signal = torch.zeros(samples)
    spectrum = torch.zeros(n_fft // 2 + 1, samples // hop + 1, dtype=torch.complex64)
    mx.clear_cache()
    mx.reset_peak_memory()
    before = int(mx.get_active_memory())
    if op == "stft":
        stft_of(signal, window, streams, n_fft=n_fft, hop_length=hop)
    else:
        istft_of(spectrum, window, streams, n_fft=n_fft, hop_length=hop)
    assert int(mx.get_peak_memory()) - before <= 16 * MIB * streams
