"""mlx-spectro's ``SpectralTransform`` as a candidate of the parity suite.

    torch-mlx-spectro parity --candidate parity_mlx_spectro --known parity_mlx_spectro.toml

from this folder, on a Mac; elsewhere add ``--emulate-metal``, since its kernels are Metal's.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
from mlx_spectro import SpectralTransform

from stft_parity import Unsupported, from_mlx, with_arguments

PAD_MODES = ("reflect", "constant")


def _transform(
    n_fft: Any,
    hop_length: Any = None,
    win_length: Any = None,
    window: Any = None,
    center: Any = True,
    pad_mode: Any = "reflect",
    normalized: Any = False,
    onesided: Any = None,
) -> SpectralTransform:
    if center and pad_mode not in PAD_MODES:
        raise Unsupported(f"pad_mode={pad_mode!r}")
    length = n_fft if win_length is None else win_length
    return SpectralTransform(
        n_fft,
        n_fft // 4 if hop_length is None else hop_length,
        win_length,
        window=mx.ones(length) if window is None else window,
        center=center,
        center_pad_mode=pad_mode,
        normalized=normalized,
        onesided=onesided is not False,
    )


def _stft(signal: Any, **arguments: Any) -> Any:
    if signal.dtype == mx.complex64:
        raise Unsupported("a complex signal")
    return _transform(**arguments).stft(signal)


def _istft(spectrum: Any, *, length: Any = None, **arguments: Any) -> Any:
    return _transform(**arguments).istft(spectrum, length, torch_like=True)


_COMMON = ("n_fft", "hop_length", "win_length", "window", "center", "normalized", "onesided")
stft = from_mlx(with_arguments(_stft, (*_COMMON, "pad_mode")))
istft = from_mlx(with_arguments(_istft, (*_COMMON, "length"), op="istft"))
