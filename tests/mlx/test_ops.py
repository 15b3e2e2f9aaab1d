"""The linear maps against their sums in double precision, and the stream that they run on."""

from __future__ import annotations

from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from reference import (
    Array,
    close,
    direct_stft,
    drawn,
    no_default_stream,
    random_array,
)

from torch_mlx_spectro.mlx import ops as maps
from torch_mlx_spectro.mlx.runtime import runtime

#: Powers of two, primes (Bluestein's algorithm), products, and the smallest there are.
SIZES = [1, 2, 3, 4, 8, 17, 60, 97]


@pytest.fixture(scope="module")
def mx() -> Any:
    return runtime().mx


@pytest.fixture(scope="module")
def stream() -> Any:
    return runtime().streams[0]


def analysed(
    mx: Any,
    stream: Any,
    samples: Array,
    window: Array | None,
    frames: int,
    n_fft: int,
    hop: int,
    onesided: bool = False,
) -> Array:
    complex_fft = np.iscomplexobj(samples) or (window is not None and np.iscomplexobj(window))
    framed = np.lib.stride_tricks.sliding_window_view(samples, n_fft, axis=-1)
    result = maps.compute_spectra(
        mx,
        mx.array(np.ascontiguousarray(framed[..., ::hop, :][..., :frames, :])),
        None if window is None else mx.array(window),
        n_fft=n_fft,
        onesided=onesided,
        complex_fft=complex_fft,
        stream=stream,
    )
    mx.eval(result)
    return np.array(result)


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
@pytest.mark.parametrize("n_fft", SIZES)
def test_analysis_is_the_sum_that_defines_it(
    mx: Any, stream: Any, n_fft: int, lead: tuple[int, ...]
) -> None:
    hop, frames = max(1, n_fft // 3), 5
    # Some samples beyond the last frame, so that rows are longer than what frames need.
    length = (frames - 1) * hop + n_fft + 2
    for complex_samples, complex_window in [(False, False), (True, False), (False, True)]:
        samples = random_array(0, *lead, length, complex_values=complex_samples)
        window = random_array(7, n_fft, complex_values=complex_window)
        expected = direct_stft(samples, window, frames, hop, n_fft)
        close(analysed(mx, stream, samples, window, frames, n_fft, hop), expected)
        bare = analysed(mx, stream, samples, None, frames, n_fft, hop)
        close(bare, direct_stft(samples, None, frames, hop, n_fft))
        if not (complex_samples or complex_window):
            half = analysed(mx, stream, samples, window, frames, n_fft, hop, onesided=True)
            close(half, expected[..., : n_fft // 2 + 1])


@drawn(60)
@hypothesis.given(st.data())
def test_analysis_of_any_hop(data: Any) -> None:
    n_fft = data.draw(st.integers(1, 40))
    hop, frames = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 6))
    lead = data.draw(st.sampled_from([(), (2,), (1, 3)]))
    samples = random_array(1, *lead, (frames - 1) * hop + n_fft + data.draw(st.integers(0, 5)))
    window = random_array(2, n_fft)
    result = analysed(runtime().mx, runtime().streams[0], samples, window, frames, n_fft, hop)
    close(result, direct_stft(samples, window, frames, hop, n_fft))


@pytest.mark.parametrize("n_fft", SIZES)
def test_two_sided_is_the_conjugate_mirror(mx: Any, stream: Any, n_fft: int) -> None:
    full = np.fft.fft(random_array(0, 3, n_fft)).astype(np.complex64)
    result = maps.mirror_bins(mx, mx.array(full[:, : n_fft // 2 + 1]), n_fft, stream)
    mx.eval(result)
    close(np.array(result), full)


@pytest.mark.parametrize("n_fft", SIZES)
@pytest.mark.parametrize("lead", [(4,), (2, 3)])
def test_windowed_frames_are_the_inverse_transform_times_the_window(
    mx: Any, stream: Any, n_fft: int, lead: tuple[int, ...]
) -> None:
    window = random_array(5, n_fft)
    spectrum = random_array(0, *lead, n_fft, complex_values=True)
    wide = spectrum.astype(np.complex128)
    result = maps.invert_spectra(mx, mx.array(spectrum), mx.array(window), n_fft, False, stream)
    mx.eval(result)
    close(np.array(result), np.fft.ifft(wide) * window)
    bins = n_fft // 2 + 1
    half = mx.array(np.ascontiguousarray(spectrum[..., :bins]))
    for given, factor in [(mx.array(window), window), (None, 1)]:
        real = maps.invert_spectra(mx, half, given, n_fft, True, stream)
        mx.eval(real)
        # numpy, too, ignores the imaginary parts of DC and Nyquist.
        close(np.array(real), np.fft.irfft(wide[..., :bins], n_fft) * factor)
        assert np.array(real).dtype == np.float32


def summed(frames: Array, hop: int) -> Array:
    """Hops covered by all their frames, added one frame at a time in double precision."""
    total, n_fft = frames.shape
    overlap = -(-n_fft // hop)
    wide = np.complex128 if np.iscomplexobj(frames) else np.float64
    added = np.zeros((total + overlap - 1) * hop, wide)
    for index, frame in enumerate(frames):
        added[index * hop : index * hop + n_fft] += frame
    return added.reshape(-1, hop)[overlap - 1 : total]


@drawn(120)
@hypothesis.given(st.data())
def test_overlap_add_is_the_sum_over_frames(data: Any) -> None:
    mx, stream = runtime().mx, runtime().streams[0]
    n_fft = data.draw(st.integers(1, 40))
    hop = data.draw(st.integers(1, n_fft))
    hops = data.draw(st.integers(1, 7))
    frames = random_array(
        0, hops + -(-n_fft // hop) - 1, n_fft, complex_values=data.draw(st.booleans())
    )
    result = maps.overlap_add(mx, mx.array(frames), hop, stream)
    mx.eval(result)
    close(np.array(result), summed(frames, hop), 5e-6)


@pytest.mark.parametrize(("n_fft", "hop"), [(8, 8), (8, 5), (8, 4), (9, 2), (16, 1), (1, 1)])
def test_overlap_add_of_lazy_frames(mx: Any, stream: Any, n_fft: int, hop: int) -> None:
    """The frames are a computation's result that is not yet there, as they are in use."""
    values = random_array(0, 9 + -(-n_fft // hop), n_fft)
    lazy = mx.multiply(mx.array(values), mx.array(np.float32(2)), stream=stream)
    result = maps.overlap_add(mx, lazy, hop, stream)
    mx.eval(result)
    close(np.array(result), 2 * summed(values, hop), 5e-6)


def test_sums_of_a_hop_do_not_depend_on_how_many_hops_there_are(mx: Any, stream: Any) -> None:
    """Otherwise the values would depend on how the work is cut into blocks."""
    frames = random_array(0, 30, 20)
    whole = np.array(maps.overlap_add(mx, mx.array(frames), 3, stream))
    for first in range(0, 24, 5):
        part = maps.overlap_add(mx, mx.array(frames[first : first + 6 + 2]), 3, stream)
        np.testing.assert_array_equal(np.array(part), whole[first : first + 2])


@pytest.mark.parametrize("n_fft", [1, 2, 7, 8])
def test_every_operation_runs_on_the_given_stream(mx: Any, stream: Any, n_fft: int) -> None:
    """MLX's default device and stream are the user's program's: an operation on them fails here."""
    hop = max(1, n_fft // 2)
    samples, window = random_array(0, 2, 50), random_array(1, n_fft)
    with no_default_stream():
        for onesided in (True, False):
            analysed(mx, stream, samples, window, 4, n_fft, hop, onesided)
        analysed(mx, stream, samples.astype(np.complex64), window, 4, n_fft, hop)
        spectrum = mx.array(random_array(2, 5, n_fft // 2 + 1, complex_values=True))
        frames = maps.invert_spectra(mx, spectrum, mx.array(window), n_fft, True, stream)
        for any_hop in range(1, n_fft + 1):
            if -(-n_fft // any_hop) <= 5:
                mx.eval(maps.overlap_add(mx, frames, any_hop, stream))
