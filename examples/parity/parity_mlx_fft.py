"""MLX's own ``mx.fft.stft`` and ``mx.fft.istft`` as a candidate of the parity suite.

    torch-mlx-spectro parity --candidate parity_mlx_fft --known parity_mlx_fft.toml

from this folder. Their arguments are torch's but for three: the padding "replicate" is "edge",
``normalized`` is a norm, and a spectrum is always complex.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from stft_parity import Unsupported, from_mlx, with_arguments

PAD_MODES = {"replicate": "edge"}


def _stft(x: Any, *, pad_mode: Any = "reflect", normalized: Any = False, **more: Any) -> Any:
    if pad_mode == "circular":
        raise Unsupported("pad_mode='circular'")
    pad_mode = PAD_MODES.get(pad_mode, pad_mode)
    return mx.fft.stft(x, pad_mode=pad_mode, norm=_norm(normalized), **more)


def _istft(spectrum: Any, *, normalized: Any = False, **more: Any) -> Any:
    return mx.fft.istft(spectrum, norm=_norm(normalized), **more)


def _norm(normalized: Any) -> str:
    return "ortho" if normalized else "backward"


_COMMON = ("n_fft", "hop_length", "win_length", "window", "center", "normalized", "onesided")
stft = from_mlx(with_arguments(_stft, (*_COMMON, "pad_mode")))
istft = from_mlx(with_arguments(_istft, (*_COMMON, "length"), op="istft"))
