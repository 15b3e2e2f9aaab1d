"""MLX's own stft and istft against SpectralTransform: values, arguments, gradients."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_cases import close, noise

from torch_mlx_spectro import SpectralTransform

pytestmark = pytest.mark.skipif(
    not hasattr(mx.fft, "stft"), reason="mx.fft.stft came with MLX 0.32"
)

#: MLX's names of the paddings that both have.
PADDINGS = {"reflect": "reflect", "constant": "constant", "replicate": "edge"}


@st.composite
def calls(draw: st.DrawFn) -> tuple[SpectralTransform, dict[str, Any]]:
    """A transform, and the same arguments for MLX's functions."""
    n_fft = draw(st.sampled_from([8, 16, 30, 64, 101, 256]))
    hop, win = draw(st.integers(1, n_fft)), draw(st.integers(max(1, n_fft // 2), n_fft))
    window = draw(st.sampled_from(["hamming", "boxcar", ("kaiser", 6.0)]))
    mode, normalized = draw(st.sampled_from(sorted(PADDINGS))), draw(st.booleans())
    center, onesided = draw(st.booleans()), draw(st.booleans())
    transform = SpectralTransform(
        n_fft,
        hop,
        win,
        window,
        center=center,
        pad_mode=mode,
        normalized=normalized,
        onesided=onesided,
    )
    same = {
        "n_fft": n_fft,
        "hop_length": hop,
        "window": transform.window,
        "center": center,
        "norm": "ortho" if normalized else "backward",
        "onesided": onesided,
    }
    return transform, same | {"pad_mode": PADDINGS[mode]}


@settings(max_examples=150)
@given(calls(), st.integers(0, 99), st.integers(300, 700))
def test_stfts_are_the_same(
    call: tuple[SpectralTransform, dict[str, Any]], seed: int, samples: int
) -> None:
    transform, same = call
    signal = mx.array(noise(seed, 2, samples))
    close(transform.stft(signal), np.array(mx.fft.stft(signal, **same)), 4e-6)


@pytest.mark.filterwarnings("ignore:istft. the window overlap-add envelope:RuntimeWarning")
@settings(max_examples=150)
@given(calls(), st.integers(0, 99))
def test_istfts_are_the_same_where_frames_overlap(
    call: tuple[SpectralTransform, dict[str, Any]], seed: int
) -> None:
    transform, same = call
    same = {name: value for name, value in same.items() if name != "pad_mode"}
    if transform.hop_length * 2 > transform.win_length:
        return  # what MLX divides by where little or nothing overlaps is its own affair
    signal = mx.array(noise(seed, 2, 600))
    spectrum = transform.stft(signal)
    expected = np.array(mx.fft.istft(spectrum, **same))
    found = np.array(transform.istft(spectrum))
    assert found.shape == expected.shape
    # The first and last samples of what is not centred are divided by an envelope near zero.
    inner = slice(transform.n_fft, found.shape[1] - transform.n_fft)
    close(found[:, inner], expected[:, inner], 2e-5)


@settings(max_examples=40)
@given(calls(), st.integers(0, 99))
def test_gradients_are_the_same(call: tuple[SpectralTransform, dict[str, Any]], seed: int) -> None:
    transform, same = call
    signal = mx.array(noise(seed, 1, 400))
    kept = mx.array(noise(seed + 1, *transform.stft(signal).shape, kind=np.complex64))

    def loss(stft: Any) -> Any:
        return lambda x: mx.real(stft(x) * kept).sum()

    found = mx.grad(loss(transform.stft))(signal)
    expected = mx.grad(loss(lambda x: mx.fft.stft(x, **same)))(signal)
    close(found, np.array(expected), 2e-5)
