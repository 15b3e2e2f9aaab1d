"""Mel, MFCC and Griffin-Lim against torchaudio's and librosa's own, on drawn arguments."""

from __future__ import annotations

import warnings
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_cases import close, noise

from torch_mlx_spectro import MFCC, GriffinLim, MelSpectrogram
from torch_mlx_spectro.mlx_api.features import mel_filters


def import_transforms() -> Any:
    """Import torchaudio's transforms; skip where there are none that go with this torch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("torchaudio.transforms", exc_type=(ImportError, OSError))


@st.composite
def mel_arguments(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments that both have; edge cases are as likely as others."""
    n_fft = draw(st.sampled_from([16, 64, 101, 400, 512]))
    rate = draw(st.sampled_from([8000, 16000, 22050, 44101]))
    low = draw(st.sampled_from([0.0, 20.0, 700.0]))
    return {
        "sample_rate": rate,
        "n_fft": n_fft,
        "win_length": draw(st.none() | st.integers(n_fft // 2 + 1, n_fft)),
        "hop_length": draw(st.none() | st.integers(1, n_fft)),
        "f_min": low,
        "f_max": draw(st.none() | st.sampled_from([low + 1000.0, rate / 2, float(rate)])),
        "pad": draw(st.sampled_from([0, 1, 33])),
        "n_mels": draw(st.sampled_from([1, 2, 13, 40, 128])),
        "power": draw(st.sampled_from([1.0, 2.0, 0.5])),
        "normalized": draw(st.booleans()),
        "center": draw(st.booleans()),
        "pad_mode": draw(st.sampled_from(["reflect", "constant", "replicate", "circular"])),
        "norm": draw(st.sampled_from([None, "slaney"])),
        "mel_scale": draw(st.sampled_from(["htk", "slaney"])),
    }


@pytest.mark.filterwarnings("ignore:.*mel:UserWarning", "ignore::DeprecationWarning")
@settings(max_examples=100)
@given(mel_arguments(), st.integers(0, 99), st.sampled_from([(700,), (2, 900), (2, 1, 801)]))
def test_mel_spectrograms_are_torchaudios(
    given: dict[str, Any], seed: int, shape: tuple[int, ...]
) -> None:
    theirs = import_transforms().MelSpectrogram(**given)
    signal = noise(seed, *shape)
    expected = theirs(torch.from_numpy(signal)).numpy()
    # torchaudio's filters are of single precision: where bands are narrow the slopes lose digits.
    close(MelSpectrogram(**given)(mx.array(signal)), expected, 1e-3)


@pytest.mark.filterwarnings("ignore:.*mel:UserWarning", "ignore::DeprecationWarning")
@settings(max_examples=60)
@given(
    mel_arguments(),
    st.sampled_from(["ortho", None]),
    st.booleans(),
    st.integers(0, 99),
    st.data(),
)
def test_mfccs_are_torchaudios(
    given: dict[str, Any], norm: str | None, log_mels: bool, seed: int, data: st.DataObject
) -> None:
    rate = given.pop("sample_rate")
    # Bands without a bin have levels that rounding decides: they are left out.
    given |= {"n_fft": 400, "win_length": None, "f_min": 0.0, "f_max": None}
    given["n_mels"] = min(given["n_mels"], 13)
    count = data.draw(st.integers(1, given["n_mels"]))
    arguments: dict[str, Any] = {
        "sample_rate": rate,
        "n_mfcc": count,
        "norm": norm,
        "log_mels": log_mels,
        "melkwargs": given,
    }
    signal = noise(seed, 2, 900)
    expected = import_transforms().MFCC(**arguments)(torch.from_numpy(signal)).numpy()
    close(MFCC(**arguments)(mx.array(signal)), expected, 1e-3)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@settings(max_examples=30)
@given(
    st.sampled_from([(64, 16), (64, 32), (100, 25)]),
    st.sampled_from([1.0, 2.0]),
    st.sampled_from([0.0, 0.5, 0.99]),
    st.sampled_from([None, 0, 3]),
    st.integers(0, 4),
)
def test_griffin_and_lim_are_torchaudios(
    sizes: tuple[int, int], power: float, momentum: float, more: int | None, n_iter: int
) -> None:
    n_fft, hop = sizes
    length = None if more is None else 29 * hop + more  # of as many frames as are given
    shared: dict[str, Any] = {
        "n_fft": n_fft,
        "n_iter": n_iter,
        "hop_length": hop,
        "power": power,
        "momentum": momentum,
        "length": length,
        "rand_init": False,
    }
    size = np.abs(noise(3, 2, n_fft // 2 + 1, 30)) + np.float32(0.1)
    expected = import_transforms().GriffinLim(**shared)(torch.from_numpy(size)).numpy()
    found = np.array(GriffinLim(**shared)(mx.array(size)))
    assert found.shape == expected.shape
    # Phases of weak bins turn by rounding, so the values are compared as signals are.
    assert np.linalg.norm(found - expected) <= 2e-3 * np.linalg.norm(expected)


@pytest.mark.filterwarnings("ignore:.*mel:UserWarning")
@settings(max_examples=100)
@given(
    st.sampled_from([16, 64, 101, 400, 2048]),
    st.sampled_from([8000, 16000, 22050]),
    st.sampled_from([1, 2, 13, 40, 128]),
    st.sampled_from([0.0, 20.0, 700.0]),
    st.sampled_from([None, "slaney"]),
    st.sampled_from(["htk", "slaney"]),
)
def test_filters_are_librosas(
    n_fft: int, rate: int, n_mels: int, low: float, norm: str | None, scale: str
) -> None:
    filters = pytest.importorskip("librosa.filters")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = filters.mel(
            sr=rate,
            n_fft=n_fft,
            n_mels=n_mels,
            fmin=low,
            fmax=rate / 2,
            htk=scale == "htk",
            norm=norm,
            dtype=np.float64,
        )
    if n_fft % 2:
        return  # librosa's bins of an odd size end below half of the rate, torchaudio's at it
    found = mel_filters(n_fft // 2 + 1, low, rate / 2, n_mels, rate, norm, scale)
    np.testing.assert_allclose(found.T, expected, rtol=1e-9, atol=1e-12)
