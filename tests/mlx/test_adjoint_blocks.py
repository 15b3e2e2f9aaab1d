"""The adjoint in blocks against the transposed matrix of the analysis, entry by entry."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from torch_mlx_spectro.core.linear import Analysis
from torch_mlx_spectro.mlx.blocks import adjoint_blocks
from torch_mlx_spectro.mlx.host import HostView
from torch_mlx_spectro.mlx.runtime import runtime
from torch_mlx_spectro.mlx_api.arguments import Sizes, resolve_stft_call

MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
N_FFT, HOP, SAMPLES = 8, 3, 11


def build_matrix(pad_mode: str, onesided: bool, window: np.ndarray, dtype: type) -> np.ndarray:
    """The matrix of an analysis, shape (frames, bins, samples), in double precision."""
    columns = []
    for unit in np.eye(SAMPLES, dtype=dtype):
        padded = np.pad(unit, N_FFT // 2, mode=MODES[pad_mode])  # type: ignore[call-overload]
        frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP] * window
        columns.append(np.fft.rfft(frames) if onesided else np.fft.fft(frames))
    return np.stack(columns, axis=-1)


@pytest.mark.parametrize("pad_mode", MODES)
@pytest.mark.parametrize("kind", ["onesided", "both halves", "complex"])
@pytest.mark.parametrize("edge", [1.0, 0.5])
def test_it_is_the_transposed_analysis(pad_mode: str, kind: str, edge: float) -> None:
    onesided, is_complex = kind == "onesided", kind == "complex"
    sizes = Sizes.resolve(
        N_FFT,
        HOP,
        None,
        center=True,
        pad_mode=pad_mode,
        tail_pad="symmetric",
        normalized=False,
        onesided=onesided,
    )
    params = resolve_stft_call(sizes, SAMPLES, is_complex)
    analysis = Analysis(params, is_complex, False, edge=edge if onesided else 1.0).with_rows(2)
    generator = np.random.default_rng(1)
    window = generator.standard_normal(N_FFT).astype(np.float32)
    shape = (2, params.frames, params.bins)
    spectrum = generator.standard_normal(shape) + 1j * generator.standard_normal(shape)
    spectrum = spectrum.astype(np.complex64)
    found = np.full((2, SAMPLES), np.nan, np.complex64 if is_complex else np.float32)
    scaled = mx.array(window * np.float32(analysis.inverse_scale))
    adjoint_blocks(runtime(), analysis, HostView(spectrum, False, False), scaled, found)
    matrix = build_matrix(pad_mode, onesided, window.astype(np.float64), np.float64)
    if onesided:
        matrix[:, [0, -1]] *= edge
    expected = np.einsum("fbs,rfb->rs", matrix.conj(), spectrum.astype(np.complex128))
    np.testing.assert_allclose(found, expected if is_complex else expected.real, atol=2e-5)
