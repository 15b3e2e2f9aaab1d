"""Forms of derivatives against their definitions: factors that make one map the other's adjoint."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from torch_mlx_spectro.core.linear import Form, describe_analysis, describe_synthesis
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


def form_of(onesided: bool, *, is_complex: bool = False, normalized: bool = False) -> Form:
    params = resolve_stft_call(sizes(onesided, normalized), 20, is_complex)
    return Form(params, params.complex_fft, False)


@pytest.mark.parametrize("onesided", [True, False])
@pytest.mark.parametrize("normalized", [True, False])
def test_the_factors_make_an_inverse_transform_the_adjoint(
    onesided: bool, normalized: bool
) -> None:
    form = form_of(onesided, normalized=normalized)
    n_fft, bins = form.params.n_fft, form.params.bins
    generator = np.random.default_rng(1)
    frame = generator.standard_normal(n_fft)
    cotangent = generator.standard_normal(bins) + 1j * generator.standard_normal(bins)
    spectrum = form.params.scale * (np.fft.rfft(frame) if onesided else np.fft.fft(frame))
    weighed = cotangent.copy()
    if onesided:
        weighed[[0, -1]] *= form.inverse_edge
        back = form.inverse_scale * np.fft.irfft(weighed, n_fft)
    else:
        back = form.inverse_scale * np.fft.ifft(weighed).real
    assert np.dot(back, frame) == pytest.approx(np.vdot(cotangent, spectrum).real)


@pytest.mark.parametrize(
    ("onesided", "is_complex", "both"),
    [(True, False, False), (False, False, True), (False, True, False)],
)
def test_only_real_frames_with_all_bins_have_both_halves(
    onesided: bool, is_complex: bool, both: bool
) -> None:
    assert form_of(onesided, is_complex=is_complex).both_halves is both


def test_rows_are_all_that_changes() -> None:
    form = form_of(True)
    other = form.with_rows(7)
    assert other.params.rows == 7
    assert other.with_rows(form.params.rows) == form


def istft(return_complex: bool, length: int | None = None) -> Any:
    return resolve_istft_call(sizes(not return_complex), 11, length, return_complex)


@pytest.mark.parametrize("return_complex", [False, True])
def test_an_istft_is_the_adjoint_of_its_analysis_scaled(return_complex: bool) -> None:
    params = istft(return_complex)
    form = describe_analysis(params)
    assert (form.params.frames, form.params.bins) == (params.frames, params.bins)
    assert form.params.samples == params.kept
    assert form.params.padding == params.start
    # One frame: the adjoint of the analysis is the inverse transform itself.
    assert form.inverse_scale == pytest.approx(1.0)
    assert form.inverse_edge == 1.0


@pytest.mark.parametrize("onesided", [True, False])
def test_a_synthesis_has_its_analysis_sizes(onesided: bool) -> None:
    form = form_of(onesided)
    back = describe_synthesis(form, form.params.padding, form.params.samples)
    assert back.output_length == form.params.samples
    assert (back.frames, back.bins, back.rows) == (form.params.frames, form.params.bins, 1)
    assert back.covered == (form.params.frames - 1) * 2 + 8
    assert back.return_complex is form.params.complex_fft
