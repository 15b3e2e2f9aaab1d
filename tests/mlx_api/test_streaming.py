"""Streams: bit by bit the one-shot stft, by rounding the one-shot istft, in bounded memory."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from cli_process import python
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mlx_cases import BLOCKS, LAZILY, computed, noise

from torch_mlx_spectro import SpectralTransform


@st.composite
def transforms(draw: st.DrawFn) -> SpectralTransform:
    n_fft = draw(st.sampled_from([2, 7, 16, 33, 64, 101, 400]))
    pad_mode = draw(st.sampled_from(["reflect", "constant", "replicate"]))
    minimal = pad_mode == "constant" and draw(st.booleans())
    return SpectralTransform(
        n_fft,
        draw(st.integers(1, n_fft + 9)),
        window_fn=draw(st.sampled_from(["hann", "hamming"])),
        pad_mode=pad_mode,
        center=draw(st.booleans()),
        center_tail_pad="minimal" if minimal else "symmetric",
        normalized=draw(st.booleans()),
        onesided=draw(st.booleans()),
    )


def pieces(draw: Any, values: Any, axis: int) -> list[Any]:
    """Cut anywhere, into chunks that may be empty."""
    extent = values.shape[axis]
    cuts = sorted(draw(st.lists(st.integers(0, extent), max_size=8)))
    return [
        mx.array(np.take(values, np.arange(begin, end), axis))
        for begin, end in pairwise([0, *cuts, extent])
    ]


@settings(max_examples=150)
@given(st.data())
def test_frames_are_those_of_the_whole_signal_bit_by_bit(data: st.DataObject) -> None:
    transform = data.draw(transforms())
    samples = data.draw(st.integers(1, 900))
    kind = data.draw(st.sampled_from([np.float32, np.complex64]))
    signal = noise(data.draw(st.integers(0, 99)), data.draw(st.integers(1, 3)), samples, kind=kind)
    with computed(data.draw(st.sampled_from([BLOCKS, LAZILY]))):
        try:
            whole = transform.stft(mx.array(signal))
        except ValueError:
            assume(False)
    with computed(data.draw(st.sampled_from([BLOCKS, 5_000, LAZILY]))):
        chunks = pieces(data.draw, signal, 1)
        found = mx.concatenate(list(transform.stft_of_chunks(chunks)), axis=2)
    np.testing.assert_array_equal(found, whole)


@pytest.mark.filterwarnings("ignore:istft. the window overlap-add envelope:RuntimeWarning")
@settings(max_examples=100)
@given(st.data())
def test_samples_are_those_of_the_whole_spectrum(data: st.DataObject) -> None:
    transform = data.draw(transforms())
    frames = data.draw(st.integers(1, 40))
    spectrum = noise(5, 2, transform.n_fft // 2 + 1, frames, kind=np.complex64)
    length = data.draw(st.none() | st.integers(1, 900))
    try:
        whole = np.array(transform.istft(mx.array(spectrum), length))
    except ValueError:
        assume(False)
    chunks = pieces(data.draw, spectrum, 2)
    found = np.array(mx.concatenate(list(transform.istft_of_chunks(chunks, length)), axis=1))
    assert found.shape == whole.shape
    assert np.abs(found - whole).max() <= 2e-5 * max(1.0, float(np.abs(whole).max()))


def test_frames_come_as_soon_as_they_are_complete() -> None:
    stream = SpectralTransform(16, 4).stft_stream()
    counts = [stream.push(mx.zeros(4)).shape[2] for _ in range(6)]
    # Frame t ends at sample 4 t + 7; the reflection before the signal needs 9 samples.
    assert counts == [0, 0, 2, 1, 1, 1]
    assert stream.finish().shape[2] == 7 - sum(counts)
    back = SpectralTransform(16, 4).istft_stream()
    assert [back.push(mx.zeros((9, 1), mx.complex64)).shape[-1] for _ in range(4)] == [0, 0, 4, 4]


def test_streams_say_what_they_cannot() -> None:
    transform = SpectralTransform(16, 4)
    with pytest.raises(ValueError, match="circular"):
        SpectralTransform(16, 4, pad_mode="circular").stft_stream()
    stream = transform.stft_stream()
    with pytest.raises(RuntimeError, match="given nothing"):
        stream.finish()
    stream.push(mx.zeros((2, 5)))
    for other in (mx.zeros((3, 5)), mx.zeros((2, 5), mx.complex64)):
        with pytest.raises(ValueError, match="chunks have one shape"):
            stream.push(other)
    with pytest.raises(ValueError, match="needs at least 9 samples; got 5"):
        stream.finish()
    back = transform.istft_stream()
    back.push(mx.zeros((2, 9, 3), mx.complex64))
    with pytest.raises(ValueError, match="chunks have one shape"):
        back.push(mx.zeros((9, 3), mx.complex64))
    back.finish()
    for call in (lambda: back.push(mx.zeros((2, 9, 3), mx.complex64)), back.finish):
        with pytest.raises(RuntimeError, match="finished"):
            call()


AN_HOUR = """\
import resource
import mlx.core as mx
from torch_mlx_spectro import SpectralTransform

transform = SpectralTransform(512, 256)
chunk = mx.random.normal((16_000 * 5,))

def run(seconds):
    chunks = (chunk for _ in range(seconds // 5))
    total = frames = 0
    for piece in transform.istft_of_chunks(transform.stft_of_chunks(chunks)):
        total += piece.shape[1]
    return total

run(60)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert run(3600) == 16_000 * 3600
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
assert grown < 16 << 10, f"{grown} KiB more for an hour than for a minute: a signal has 225 MiB"
"""


def test_an_hour_takes_no_more_memory_than_a_minute(tmp_path: Path) -> None:
    finished = python("-W", "error", "-c", AN_HOUR, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr


def test_a_stream_keeps_the_window_that_it_began_with() -> None:
    transform = SpectralTransform(16, 4)
    signal = mx.array(np.random.default_rng(0).standard_normal((1, 200)).astype(np.float32))
    spectrum = transform.stft(signal)
    expected = [np.array(spectrum), np.array(transform.istft(spectrum, 200))]
    analysis, synthesis = transform.stft_stream(), transform.istft_stream(200)
    frames = [analysis.push(signal[:, :90])]
    samples = [synthesis.push(spectrum[..., :20])]
    transform.window = np.ones(16)
    frames += [analysis.push(signal[:, 90:]), analysis.finish()]
    samples += [synthesis.push(spectrum[..., 20:]), synthesis.finish()]
    np.testing.assert_allclose(np.concatenate(frames, axis=-1), expected[0], atol=1e-5)
    np.testing.assert_allclose(np.concatenate(samples, axis=-1), expected[1], atol=1e-5)
