"""Mel filters and the cosine transform of MFCCs by torchaudio's definitions, in float64."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from .arguments import check_choice

Matrix = npt.NDArray[np.float64]

#: Slaney's scale ("Auditory toolbox", 1998): linear below 1 kHz, then 27 steps of a factor of 6.4.
SLANEY_STEP_HZ = 200.0 / 3
SLANEY_LINEAR_HZ = 1000.0
SLANEY_LINEAR_MELS = SLANEY_LINEAR_HZ / SLANEY_STEP_HZ
SLANEY_LOG_STEP = math.log(6.4) / 27.0


def _mels(hertz: float, scale: str) -> float:
    if scale == "htk":
        return 2595.0 * math.log10(1.0 + hertz / 700.0)
    if hertz < SLANEY_LINEAR_HZ:
        return hertz / SLANEY_STEP_HZ
    return SLANEY_LINEAR_MELS + math.log(hertz / SLANEY_LINEAR_HZ) / SLANEY_LOG_STEP


def _hertz(mels: Any, scale: str) -> Any:
    if scale == "htk":
        return 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    above = SLANEY_LINEAR_HZ * np.exp(SLANEY_LOG_STEP * (mels - SLANEY_LINEAR_MELS))
    return np.where(mels >= SLANEY_LINEAR_MELS, above, SLANEY_STEP_HZ * mels)


def mel_filters(
    bins: int,
    f_min: float,
    f_max: float,
    n_mels: int,
    sample_rate: int,
    norm: str | None,
    mel_scale: str,
) -> Matrix:
    """Triangles that are level on the mel scale, shape (bins, n_mels).

    Args:
        bins: of a onesided spectrum, from 0 to ``sample_rate // 2``.
        f_min, f_max: where the first band begins and the last one ends.
        norm: ``"slaney"``: bands of unit area; None.
        mel_scale: ``"htk"`` or ``"slaney"``.

    Raises:
        ValueError: another norm or scale, or ``f_min`` above ``f_max``.
    """
    check_choice("norm", norm, (None, "slaney"))
    check_choice("mel_scale", mel_scale, ("htk", "slaney"))
    if f_min > f_max:
        raise ValueError(f"f_min ({f_min}) must be <= f_max ({f_max})")
    edges = _hertz(
        np.linspace(_mels(f_min, mel_scale), _mels(f_max, mel_scale), n_mels + 2), mel_scale
    )
    widths = np.diff(edges)
    slopes = edges[None, :] - np.linspace(0, sample_rate // 2, bins)[:, None]
    falling, rising = -slopes[:, :-2] / widths[:-1], slopes[:, 2:] / widths[1:]
    filters: Matrix = np.maximum(0.0, np.minimum(falling, rising))
    if norm == "slaney":
        filters *= 2.0 / (edges[2:] - edges[:-2])
    if not np.all(filters.max(axis=0)):
        warnings.warn(
            f"of {n_mels} mel bands some have no bin of {bins}: take less bands or a larger n_fft",
            UserWarning,
            stacklevel=3,
        )
    return filters


def dct_matrix(n_mfcc: int, n_mels: int, norm: str | None) -> Matrix:
    """The cosine transform of type 2, shape (n_mfcc, n_mels).

    Raises:
        ValueError: ``norm`` is neither ``"ortho"`` nor None.
    """
    check_choice("norm", norm, (None, "ortho"))
    orders = np.arange(n_mfcc)[:, None]
    matrix: Matrix = 2.0 * np.cos(np.pi / n_mels * (np.arange(n_mels) + 0.5) * orders)
    if norm == "ortho":
        matrix[0] /= math.sqrt(2.0)
        matrix *= math.sqrt(0.5 / n_mels)
    return matrix
