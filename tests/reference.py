"""Definitions of both transforms in double precision, and helpers shared by the unit tests.

Everything here is written as the sums of the definitions, without an FFT of torch's or MLX's, so
that agreement with it is agreement with the mathematics.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import hypothesis
import numpy as np
import numpy.typing as npt
import torch

from torch_mlx_spectro.core.params import (
    IstftParams,
    StftParams,
    TensorFacts,
    resolve_istft,
    resolve_stft,
)
from torch_mlx_spectro.mlx.runtime import Runtime, runtime
from torch_mlx_spectro.native import functions as native

Array = npt.NDArray[Any]

#: Rounding of float32 transforms of a few hundred values, relative to the largest result.
TOLERANCE = 2e-6

_SUPPRESSED = [
    hypothesis.HealthCheck.function_scoped_fixture,
    hypothesis.HealthCheck.too_slow,
    hypothesis.HealthCheck.filter_too_much,
]


def drawn(examples: int) -> Any:
    """Hypothesis settings: that many examples, no wall time asserted, the same on every run."""
    return hypothesis.settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=_SUPPRESSED,
    )


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def random_array(seed: int, *shape: int, complex_values: bool = False) -> Array:
    """Standard normal values, float32 or complex64."""
    values = rng(seed).standard_normal(shape)
    if complex_values:
        return (values + 1j * rng(seed + 1).standard_normal(shape)).astype(np.complex64)
    return values.astype(np.float32)


def random_tensor(seed: int, *shape: int, complex_values: bool = False) -> torch.Tensor:
    return torch.from_numpy(random_array(seed, *shape, complex_values=complex_values))


def facts(tensor: torch.Tensor | None) -> Any:
    return None if tensor is None else TensorFacts(tuple(tensor.shape), tensor.is_complex())


def stft_params(signal: torch.Tensor, window: torch.Tensor | None, **arguments: Any) -> StftParams:
    """Resolve a call of stft that returns complex values unless told otherwise."""
    arguments.setdefault("return_complex", True)
    return resolve_stft(facts(signal), window=facts(window), **arguments)


def istft_params(
    spectrum: torch.Tensor, window: torch.Tensor | None, **arguments: Any
) -> IstftParams:
    return resolve_istft(facts(spectrum), window=facts(window), **arguments)


def native_call(function: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> torch.Tensor:
    """Call native torch and ignore what it warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args, **kwargs)


def native_stft(signal: torch.Tensor, **arguments: Any) -> torch.Tensor:
    arguments.setdefault("return_complex", True)
    return native_call(native.stft, signal, **arguments)


def native_istft(spectrum: torch.Tensor, **arguments: Any) -> torch.Tensor:
    return native_call(native.istft, spectrum, **arguments)


def dft_matrix(n_fft: int) -> Array:
    """``exp(-2 pi i k m / n)`` for k and m in ``0 ... n - 1``."""
    index = np.arange(n_fft)
    # The product is reduced modulo n before it becomes an angle: exact for any size.
    return np.exp(-2j * np.pi * (np.outer(index, index) % n_fft) / n_fft)


def direct_stft(samples: Array, window: Array | None, frames: int, hop: int, n_fft: int) -> Array:
    """``X[..., t, k] = sum_m w[m] x[..., t hop + m] exp(-2 pi i k m / n)``, all bins."""
    cut = np.stack([samples[..., t * hop : t * hop + n_fft] for t in range(frames)], axis=-2)
    wide = cut.astype(np.complex128)
    return (wide if window is None else wide * window) @ dft_matrix(n_fft).T


def direct_envelope(window: Array, frames: int, hop: int) -> Array:
    """Overlap-added square of ``window``, one sample at a time."""
    wide = np.complex128 if np.iscomplexobj(window) else np.float64
    total = np.zeros(hop * (frames - 1) + len(window), wide)
    for frame in range(frames):
        for m, value in enumerate(window):
            total[frame * hop + m] += wide(value) ** 2
    return total


def close(actual: Any, expected: Any, tolerance: float = TOLERANCE) -> None:
    """Assert equal shapes, and values equal within ``tolerance`` of the largest one."""
    got, wanted = np.asarray(actual), np.asarray(expected)
    assert got.shape == wanted.shape
    scale = max(1e-30, float(np.max(np.abs(wanted), initial=0.0)))
    worst = float(np.max(np.abs(got - wanted), initial=0.0))
    assert worst <= tolerance * scale, f"off by {worst / scale:.3g} of the largest value"


def runtime_of(streams: int) -> Runtime:
    """A runtime of that many CPU streams, whatever the machine has; few are ever made."""
    while len(_streams) < streams:
        _streams.append(runtime().mx.new_thread_unsafe_stream(runtime().mx.cpu))
    return Runtime(runtime().mx, tuple(_streams[:streams]), threading.Lock())


_streams: list[Any] = []


@contextmanager
def no_default_stream() -> Iterator[None]:
    """Let every MLX operation fail that is not given a stream.

    The default stream is made another thread's, which MLX refuses to evaluate here.
    """
    mx = runtime().mx
    if not _foreign:
        thread = threading.Thread(target=lambda: _foreign.append(mx.new_stream(mx.cpu)))
        thread.start()
        thread.join()
    before = mx.default_device(), mx.default_stream(mx.cpu)
    with mx.stream(_foreign[0]):
        yield
        # The code under test has not set it back either.
        assert mx.default_stream(mx.cpu) == _foreign[0]
    assert (mx.default_device(), mx.default_stream(mx.cpu)) == before


_foreign: list[Any] = []
