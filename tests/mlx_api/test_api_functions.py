"""Derivatives of the MLX maps, and MLX's transformations of them, in blocks and lazily."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from mlx_cases import BLOCKS, LAZILY, PATHS, SIZES, close, computed, dot, doubled, noise

from torch_mlx_spectro import SpectralTransform
from torch_mlx_spectro.core.linear import Analysis
from torch_mlx_spectro.mlx_api.arguments import resolve_stft_call
from torch_mlx_spectro.mlx_api.functions import ARGUMENTS, get_map

MODES = ["reflect", "constant", "replicate", "circular"]
SAMPLES = 300


def torchs(transform: SpectralTransform, window: torch.Tensor) -> dict[str, Any]:
    return {
        "n_fft": transform.n_fft,
        "hop_length": transform.hop_length,
        "win_length": transform.win_length,
        "window": window,
        "normalized": transform.normalized,
        "onesided": transform.onesided,
    }


@PATHS
@pytest.mark.parametrize("sizes", SIZES[:-1])
@pytest.mark.parametrize("pad_mode", MODES)
@pytest.mark.parametrize("kind", ["real", "two-sided", "complex"])
def test_gradients_in_signal_and_window_are_torchs(
    work: int, sizes: tuple[int, ...], pad_mode: str, kind: str
) -> None:
    transform = SpectralTransform(
        *sizes, pad_mode=pad_mode, normalized=True, onesided=kind == "real"
    )
    signal = noise(1, 2, SAMPLES, kind=np.complex64 if kind == "complex" else np.float32)
    window = np.abs(noise(2, sizes[2])) + np.float32(0.5)
    shape = transform.stft(mx.array(signal)).shape
    cotangent = noise(3, *shape, kind=np.complex64)
    given, leaf = doubled(signal, requires_grad=True), doubled(window, requires_grad=True)
    spectrum = torch.stft(given, pad_mode=pad_mode, return_complex=True, **torchs(transform, leaf))
    spectrum.backward(doubled(cotangent))
    with computed(work) as seen:
        of_signal, of_window = mx.grad(
            lambda x, w: dot(cotangent, transform.with_window(w).stft(x)), argnums=(0, 1)
        )(mx.array(signal), mx.array(window))
    close(of_signal, given.grad)
    close(of_window, leaf.grad)
    assert list(dict.fromkeys(seen)) == (
        ["stft_blocks", "adjoint_blocks"] if work == BLOCKS else []
    )


@PATHS
@pytest.mark.parametrize("sizes", SIZES[:-1])
@pytest.mark.parametrize("kind", ["real", "two-sided", "complex"])
@pytest.mark.parametrize("is_constant", [True, False])
@pytest.mark.filterwarnings("ignore:The length of signal is shorter")
def test_gradients_of_istft_are_torchs(
    work: int, sizes: tuple[int, ...], kind: str, is_constant: bool
) -> None:
    n_fft, hop, win = sizes
    length = SAMPLES + 40 if win == n_fft else SAMPLES - 40
    transform = SpectralTransform(*sizes, normalized=True, onesided=kind == "real")
    bins, frames = n_fft // 2 + 1 if kind == "real" else n_fft, 1 + SAMPLES // hop
    spectrum = noise(4, 2, bins, frames, kind=np.complex64)
    window = np.abs(noise(5, win)) + np.float32(0.5)
    if is_constant:
        left = (n_fft - win) // 2
        window = np.array(transform.window)[left : left + win]
    given, leaf = doubled(spectrum, requires_grad=True), doubled(window, requires_grad=True)
    as_complex = kind == "complex"
    signal = torch.istft(given, length=length, return_complex=as_complex, **torchs(transform, leaf))
    cotangent = noise(6, 2, length, kind=np.complex64 if as_complex else np.float32)
    signal.backward(doubled(cotangent))

    def loss(z: Any, w: Any) -> Any:
        used = transform if is_constant else transform.with_window(w)
        return dot(cotangent, used.istft(z, length, return_complex=as_complex))

    with computed(work) as seen:
        of_spectrum, of_window = mx.grad(loss, argnums=(0, 1))(mx.array(spectrum), mx.array(window))
    close(of_spectrum, given.grad)
    if not is_constant:
        close(of_window, leaf.grad, 4e-6)
    forward = "istft_blocks" if is_constant else "adjoint_blocks"
    assert list(dict.fromkeys(seen)) == ([forward, "stft_blocks"] if work == BLOCKS else [])


@PATHS
@pytest.mark.parametrize("pad_mode", MODES)
def test_second_derivatives_and_forward_mode(work: int, pad_mode: str) -> None:
    transform = SpectralTransform(32, 8, pad_mode=pad_mode)
    signal, direction = mx.array(noise(7, 2, 100)), mx.array(noise(8, 2, 100))

    def energy(x: Any) -> Any:
        z = transform.stft(x)
        return mx.square(mx.square(mx.real(z)) + mx.square(mx.imag(z))).sum()

    def torchs_energy(x: torch.Tensor) -> torch.Tensor:
        window = doubled(transform.window)
        z = torch.stft(x, 32, 8, window=window, pad_mode=pad_mode, return_complex=True)
        return z.abs().square().square().sum()

    _, expected = torch.autograd.functional.vhp(torchs_energy, doubled(signal), doubled(direction))
    with computed(work):
        reverse = mx.grad(lambda x: (mx.grad(energy)(x) * direction).sum())(signal)
        close(reverse, expected, 4e-6)
        forward = mx.jvp(mx.grad(energy), [signal], [direction])[1][0]
        close(forward, expected, 4e-6)
        tangent = mx.jvp(transform.stft, [signal], [direction])[1][0]
        close(tangent, np.array(transform.stft(direction)))
        spectrum = transform.stft(signal)
        tangent = mx.jvp(lambda z: transform.istft(z, 100), [spectrum], [spectrum])[1][0]
        close(tangent, np.array(signal))


@PATHS
def test_both_arguments_of_each_map_have_tangents_and_second_derivatives(work: int) -> None:
    """A loss of signal and window mixes all three maps in its second derivatives."""
    transform = SpectralTransform(16, 4)
    signal, window = noise(9, 1, 60), np.abs(noise(10, 16)) + np.float32(0.5)

    def energy(x: Any, w: Any) -> Any:
        z = transform.with_window(w).stft(x)
        return mx.square(mx.square(mx.real(z)) + mx.square(mx.imag(z))).sum()

    def torchs_energy(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return torch.stft(x, 16, 4, window=w, return_complex=True).abs().square().square().sum()

    pair = (doubled(signal), doubled(window))
    directions = (noise(11, 1, 60), noise(12, 16))
    expected = torch.autograd.functional.vhp(torchs_energy, pair, tuple(map(doubled, directions)))[
        1
    ]

    def slope(x: Any, w: Any) -> Any:
        of_x, of_w = mx.grad(energy, argnums=(0, 1))(x, w)
        return (of_x * mx.array(directions[0])).sum() + (of_w * mx.array(directions[1])).sum()

    with computed(work):
        given = [mx.array(signal), mx.array(window)]
        for found, wanted in zip(mx.grad(slope, argnums=(0, 1))(*given), expected, strict=True):
            close(found, wanted, 4e-6)
        both = mx.grad(energy, argnums=(0, 1))
        tangents = mx.jvp(both, given, [mx.array(each) for each in directions])[1]
        for found, wanted in zip(tangents, expected, strict=True):
            close(found, wanted, 4e-6)


@PATHS
@pytest.mark.parametrize("kind", [np.float32, np.complex64])
@pytest.mark.parametrize("pad_mode", ["reflect", "constant"])
def test_vmap_and_compile_give_the_same_values(work: int, kind: type, pad_mode: str) -> None:
    transform = SpectralTransform(37, 5, 20, pad_mode=pad_mode, onesided=False)
    signal = mx.array(noise(13, 3, 150, kind=kind))
    as_complex = kind is np.complex64

    def back(z: Any) -> Any:
        return transform.istft(z, 120, return_complex=as_complex)

    with computed(work):
        spectrum = transform.stft(signal)
        cotangent = mx.array(noise(14, *spectrum.shape, kind=np.complex64))
        close(mx.vmap(transform.stft)(signal)[:, 0], np.array(spectrum))
        across = mx.vmap(transform.stft, in_axes=1, out_axes=2)(signal.T)
        close(across[0].transpose(1, 0, 2), np.array(spectrum))
        close(mx.vmap(back)(spectrum), np.array(back(spectrum)))
        close(mx.compile(transform.stft)(signal), np.array(spectrum))
        close(mx.compile(back)(spectrum), np.array(back(spectrum)))

        def loss(x: Any, c: Any) -> Any:
            return mx.real(mx.conj(c) * transform.stft(x)).sum()

        gradient = np.array(mx.grad(loss)(signal, cotangent))
        compiled = mx.compile(mx.grad(loss))
        for _ in range(2):
            close(compiled(signal, cotangent), gradient)
        each = mx.vmap(mx.grad(lambda x, c: loss(x, c[None])))(signal, cotangent)
        close(each, gradient)
        close(mx.grad(mx.compile(loss))(signal, cotangent), gradient)

        def through(x: Any) -> Any:
            return mx.square(mx.abs(back(transform.stft(x)))).sum()

        expected = np.array(mx.grad(through)(signal))
        compiled = mx.compile(mx.value_and_grad(through))
        for _ in range(2):  # what a compiled function keeps must not be computed memory
            close(compiled(signal)[1], expected)


@PATHS
def test_vmap_over_windows(work: int) -> None:
    transform = SpectralTransform(16, 4)
    signal, windows = mx.array(noise(15, 2, 60)), mx.array(np.abs(noise(16, 3, 16)) + 0.5)
    with computed(work):
        spectra = mx.vmap(lambda w: transform.with_window(w).stft(signal))(windows)
        signals = mx.vmap(lambda z, w: transform.with_window(w).istft(z, 60))(spectra, windows)
        both = mx.vmap(lambda x, w: transform.with_window(w).stft(x))(signals[:, 0], windows)
        for index in range(3):
            used = transform.with_window(windows[index])
            close(spectra[index], np.array(used.stft(signal)))
            close(signals[index], np.array(signal), 4e-6)
            close(both[index, 0], np.array(spectra[index, 0]), 4e-6)


@PATHS
@pytest.mark.parametrize("kind", ["real", "two-sided", "complex"])
def test_each_gradient_is_the_map_that_returns_its_argument(work: int, kind: str) -> None:
    """One function of three arguments, linear in each: every map is its gradient in one of them."""
    is_complex = kind == "complex"
    sizes = SpectralTransform(16, 5, pad_mode="reflect", onesided=kind == "real")._sizes
    analysis = Analysis(resolve_stft_call(sizes, 60, is_complex), is_complex, False)
    signal = noise(18, 2, 60, kind=np.complex64 if is_complex else np.float32)
    spectrum = noise(19, 2, analysis.params.frames, analysis.params.bins, kind=np.complex64)
    values = {"signal": signal, "window": noise(20, 16), "spectrum": spectrum}
    known = {name: mx.array(each) for name, each in values.items()}
    assert sorted(result for *_, result in ARGUMENTS.values()) == sorted(known)
    products = []
    with computed(work):
        for name, (first, second, result) in ARGUMENTS.items():
            function = get_map(name, analysis)
            assert get_map(name, analysis) is function
            given = [known[first], known[second]]
            outputs, gradients = mx.vjp(function, given, [known[result]])
            products.append(float(dot(values[result], outputs[0])))
            for argument, gradient in zip((first, second), gradients, strict=True):
                wanted = {**known, argument: None}
                other = next(each for each, (*_, got) in ARGUMENTS.items() if got == argument)
                close(
                    gradient,
                    np.array(get_map(other, analysis)(*map(wanted.get, ARGUMENTS[other][:2]))),
                )
            tangents = [mx.array(noise(21 + place, *x.shape)) for place, x in enumerate(given)]
            _, (tangent,) = mx.jvp(function, given, tangents)
            parts = function(tangents[0], given[1]) + function(given[0], tangents[1])
            close(tangent, np.array(parts), 4e-6)
    np.testing.assert_allclose(products, products[0], rtol=1e-4)


def test_what_reads_values_refuses_to_be_traced() -> None:
    transform = SpectralTransform(16, 4)
    spectrum = mx.array(noise(17, 1, 9, 12, kind=np.complex64))
    for call in (
        lambda w: transform.with_window(w).istft(spectrum, torch_like=True),
        lambda w: transform.istft(spectrum * w[0], validate=True),
    ):
        with computed(LAZILY), pytest.raises(ValueError, match="being traced"):
            mx.compile(call)(mx.ones(16))
