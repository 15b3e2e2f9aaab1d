"""Analyses against their definitions: the factors that make one map the other's adjoint."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from torch_mlx_spectro.core.linear import Analysis, describe_analysis, describe_synthesis
from torch_mlx_spectro.mlx_api.arguments import Sizes, resolve_istft_call, resolve_stft_call


def sizes(onesided: bool, normalized: bool = False) -> Sizes:
    return Sizes.resolve(
        8,
        2,
        None,
        center=True,
        pad_mode="constant",
        tail_pad="symmetric",
        normalized=normalized,
        onesided=onesided,
    )


def make_analysis(
    onesided: bool, *, is_complex: bool = False, normalized: bool = False
) -> Analysis:
    params = resolve_stft_call(sizes(onesided, normalized), 20, is_complex)
    return Analysis(params, params.complex_fft, False)


@pytest.mark.parametrize("onesided", [True, False])
@pytest.mark.parametrize("normalized", [True, False])
def test_the_factors_make_an_inverse_transform_the_adjoint(
    onesided: bool, normalized: bool
) -> None:
    analysis = make_analysis(onesided, normalized=normalized)
    n_fft, bins = analysis.params.n_fft, analysis.params.bins
    generator = np.random.default_rng(1)
    frame = generator.standard_normal(n_fft)
    cotangent = generator.standard_normal(bins) + 1j * generator.standard_normal(bins)
    spectrum = analysis.params.scale * (np.fft.rfft(frame) if onesided else np.fft.fft(frame))
    weighed = cotangent.copy()
    if onesided:
        weighed[[0, -1]] *= analysis.inverse_edge
        back = analysis.inverse_scale * np.fft.irfft(weighed, n_fft)
    else:
        back = analysis.inverse_scale * np.fft.ifft(weighed).real
    assert np.dot(back, frame) == pytest.approx(np.vdot(cotangent, spectrum).real)


@pytest.mark.parametrize(
    ("onesided", "is_complex", "both"),
    [(True, False, False), (False, False, True), (False, True, False)],
)
def test_only_real_frames_with_all_bins_have_both_halves(
    onesided: bool, is_complex: bool, both: bool
) -> None:
    assert make_analysis(onesided, is_complex=is_complex).both_halves is both


def test_rows_are_all_that_changes() -> None:
    analysis = make_analysis(True)
    other = analysis.with_rows(7)
    assert other.params.rows == 7
    assert other.with_rows(analysis.params.rows) == analysis


def istft(return_complex: bool, length: int | None = None) -> Any:
    return resolve_istft_call(sizes(not return_complex), 11, length, return_complex)


@pytest.mark.parametrize("return_complex", [False, True])
def test_an_istft_is_the_adjoint_of_its_analysis_scaled(return_complex: bool) -> None:
    params = istft(return_complex)
    analysis = describe_analysis(params)
    assert (analysis.params.frames, analysis.params.bins) == (params.frames, params.bins)
    assert analysis.params.samples == params.kept
    assert analysis.params.padding == params.start
    # One frame: the adjoint of the analysis is the inverse transform itself.
    assert analysis.inverse_scale == pytest.approx(1.0)
    assert analysis.inverse_edge == 1.0


@pytest.mark.parametrize("onesided", [True, False])
def test_a_synthesis_has_its_analysis_sizes(onesided: bool) -> None:
    analysis = make_analysis(onesided)
    back = describe_synthesis(analysis, analysis.params.padding, analysis.params.samples)
    assert back.output_length == analysis.params.samples
    assert (back.frames, back.bins, back.rows) == (analysis.params.frames, analysis.params.bins, 1)
    assert back.covered == (analysis.params.frames - 1) * 2 + 8
    assert back.return_complex is analysis.params.complex_fft
