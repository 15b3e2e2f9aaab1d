"""Wrong inputs to the MLX API: what is wrong, what was expected, and which other entry is meant."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch

from torch_mlx_spectro import (
    MFCC,
    GriffinLim,
    MelSpectrogram,
    SpectralTransform,
    Spectrogram,
    get_transform_mlx,
    make_window,
)

TRANSFORM = SpectralTransform(64, 16)
SIGNAL, SPECTRUM = mx.zeros((2, 400)), mx.zeros((2, 33, 9), mx.complex64)
anything: Any = None

#: The call, the kind of exception, and its whole message (a pattern where values vary).
WRONG: list[tuple[Callable[[], object], type[Exception], str]] = [
    # What is no MLX array.
    (
        lambda: TRANSFORM.stft(np.zeros(400)),
        TypeError,
        r"stft expects an MLX array \(mlx.core.array\); got numpy.ndarray: .*makes one",
    ),
    (
        lambda: TRANSFORM.stft(torch.zeros(400)),
        TypeError,
        r"stft expects an MLX array .*; got torch.Tensor: torch_mlx_spectro.stft takes tensors",
    ),
    (
        lambda: TRANSFORM.istft(torch.zeros(33, 9, dtype=torch.complex64)),
        TypeError,
        r"istft expects an MLX array .*; got torch.Tensor: torch_mlx_spectro.istft takes tensors",
    ),
    (
        lambda: TRANSFORM.stft([0.0] * 400),
        TypeError,
        r"stft expects .*; got list: .*makes one",
    ),
    (
        lambda: TRANSFORM.stft(None),
        TypeError,
        r"stft expects .*; got None: the first argument is missing",
    ),
    (
        lambda: TRANSFORM.stft_stream().push(np.zeros(400)),
        TypeError,
        r"stft_stream expects an MLX array .*; got numpy.ndarray: .*",
    ),
    (
        lambda: Spectrogram(64)(torch.zeros(400)),
        TypeError,
        r"Spectrogram expects an MLX array .*; got torch.Tensor: mx.array\(...\) of its .*",
    ),
    # Shapes and dtypes.
    (
        lambda: TRANSFORM.stft(mx.zeros((2, 2, 400))),
        ValueError,
        r"stft expects 1D or 2D input, \[T\] or \[B, T\]; got shape \(2, 2, 400\) .*'any' takes.*",
    ),
    (lambda: TRANSFORM.stft(mx.zeros(())), ValueError, r"stft expects 1D or 2D .*shape \(\) .*"),
    (
        lambda: TRANSFORM.istft(mx.zeros((2, 33, 9))),
        ValueError,
        r"istft expects a spectrum of complex64; got float32",
    ),
    (
        lambda: TRANSFORM.istft(mx.zeros((9,), mx.complex64)),
        ValueError,
        r"istft expects a 2D or 3D spectrum; got shape \(9,\) .*",
    ),
    (
        lambda: TRANSFORM.istft(mx.zeros((2, 9, 33), mx.complex64)),
        ValueError,
        r"istft of input_layout='bfn' expects 33 \(onesided\) or 64 \(two-sided\) bins, got shape "
        r"\(2, 9, 33\); is the layout 'bnf'\?",
    ),
    (
        lambda: TRANSFORM.istft(SPECTRUM, return_complex=True),
        ValueError,
        r"istft of input_layout='bfn' expects 64 bins, got shape \(2, 33, 9\); .*",
    ),
    (
        lambda: TRANSFORM.istft(mx.zeros((33, 0), mx.complex64)),
        ValueError,
        r"istft expects at least one frame; the spectrum has none",
    ),
    (
        lambda: TRANSFORM.compiled_pair_nd(400, (2, 3))[0](mx.zeros((3, 2, 400))),
        ValueError,
        r"stft expects shape \(2, 3, 400\); got \(3, 2, 400\)",
    ),
    # Lengths.
    (
        lambda: TRANSFORM.stft(mx.zeros(32)),
        ValueError,
        r"stft: reflect padding of n_fft=64 needs at least 33 samples; got 32 "
        r"\(pad_mode='constant' takes any number\)",
    ),
    (
        lambda: SpectralTransform(64, pad_mode="circular").stft(mx.zeros(31)),
        ValueError,
        r"stft: circular padding of n_fft=64 needs at least 32 samples; got 31 .*",
    ),
    (
        lambda: SpectralTransform(64, pad_mode="replicate").stft(mx.zeros(0)),
        ValueError,
        r"stft: replicate padding of n_fft=64 needs at least 1 samples; got 0 .*",
    ),
    (lambda: TRANSFORM.istft(SPECTRUM, 0), ValueError, r"length must be positive; got 0"),
    (
        lambda: TRANSFORM.istft(SPECTRUM, anything or "9"),
        ValueError,
        r"length must be an integer.*",
    ),
    (
        lambda: TRANSFORM.istft(SPECTRUM[..., :1]),
        ValueError,
        r"istft of 1 frames of n_fft=64, hop_length=16 and length=None needs that some samples .*",
    ),
    (
        lambda: SpectralTransform(64, 48, 32).istft(SPECTRUM, torch_like=True),
        RuntimeError,
        r"istft: the window overlap-add envelope is degenerate: .*; take another window or hop, .*",
    ),
    # Sizes, names and keywords.
    (lambda: SpectralTransform(0), ValueError, r"n_fft must be positive; got 0"),
    (lambda: SpectralTransform(64, 0), ValueError, r"hop_length must be positive; got 0"),
    (
        lambda: SpectralTransform(anything or "64"),
        ValueError,
        r"n_fft must be an integer; got '64'",
    ),
    (lambda: SpectralTransform(64, 16, 65), ValueError, r"win_length \(65\) must be <= n_fft .*"),
    (
        lambda: SpectralTransform(64, hop=16),  # type: ignore[call-arg]
        TypeError,
        r"SpectralTransform.__init__\(\) got an unexpected keyword argument 'hop'.*",
    ),
    (
        lambda: get_transform_mlx(n_fft=64, hop=16),
        TypeError,
        r"SpectralTransform.__init__\(\) got an unexpected keyword argument 'hop'.*",
    ),
    (
        lambda: TRANSFORM.istft(SPECTRUM, lenght=400),  # type: ignore[call-arg]
        TypeError,
        r"SpectralTransform.istft\(\) got an unexpected keyword argument 'lenght'.*",
    ),
    (
        lambda: TRANSFORM.get_compiled_istft(lenght=400),
        TypeError,
        r"get_compiled_istft\(\) got an unexpected keyword argument 'lenght'; options of istft are "
        r"allow_fused, .*, validate",
    ),
    (
        lambda: TRANSFORM.stft(SIGNAL, "nfb"),
        ValueError,
        r"output_layout must be one of 'bfn', 'bnf'; got 'nfb'",
    ),
    (
        lambda: SpectralTransform(64, pad_mode="edge"),
        ValueError,
        r"pad_mode must be one of .*; got 'edge'",
    ),
    # Windows.
    (
        lambda: SpectralTransform(64, window_fn="hanning"),
        ValueError,
        r"Unknown window_fn: 'hanning'; known are .*hann.*",
    ),
    (
        lambda: SpectralTransform(64, window_fn=anything),
        ValueError,
        r"Unknown window_fn: None; known are .*",
    ),
    (
        lambda: SpectralTransform(64, window=mx.zeros(63)),
        ValueError,
        r"window length must be win_length \(64\) or n_fft \(64\), got 63",
    ),
    (
        lambda: SpectralTransform(64, window={"hann"}),
        TypeError,
        r"window must be a name or an array of numbers; got \{'hann'\}",
    ),
    (
        lambda: make_window(None, "kaiser", 64, 64, True),
        ValueError,
        r"Unknown window_fn: 'kaiser' lacks parameters; give \('kaiser', beta\)",
    ),
    # Features.
    (lambda: MelSpectrogram(n_mels=0), ValueError, r"n_mels must be at least 1; got 0"),
    (lambda: MelSpectrogram(sample_rate=0), ValueError, r"sample_rate must be at least 1; got 0"),
    (
        lambda: MelSpectrogram(f_min=anything or "low"),
        ValueError,
        r"f_min must be a number; got 'low'",
    ),
    (
        lambda: Spectrogram(64, power=anything or "two"),
        ValueError,
        r"power must be a number; got 'two'",
    ),
    (lambda: Spectrogram(64, power=-1.0), ValueError, r"power must be positive; got -1.0"),
    (lambda: Spectrogram(64, pad=-1), ValueError, r"pad must be at least 0; got -1"),
    (lambda: MFCC(n_mfcc=0), ValueError, r"n_mfcc must be at least 1; got 0"),
    (
        lambda: MFCC(n_mfcc=24, melkwargs={"n_mels": 23}),
        ValueError,
        r"n_mfcc \(24\) must be <= n_mels \(23\)",
    ),
    (
        lambda: MFCC(melkwargs={"sample_rate": 8000}),
        ValueError,
        r"melkwargs must be a dict of MelSpectrogram's arguments without sample_rate; got .*",
    ),
    (
        lambda: MFCC(melkwargs={"n_mel": 3}),
        TypeError,
        r"MelSpectrogram.__init__\(\) got an unexpected keyword argument 'n_mel'.*",
    ),
    (
        lambda: GriffinLim(64, momentum=anything or "much"),
        ValueError,
        r"momentum must be a number; got 'much'",
    ),
    (
        lambda: GriffinLim(64)(SPECTRUM),
        ValueError,
        r"GriffinLim expects real magnitudes of shape \[..., 33, frames\]; got shape "
        r"\(2, 33, 9\), complex64",
    ),
    (
        lambda: GriffinLim(64)(mx.zeros((9, 33))),
        ValueError,
        r"GriffinLim expects real magnitudes of shape \[..., 33, frames\]; .*",
    ),
]
#: What no message may have: our classes and functions that programs do not know, Python's own way
#: of saying that an object is not what it takes, and private names.
INTERNAL = re.compile(
    r"Sizes\(|Params|TransformCore|UnresolvedArguments|object has no attribute|NoneType|"
    r"(?<![\w.])_[a-z]|\b(rows|lead)\b|not supported between|Dtype|mlx\.core\.(?!array)"
)


@pytest.mark.parametrize(("call", "kind", "message"), WRONG, ids=range(len(WRONG)))
def test_what_is_wrong_is_named_with_what_was_expected(
    call: Callable[[], object], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind) as raised:
        call()
    text = str(raised.value)
    assert re.fullmatch(message, text), text
    assert not INTERNAL.search(text), text
    assert raised.value.__cause__ is None


def test_there_are_thirty_of_them() -> None:
    assert len(WRONG) >= 30
    assert len({message for *_, message in WRONG}) >= 30


def test_a_spectrum_of_no_signal_is_no_error() -> None:
    """Empty batches go through, as they do in MLX itself."""
    assert TRANSFORM.stft(mx.zeros((0, 400))).shape == (0, 33, 26)
    assert TRANSFORM.istft(mx.zeros((0, 33, 9), mx.complex64)).shape == (0, 128)
