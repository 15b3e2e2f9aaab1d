"""Features against torchaudio's definitions, written down again in numpy and float64."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from mlx_cases import close, doubled, noise

from torch_mlx_spectro import MFCC, GriffinLim, MelSpectrogram, Spectrogram
from torch_mlx_spectro.mlx_api.features import dct_matrix, decibels, magnitude, mel_filters


def torchs(x: Any, n_fft: int, hop: int, win: int, **more: Any) -> np.ndarray:
    window = torch.hann_window(win, dtype=torch.float64)
    spectrum = torch.stft(doubled(x), n_fft, hop, win, window, return_complex=True, **more)
    return spectrum.numpy()


@pytest.mark.parametrize("power", [None, 1.0, 2.0, 3.0, 0.5])
def test_spectrogram(power: float | None) -> None:
    signal = noise(1, 2, 500)
    found = Spectrogram(64, 50, power=power)(mx.array(signal))
    spectrum = torchs(signal, 64, 25, 50)  # the hop is half of the window
    close(found, spectrum if power is None else np.abs(spectrum) ** power, 4e-6)


def test_spectrogram_pads_and_normalises() -> None:
    signal = noise(2, 500)
    spectrum = torchs(np.pad(signal, 7), 64, 32, 64, pad_mode="constant")
    window = torch.hann_window(64, dtype=torch.float64).numpy()
    norm = np.sqrt(np.sum(window**2))
    for normalized, factor in ((True, norm), ("window", norm), ("frame_length", 8), (False, 1)):
        transform = Spectrogram(64, pad=7, power=1.0, normalized=normalized, pad_mode="constant")
        close(transform(mx.array(signal)), np.abs(spectrum) / factor)
    with pytest.raises(ValueError, match="normalized"):
        Spectrogram(64, normalized="norm")
    with pytest.raises(ValueError, match="pad must be"):
        Spectrogram(64, pad=-1)


def mel_of(hertz: Any, scale: str) -> Any:
    if scale == "htk":
        return 2595 * np.log10(1 + np.asarray(hertz) / 700)
    hertz = np.asarray(hertz, np.float64)
    above = 15 + np.log(np.maximum(hertz, 1000) / 1000) * 27 / np.log(6.4)
    return np.where(hertz < 1000, hertz * 3 / 200, above)


def filters_of(bins: int, low: float, high: float, n_mels: int, rate: int, scale: str) -> Any:
    """Each triangle by interpolation between its corners, found by inverting the scale."""
    grid = np.linspace(0, rate / 2, 400_001)
    mels = mel_of(grid, scale)
    corners = np.interp(
        np.linspace(mel_of(low, scale), mel_of(high, scale), n_mels + 2), mels, grid
    )
    at = np.linspace(0, rate / 2, bins)
    triangles = [np.interp(at, corners[m : m + 3], [0, 1, 0]) for m in range(n_mels)]
    return np.stack(triangles, axis=1), corners


@pytest.mark.parametrize("scale", ["htk", "slaney"])
@pytest.mark.parametrize("norm", [None, "slaney"])
@pytest.mark.parametrize(("low", "high"), [(0.0, 8000.0), (300.0, 5000.0)])
def test_mel_filters(scale: str, norm: str | None, low: float, high: float) -> None:
    expected, corners = filters_of(257, low, high, 20, 16000, scale)
    if norm:
        expected = expected * 2 / (corners[2:] - corners[:-2])
    found = mel_filters(257, low, high, 20, 16000, norm, scale)
    np.testing.assert_allclose(found, expected, atol=1e-5 * expected.max())


def test_mel_filters_say_what_does_not_fit() -> None:
    with pytest.warns(UserWarning, match="of 128 mel bands some have no bin of 65"):
        mel_filters(65, 0.0, 8000.0, 128, 16000, None, "htk")
    for change, match in (({"norm": "l2"}, "norm"), ({"mel_scale": "bark"}, "mel_scale")):
        call = {"norm": None, "mel_scale": "htk", **change}
        with pytest.raises(ValueError, match=match):
            mel_filters(65, 0.0, 8000.0, 8, 16000, **call)
    with pytest.raises(ValueError, match="f_min"):
        mel_filters(65, 9000.0, 8000.0, 8, 16000, None, "htk")


@pytest.mark.parametrize("norm", ["ortho", None])
def test_cosine_transform(norm: str | None) -> None:
    found = dct_matrix(13, 40, norm)
    for k, m in ((0, 0), (1, 7), (12, 39)):
        value = np.cos(np.pi * k * (m + 0.5) / 40)
        scale = 2.0 if norm is None else np.sqrt((1 if k == 0 else 2) / 40)
        assert found[k, m] == pytest.approx(scale * value, abs=1e-12)
    if norm:
        whole = dct_matrix(40, 40, norm)
        np.testing.assert_allclose(whole @ whole.T, np.eye(40), atol=1e-12)
    with pytest.raises(ValueError, match="norm"):
        dct_matrix(13, 40, "l2")


@pytest.mark.parametrize("log_mels", [False, True])
def test_mel_spectrogram_and_mfcc(log_mels: bool) -> None:
    signal = noise(3, 2, 3000) * 0.1
    options = {"n_fft": 400, "hop_length": 160, "n_mels": 23, "f_min": 20.0}
    power = np.abs(torchs(signal, 400, 160, 400)) ** 2
    filters, _ = filters_of(201, 20.0, 8000.0, 23, 16000, "htk")
    mel = filters.T @ power
    close(MelSpectrogram(**options)(mx.array(signal)), mel, 2e-5)
    levels = np.log(mel + 1e-6) if log_mels else 10 * np.log10(np.maximum(mel, 1e-10))
    if not log_mels:
        levels = np.maximum(levels, levels.max() - 80)
    expected = dct_matrix(13, 23, "ortho") @ levels
    found = MFCC(n_mfcc=13, log_mels=log_mels, melkwargs=options)(mx.array(signal))
    close(found, expected, 2e-5)
    with pytest.raises(ValueError, match=r"n_mfcc \(24\) must be <= n_mels \(23\)"):
        MFCC(n_mfcc=24, melkwargs=options)
    with pytest.raises(ValueError, match="dct_type"):
        MFCC(dct_type=3)


def test_decibels_are_cut_below_the_loudest_of_the_last_three_dimensions() -> None:
    power = np.array([1.0, 1e-3, 1e-9, 0.0]).reshape(2, 1, 1, 2)
    found = np.array(decibels(mx.array(power.astype(np.float32)), 60.0)).ravel()
    # torchaudio packs (channel, bins, frames): each of the first dimension has its own maximum.
    np.testing.assert_allclose(found, [0, -30, -90, -100], atol=1e-4)
    found = np.array(decibels(mx.array(power.astype(np.float32)[:, 0]), 60.0)).ravel()
    np.testing.assert_allclose(found, [0, -30, -60, -60], atol=1e-4)
    assert float(decibels(mx.array(1e-20), None)) == pytest.approx(-100)


def griffin_and_lim(power: Any, n_iter: int, momentum: float, length: int | None) -> Any:
    window = torch.hann_window(64, dtype=torch.float64)
    size = doubled(power).sqrt()
    phases, before = torch.ones_like(size, dtype=torch.complex128), 0.0
    alpha = momentum / (1 + momentum)
    for _ in range(n_iter):
        signal = torch.istft(size * phases, 64, 32, window=window, length=length)
        rebuilt = torch.stft(signal, 64, 32, window=window, return_complex=True)
        phases = rebuilt - alpha * before
        phases = phases / (phases.abs() + 1e-16)
        before = rebuilt
    return torch.istft(size * phases, 64, 32, window=window, length=length)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("length", [None, 800])
def test_griffin_and_lim(momentum: float, length: int | None) -> None:
    power = np.abs(torchs(noise(4, 2, 800), 64, 32, 64)) ** 2
    transform = GriffinLim(64, 5, momentum=momentum, length=length, rand_init=False)
    found = transform(mx.array(power.astype(np.float32)))
    # Phases of weak bins turn by rounding, so the values are compared as signals are.
    expected = griffin_and_lim(power, 5, momentum, length).numpy()
    assert found.shape == expected.shape
    error = np.linalg.norm(np.array(found) - expected) / np.linalg.norm(expected)
    assert error < 1e-3


def test_random_phases_are_drawn_from_the_key_and_converge() -> None:
    power = np.abs(torchs(noise(5, 800), 64, 32, 64)) ** 2
    given = mx.array(power.astype(np.float32))

    def error(iterations: int, key: int) -> tuple[float, Any]:
        signal = GriffinLim(64, iterations, momentum=0.5, length=800)(given, mx.random.key(key))
        rebuilt = Spectrogram(64)(signal)
        return float(mx.linalg.norm(mx.sqrt(rebuilt) - mx.sqrt(given))), np.array(signal)

    few, first = error(1, 0)
    many, again = error(30, 0)
    assert many < 0.7 * few
    np.testing.assert_array_equal(first, error(1, 0)[1])
    assert not np.array_equal(again, error(30, 1)[1])
    for momentum in (-0.1, 1.0):
        with pytest.raises(ValueError, match="momentum"):
            GriffinLim(64, momentum=momentum)


def test_features_are_differentiated_vectorised_and_compiled() -> None:
    signal = mx.array(noise(6, 3, 900))
    options = {"n_fft": 64, "n_mels": 8}
    lim = GriffinLim(64, 2, rand_init=False, length=900)
    for transform in (
        Spectrogram(64),
        MelSpectrogram(**options),
        MFCC(n_mfcc=5, log_mels=True, melkwargs=options),
        lambda x: lim(Spectrogram(64)(x) + 0.1),
    ):
        expected = np.array(transform(signal))
        close(mx.vmap(transform)(signal), expected, 1e-5)
        close(mx.compile(transform)(signal), expected, 1e-5)
        gradient = np.array(mx.grad(lambda x, f=transform: mx.square(f(x)).sum())(signal))
        assert np.isfinite(gradient).all()
        step = np.float32(1e-3) * gradient / np.linalg.norm(gradient)
        values = [
            float(
                np.sum(np.square(np.array(transform(signal + sign * mx.array(step)), np.float64)))
            )
            for sign in (1, -1)
        ]
        slope = (values[0] - values[1]) / 2e-3
        assert slope == pytest.approx(np.linalg.norm(gradient), rel=2e-2)


def test_the_square_has_a_gradient_where_the_spectrum_is_zero() -> None:
    gradient = mx.grad(lambda x: magnitude(x * (1 + 0j), 2.0).sum())(mx.zeros(3))
    assert gradient.tolist() == [0.0, 0.0, 0.0]


def test_a_window_that_is_set_is_what_spectra_are_divided_by() -> None:
    made = Spectrogram(32, hop_length=8, power=None, normalized="window")
    signal = mx.array(np.random.default_rng(0).standard_normal(300).astype(np.float32))
    mx.eval(made(signal))
    window = np.linspace(1, 2, 32, dtype=np.float32)
    made.transform.window = window
    expected = np.array(made.transform.stft(signal)) / np.linalg.norm(window.astype(np.float64))
    for same in (made, copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        np.testing.assert_allclose(np.array(same(signal)), expected, rtol=1e-5, atol=1e-5)
