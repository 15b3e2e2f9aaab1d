"""SpectralTransform against torch in double precision, in blocks and lazily; its contract."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from cli_process import python
from mlx_cases import BLOCKS, LAZILY, PATHS, SIZES, arguments, close, computed, noise, torchs_stft

import torch_mlx_spectro as tms
from torch_mlx_spectro import SpectralTransform, get_transform_mlx

MODES = ["reflect", "constant", "replicate", "circular"]


@PATHS
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("pad_mode", MODES)
@pytest.mark.parametrize("onesided", [True, False])
def test_stft_is_torchs(work: int, sizes: tuple[int, ...], pad_mode: str, onesided: bool) -> None:
    transform = SpectralTransform(*sizes, "hamming", pad_mode=pad_mode, onesided=onesided)
    with computed(work) as seen:
        for kind in (np.float32, np.complex64):
            signal = noise(1, 2, 300, kind=kind)
            close(transform.stft(mx.array(signal)), torchs_stft(transform, signal))
    assert seen == (["stft_blocks"] * 2 if work == BLOCKS else [])


@pytest.mark.filterwarnings("ignore:The length of signal is shorter")
@PATHS
@pytest.mark.parametrize("sizes", SIZES[:-1])
@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("length", [None, 290, 200, 500])
def test_istft_is_torchs(
    work: int, sizes: tuple[int, ...], normalized: bool, length: int | None
) -> None:
    if length == 500 and sizes[2] < sizes[0]:
        length = 270  # short windows leave the end of longer signals empty: torch raises
    transform = SpectralTransform(*sizes, "hamming", normalized=normalized, onesided=False)
    with computed(work) as seen:
        for bins in (sizes[0] // 2 + 1, sizes[0]):
            spectrum = noise(2, 2, bins, 18 if sizes[1] > 5 else 90, kind=np.complex64)
            wide = torch.tensor(spectrum.astype(np.complex128))
            call = {**arguments(transform), "onesided": bins < sizes[0], "length": length}
            with torch.no_grad():
                expected = torch.istft(wide, **call)
            close(transform.istft(mx.array(spectrum), length), expected)
            across = mx.array(np.ascontiguousarray(spectrum.transpose(0, 2, 1)))
            found = transform.istft(across, length, input_layout="bnf", validate=True)
            close(found, expected)
        expected = torch.istft(wide, **call, return_complex=True)
        close(transform.istft(mx.array(spectrum), length, return_complex=True), expected)
    assert bool(seen) == (work == BLOCKS)


@PATHS
def test_uncentred_transforms(work: int) -> None:
    transform = SpectralTransform(16, 4, center=False, window_fn="hamming")
    signal = noise(3, 2, 100)
    with computed(work):
        spectrum = transform.stft(mx.array(signal))
        close(spectrum, torchs_stft(transform, signal))
        close(transform.istft(spectrum), signal)
        # A signal shorter than a frame is followed by zeros.
        short = transform.stft(mx.array(signal[:, :9]))
        close(short, torchs_stft(transform, np.pad(signal[:, :9], ((0, 0), (0, 7)))))


def test_layouts_and_dimensions() -> None:
    signal = mx.array(noise(4, 3, 2, 200))
    batch = SpectralTransform(32, 8)
    one = batch.stft(signal[0, 0])
    assert one.shape == (1, 17, 26)
    assert batch.istft(one[0]).shape == (200,)
    np.testing.assert_array_equal(
        batch.stft(signal[0], output_layout="bnf").swapaxes(1, 2), batch.stft(signal[0])
    )
    with pytest.raises(ValueError, match="1D or 2D"):
        batch.stft(signal)
    with pytest.raises(ValueError, match="2D or 3D"):
        batch.istft(mx.zeros((1, 1, 17, 9), mx.complex64))
    leading = SpectralTransform(32, 8, leading="any")
    spectrum = leading.stft(signal)
    assert spectrum.shape == (3, 2, 17, 26)
    assert leading.stft(signal[0, 0]).shape == (17, 26)
    assert leading.stft(mx.zeros((0, 5, 200))).shape == (0, 5, 17, 26)
    np.testing.assert_array_equal(spectrum[1], batch.stft(signal[1]))
    assert leading.istft(spectrum, 200).shape == (3, 2, 200)
    assert leading.istft(mx.zeros((0, 17, 26), mx.complex64)).shape == (0, 200)
    close(leading.istft(spectrum, 200), signal)


def test_a_minimal_tail_has_one_frame_for_each_hop() -> None:
    transform = SpectralTransform(
        32, 8, center_pad_mode="constant", center_tail_pad="minimal", window_fn="hamming"
    )
    signal = noise(5, 2, 100)
    spectrum = transform.stft(mx.array(signal))
    assert spectrum.shape[2] == 13
    expected = torchs_stft(transform, signal)[:, :, :13]
    close(spectrum, expected)
    with pytest.raises(ValueError, match="length is required"):
        transform.istft(spectrum)
    close(transform.istft(spectrum, 96)[:, :80], signal[:, :80])
    with pytest.raises(ValueError, match="constant"):
        SpectralTransform(32, 8, center_tail_pad="minimal")


def test_where_the_envelope_vanishes_samples_are_zero_and_torch_like_raises() -> None:
    transform = SpectralTransform(16, 4, center=False)  # Hann begins with a zero
    spectrum = transform.stft(mx.array(noise(6, 1, 60)))
    assert float(transform.istft(spectrum, safety="off")[0, 0]) == 0.0
    with pytest.warns(RuntimeWarning, match="overlap-add envelope is degenerate") as caught:
        assert float(transform.istft(spectrum)[0, 0]) == 0.0
    assert [each.filename for each in caught] == [__file__]
    transform.istft(spectrum)  # once for these sizes: a warning would raise here
    with pytest.raises(RuntimeError, match="window overlap-add envelope is degenerate"):
        transform.istft(spectrum, torch_like=True)
    assert transform.istft(spectrum, torch_like=True, safety="off").shape == (1, 60)
    other = transform.with_window(transform.window)
    with pytest.warns(RuntimeWarning, match="degenerate"):
        assert float(other.istft(spectrum)[0, 0]) == 0.0
    close(other.istft(spectrum), np.array(transform.istft(spectrum)))
    with pytest.raises(RuntimeError, match="degenerate"):
        other.istft(spectrum, torch_like=True)


GAPS = [(16, 20, 16), (16, 13, 8), (64, 65, 64), (37, 100, 20), (64, 48, 32)]
GAPS_WARN = pytest.mark.filterwarnings(
    "ignore:istft. the window overlap-add envelope is degenerate:RuntimeWarning"
)


@GAPS_WARN
@PATHS
@pytest.mark.parametrize("sizes", GAPS)
@pytest.mark.parametrize("center", [True, False])
def test_hops_above_the_window_leave_zeros_between_frames(
    work: int, sizes: tuple[int, int, int], center: bool
) -> None:
    n_fft, hop, _ = sizes
    transform = SpectralTransform(*sizes, "hamming", center=center)
    signal = noise(7, 2, 400)
    window = np.array(transform.window, np.float64)
    with computed(work) as seen:
        spectrum = transform.stft(mx.array(signal))
        found = np.array(transform.istft(spectrum))
        slope = mx.grad(lambda z: mx.square(transform.istft(z)).sum())(spectrum)
        assert np.isfinite(np.array(slope)).all()
    assert bool(seen) == (work == BLOCKS)
    frames, first = spectrum.shape[2], n_fft // 2 if center else 0
    covered = np.zeros(n_fft + hop * (frames - 1))
    for frame in range(frames):
        covered[frame * hop : frame * hop + n_fft] += window**2
    kept = covered[first : len(covered) - first]
    assert found.shape == (2, len(kept))
    # Where some frame covers a sample the signal comes back; elsewhere it is zero.
    inside = kept >= 1e-11
    assert not inside.all()
    assert np.abs(found[:, ~inside]).max() == 0.0
    samples = min(400, len(kept))
    close(found[:, :samples][:, inside[:samples]], signal[:, :samples][:, inside[:samples]])
    with pytest.raises(RuntimeError, match="degenerate"):
        transform.istft(spectrum, torch_like=True)


def test_what_does_not_fit_is_told() -> None:
    transform = SpectralTransform(32, 8)
    for call, match in (
        (lambda: SpectralTransform(0), "n_fft must be positive"),
        (lambda: SpectralTransform(8, 0), "hop_length must be positive"),
        (lambda: SpectralTransform(8, 2, 9), r"win_length \(9\) must be <= n_fft \(8\)"),
        (lambda: SpectralTransform(8, 2, pad_mode="zero"), "pad_mode must be one of"),
        (lambda: SpectralTransform(8, 2, window_fn="hanning"), "Unknown window_fn"),
        (lambda: SpectralTransform(8, 2, leading="all"), "leading must be one of"),
        (lambda: SpectralTransform(8, 2, istft_backend_policy="gpu"), "must be one of"),
        (lambda: transform.stft(mx.zeros(16)), "at least 17 samples; got 16"),
        (lambda: transform.stft(mx.zeros(100), output_layout="nbf"), "output_layout"),
        (lambda: transform.stft(mx.array([1.0], mx.float64)), "float64"),
        (lambda: transform.istft(mx.zeros((1, 9, 17), mx.complex64)), "is the layout 'bnf'"),
        (lambda: transform.istft(mx.zeros((17, 9), mx.complex64), safety="on"), "safety"),
        (lambda: transform.istft(mx.zeros((17, 0), mx.complex64)), "at least one frame"),
        (
            lambda: transform.istft(
                mx.zeros((17, 9), mx.complex64),
                backend_policy="mlx_fft",
                long_mode_strategy="numpy_fallback",
            ),
            "must be 'native'",
        ),
        (lambda: SpectralTransform(8, 2, onesided=False, pad_mode=None), "pad_mode"),
    ):
        with pytest.raises(ValueError, match=match):
            call()
    with pytest.raises(RuntimeError, match="metal"):
        transform.istft(mx.zeros((17, 9), mx.complex64), backend_policy="metal")


@PATHS
def test_compiled_functions_give_the_same_bits(work: int) -> None:
    transform = SpectralTransform(64, 16)
    signal = mx.array(noise(7, 2, 300))
    with computed(work):
        for layout in ("bfn", "bnf"):
            stft, istft = transform.compiled_pair(300, layout=layout, warmup_batch=2)
            spectrum = stft(signal)
            np.testing.assert_array_equal(spectrum, transform.stft(signal, output_layout=layout))
            back = transform.istft(spectrum, 300, input_layout=layout)
            np.testing.assert_allclose(istft(spectrum), back, atol=1e-6)
            assert transform.get_compiled_stft(output_layout=layout) is stft
        close(mx.vmap(stft)(signal)[:, 0], np.array(stft(signal)))
        close(transform.istft_compiled(transform.stft_compiled(signal), length=300), signal)
    transform.prewarm_kernels()
    transform.prewarm_compiled(batch=2)


@pytest.mark.parametrize("value", ["0", "1"])
def test_unfused_istft(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLX_OLA_FUSE_NORM", value)
    transform = SpectralTransform(64, 16)
    spectrum = transform.stft(mx.array(noise(8, 2, 300)))
    with computed(BLOCKS) as seen:
        found = transform.istft(spectrum, 320)
    assert seen == [["adjoint_blocks"], ["istft_blocks"]][int(value)]
    with computed(LAZILY):
        close(found, np.array(transform.istft(spectrum, 320)))


def test_a_validation_that_fails_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    transform = SpectralTransform(64, 16)
    spectrum = transform.stft(mx.array(noise(9, 2, 300)))
    from torch_mlx_spectro.mlx_api import ops as mlx_maps

    right = mlx_maps.inverse_envelope
    monkeypatch.setattr(mlx_maps, "inverse_envelope", lambda *args: right(*args) * 1.01)
    with pytest.raises(RuntimeError, match="istft mismatch"), computed(BLOCKS):
        transform.istft(spectrum, validate=True)


def test_half_and_integer_signals_are_computed_in_single_precision() -> None:
    transform = SpectralTransform(16, 4)
    signal = np.arange(50) % 7
    expected = torchs_stft(transform, signal.astype(np.float32)[None])
    for kind in (mx.float16, mx.bfloat16, mx.int32):
        close(transform.stft(mx.array(signal).astype(kind)), expected)


def test_transforms_are_kept_by_their_arguments() -> None:
    first = get_transform_mlx(n_fft=64, hop_length=16, window_fn=("kaiser", 8.0))
    assert get_transform_mlx(window_fn=("kaiser", 8.0), hop_length=16, n_fft=64) is first
    assert get_transform_mlx(n_fft=64, hop_length=17) is not first
    given = {"n_fft": 64, "hop_length": 16, "window": mx.ones(64)}
    assert get_transform_mlx(**given) is not get_transform_mlx(**given)
    assert (first.n_fft, first.hop_length, first.win_length) == (64, 16, 64)


@PATHS
def test_one_transform_serves_many_threads(work: int) -> None:
    """Lazy MLX arrays belong to their thread; what a transform keeps must not be lazy."""
    given = SpectralTransform(64, 16, 60, window=mx.ones(60) * 0.5)
    named = SpectralTransform(64, 16, 60)
    signal = noise(10, 2, 300)
    got: list[np.ndarray] = []

    def run() -> None:
        for transform in (given, named):
            got.append(np.array(transform.istft(transform.stft(mx.array(signal)), 300)))

    with computed(work):
        for _ in range(2):
            thread = threading.Thread(target=run)
            thread.start()
            thread.join()
        run()
    assert len(got) == 6
    for found in got:
        close(found, signal, 4e-6)


def test_the_device_has_a_name() -> None:
    assert tms.spec_mlx_device_key() == str(mx.default_device())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
@pytest.mark.parametrize("given", [False, True])
def test_transforms_can_be_copied_and_pickled(
    copied: Callable[[SpectralTransform], SpectralTransform], given: bool
) -> None:
    window = mx.array(np.abs(noise(1, 20)) + np.float32(0.5)) if given else None
    transform = SpectralTransform(
        24,
        5,
        20,
        ("kaiser", 9.0),
        window=window,
        center_pad_mode="constant",
        center_tail_pad="minimal",
        normalized=True,
        leading="any",
        istft_backend_policy="mlx_fft",
    )
    signal = mx.array(noise(2, 3, 2, 90))
    transform.compiled_pair(90)
    spectrum = transform.stft(signal)
    other = copied(transform)
    assert vars(other).keys() == vars(transform).keys()
    np.testing.assert_array_equal(other.stft(signal), spectrum)
    np.testing.assert_array_equal(other.istft(spectrum, 90), transform.istft(spectrum, 90))
    pair = other.compiled_pair(90)
    close(pair[1](pair[0](signal)), np.array(signal), 4e-6)
    of_window = mx.grad(lambda w: mx.abs(other.with_window(w).stft(signal)).sum())(other.window)
    assert bool(mx.any(of_window != 0))


WITHOUT_TORCH = """\
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ImportError("there is no torch on this machine")

