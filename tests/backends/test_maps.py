"""Analysis, adjoint and correlation against the identity that defines them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from map_identities import ISTFTS, KINDS, check_identities, check_istft
from reference import drawn, random_tensor, stft_params

from torch_mlx_spectro import emulator
from torch_mlx_spectro.autograd import maps as adjoints
from torch_mlx_spectro.core.linear import Form


def test_the_kinds_are_told_apart() -> None:
    assert [kind for kind in KINDS if kind in KINDS[2::2]] == ["complex signal", "complex"]
    assert [kind for kind in KINDS if kind in KINDS[3:]] == ["complex window", "complex"]


@drawn(150)
@given(
    kind=st.sampled_from(KINDS),
    n_fft=st.integers(1, 70),
    hop=st.integers(1, 90),
    more=st.integers(0, 300),
    mode=st.sampled_from(["reflect", "replicate", "circular", "constant", None]),
    normalized=st.booleans(),
    data=st.data(),
)
def test_identities_in_blocks(
    kind: str, n_fft: int, hop: int, more: int, mode: str | None, normalized: bool, data: Any
) -> None:
    win = data.draw(st.integers(1, n_fft))
    samples = n_fft + more
    call: dict[str, Any] = {"center": mode is not None, "normalized": normalized}
    if mode is not None:
        call["pad_mode"] = mode
    check_identities(kind, n_fft, hop, win, samples, **call)


@pytest.fixture(scope="module")
def emulated(metal_cache: Path) -> Any:
    reason = emulator.available()
    if reason is not None:
        pytest.skip(reason)
    with emulator.Machine(cache_dir=metal_cache).installed() as machine:
        yield machine


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_fft", [16, 15, 1, 2, 22, 130], ids=lambda n: f"n{n}")
@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular", "constant"])
def test_identities_by_kernels(emulated: Any, kind: str, n_fft: int, mode: str) -> None:
    """Sizes that the fused kernel covers, and sizes where MLX's own transform stands between."""
    win = max(1, n_fft - 3)
    check_identities(kind, n_fft, max(1, n_fft // 3), win, 2 * n_fft + 7, pad_mode=mode)
    check_identities(kind, n_fft, n_fft + 2, win, 5 * n_fft + 7, pad_mode=mode)


@pytest.mark.parametrize("arguments", ISTFTS, ids=str)
@pytest.mark.parametrize("is_complex", [False, True])
def test_the_adjoint_of_an_istft_in_blocks(arguments: dict[str, Any], is_complex: bool) -> None:
    check_istft(arguments, is_complex)


@pytest.mark.parametrize("arguments", ISTFTS, ids=str)
@pytest.mark.parametrize("is_complex", [False, True])
def test_the_adjoint_of_an_istft_by_kernels(
    emulated: Any, arguments: dict[str, Any], is_complex: bool
) -> None:
    check_istft(arguments, is_complex)


def test_long_signals_are_summed_without_losing_digits() -> None:
    """A window's gradient is a sum over every frame: blocks are summed in double precision."""
    signal = torch.ones(1, 1 << 21)
    params = stft_params(
        signal, torch.ones(8), n_fft=8, hop_length=4, center=False, return_complex=True
    )
    spectrum = torch.zeros(1, params.bins, params.frames, dtype=torch.complex64)
    spectrum[:, 0] = 0.1
    found = adjoints.correlation(Form(params, False, False), signal, spectrum)
    exact = float(torch.tensor(0.1).double()) * params.frames
    assert torch.all((found.double() - exact).abs() < 2e-6 * exact)


def test_a_spectrum_need_not_be_dense_or_resolved() -> None:
    """Cotangents come expanded, conjugated, strided."""
    signal, window = random_tensor(0, 2, 90), random_tensor(1, 16)
    params = stft_params(signal, window, n_fft=16, hop_length=4)
    form = Form(params, False, False)
    base = random_tensor(2, 2, params.bins, 2 * params.frames, complex_values=True)
    for odd in (
        torch.tensor(1 + 2j).expand(2, params.bins, params.frames),
        base[..., ::2].conj(),
        base[:1, :, : params.frames].expand(2, -1, -1),
        torch._neg_view(base[..., : params.frames]),
    ):
        plain = odd.resolve_conj().resolve_neg().clone()
        for compute in (
            lambda z: adjoints.adjoint(form, z, window),
            lambda z: adjoints.correlation(form, signal, z),
        ):
            assert torch.equal(compute(odd), compute(plain))


@pytest.mark.parametrize("kernels", [False, True])
def test_an_empty_signal_has_an_empty_gradient(
    kernels: bool, request: pytest.FixtureRequest
) -> None:
    if kernels:
        request.getfixturevalue("emulated")
    signal, window = torch.zeros(2, 0), torch.ones(4)
    params = stft_params(signal, window, n_fft=4, hop_length=1, pad_mode="constant")
    spectrum = torch.ones(2, params.bins, params.frames, dtype=torch.complex64)
    form = Form(params, False, False)
    assert adjoints.adjoint(form, spectrum, window).shape == (2, 0)
    assert torch.equal(adjoints.correlation(form, signal, spectrum), torch.zeros(4))