sys.meta_path.insert(0, Blocker())
import mlx.core as mx
from torch_mlx_spectro import GriffinLim, MFCC, SpectralTransform, get_cache_debug_stats

transform = SpectralTransform(512, 128)
signal = mx.random.normal((2, 70_000))
stft, istft = transform.compiled_pair(70_000, warmup_batch=2)
assert float(mx.max(mx.abs(istft(stft(signal)) - signal))) < 1e-4
mx.eval(mx.grad(lambda x: mx.abs(transform.stft(x)).sum())(signal))
list(transform.istft_of_chunks(transform.stft_of_chunks([signal])))
mx.eval(MFCC(melkwargs={"n_mels": 64})(signal), GriffinLim(n_iter=1)(mx.ones((201, 9))))
get_cache_debug_stats()
assert not any(name.partition(".")[0] == "torch" for name in sys.modules)
"""


def test_all_of_it_works_with_no_torch(tmp_path: Path) -> None:
    finished = python("-W", "error", "-c", WITHOUT_TORCH, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr


def test_nothing_is_left_of_a_window_that_was_before() -> None:
    """The envelope of istft, and compiled functions, those included that the program holds."""
    transform, signal = SpectralTransform(64, 16), mx.array(noise(8, 2, 500))
    window = mx.array(np.hamming(64).astype(np.float32))
    held = transform.get_compiled_stft(), transform.get_compiled_istft(length=500)
    for made in (window, mx.ones((64,)), None):
        mx.eval(held[1](held[0](signal)), transform.istft(transform.stft(signal), 500))
        transform.window = made
        fresh = SpectralTransform(64, 16, window=made)
        spectrum = fresh.stft(signal)
        assert np.array_equal(np.array(transform.window), np.array(fresh.window))
        for compute in (transform.stft, held[0], transform.stft_compiled):
            close(compute(signal), np.array(spectrum))
        expected = np.array(fresh.istft(spectrum, 500))
        close(expected, np.array(signal))
        close(transform.istft(spectrum, 500), expected)
        close(held[1](spectrum), expected)
        close(transform.istft_compiled(spectrum, length=500), expected)


@pytest.mark.parametrize("window", [np.ones(63), np.ones((2, 64)), np.ones(64, np.complex64)])
def test_a_window_that_does_not_fit_leaves_the_transform_as_it_was(window: Any) -> None:
    transform = SpectralTransform(64, 16)
    before, signal = transform.window, mx.array(noise(9, 1, 500))
    with pytest.raises(ValueError, match="window"):
        transform.window = window
    assert transform.window is before
    close(transform.istft(transform.stft(signal), 500), np.array(signal))
    assert transform.has_window_by_name


def test_a_window_that_is_set_is_not_that_of_later_transforms() -> None:
    """get_transform_mlx gives the same one for the same arguments: not with another window."""
    get_transform = tms.get_transform_mlx
    first = get_transform(n_fft=48, hop_length=12)
    assert get_transform(n_fft=48, hop_length=12) is first
    first.window = np.ones(48)
    second = get_transform(n_fft=48, hop_length=12)
    assert second is not first
    close(second.window, np.array(SpectralTransform(48, 12).window))
    assert get_transform(n_fft=48, hop_length=12) is second


def test_a_window_that_is_set_is_copied_and_pickled_and_differentiated() -> None:
    transform, signal = SpectralTransform(16, 4), mx.array(noise(10, 1, 100))
    window = mx.array(np.hamming(16).astype(np.float32))
    transform.window = window
    for other in (copy.deepcopy(transform), pickle.loads(pickle.dumps(transform))):
        close(other.stft(signal), np.array(transform.stft(signal)))
    given = SpectralTransform(16, 4, window=window)
    gradients = [
        mx.grad(lambda w, made=made: mx.abs(made.with_window(w).stft(signal)).sum())(window)
        for made in (transform, given)
    ]
    close(gradients[0], np.array(gradients[1]))
