"""What every backend has to be, whoever computes: native's values and layout, and true adjoints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from computing import ROUTES, Computing, computing_by
from drawn_calls import check_drawn
from gradients import check_close, compare_derivatives
from map_identities import ISTFTS, KINDS, check_identities, check_istft
from needs import ONCE_ONLY
from patched import NATIVE
from reference import drawn, istft_params, native_call, random_tensor, stft_params
from strategies import istft_cases, stft_cases

from stft_parity.cases import Case, widen
from torch_mlx_spectro.backends.base import Backend
from torch_mlx_spectro.core.linear import Analysis
from torch_mlx_spectro.errors import UnresolvedArguments

pytestmark = ONCE_ONLY
#: Relative error, in the norm, below which native's own says nothing.
FEW_ROUNDINGS = 2.5e-7


@pytest.fixture(params=ROUTES)
def computing(request: pytest.FixtureRequest, metal_cache: Path) -> Iterator[Computing]:
    with computing_by(request.param, metal_cache) as found:
        yield found
    # Where it has kernels, these have computed what the test has asked for.
    assert found.launches is None or len(found.launches)


@pytest.fixture
def backend(computing: Computing) -> Backend:
    return computing.backend


@pytest.mark.parametrize("op", ["stft", "istft"])
def test_drawn_calls_are_natives(computing: Computing, op: str) -> None:
    """Over everything the parity tests draw: infinities, denormals, cancellation, views."""
    compared = 0

    @drawn(120 if computing.launches is None else 50)
    @hypothesis.given({"stft": stft_cases, "istft": istft_cases}[op]())
    def check(case: Case) -> None:
        nonlocal compared
        compared += check_drawn(computing.name, computing.backend, case)

    check()
    assert compared > 10


def kernels_of(computing: Computing) -> set[str]:
    """Names of the kernels that have been launched."""
    return {launch.kernel.removeprefix("spectro_") for launch in computing.launches or ()}


#: Sizes of no fused kernel.
UNFUSED = (22, 61)
STFTS: list[dict[str, Any]] = [
    {"n_fft": 16, "hop_length": 5},
    {"n_fft": 15, "hop_length": 4, "normalized": True},
    {"n_fft": 22, "hop_length": 7, "onesided": False},
    {"n_fft": 22, "hop_length": 30, "win_length": 9, "pad_mode": "circular"},
    {"n_fft": 16, "hop_length": 30, "win_length": 9, "pad_mode": "replicate"},
    {"n_fft": 16, "hop_length": 5, "center": False},
    {"n_fft": 16, "hop_length": 5, "return_complex": False},
    {"n_fft": 61, "hop_length": 11, "pad_mode": "constant"},
    {"n_fft": 1, "hop_length": 1},
]


def check_as_near(found: torch.Tensor, expected: torch.Tensor, exact: torch.Tensor) -> None:
    """As near to what is exact, in the norm, as native is, up to a factor of two."""
    assert (found.shape, found.dtype, found.stride()) == (
        expected.shape,
        expected.dtype,
        expected.stride(),
    )
    error, own = ((value.to(exact.dtype) - exact).norm() for value in (found, expected))
    assert error <= max(2 * own, FEW_ROUNDINGS * exact.norm()), (error / exact.norm(), own)


def wide(tensor: torch.Tensor | None) -> Any:
    return None if tensor is None else widen({"x": tensor})["x"]


@pytest.mark.parametrize("arguments", STFTS, ids=str)
@pytest.mark.parametrize("is_complex", [False, True])
def test_stft_is_natives(computing: Computing, arguments: dict[str, Any], is_complex: bool) -> None:
    backend = computing.backend
    if is_complex and "onesided" in arguments:
        arguments = {**arguments, "onesided": None}
    length = arguments.get("win_length", arguments["n_fft"])
    given = {"return_complex": True, **arguments}
    batch = random_tensor(0, 3, 100, complex_values=is_complex)
    for signal in (batch, batch[0], batch[:, ::2], batch[:1].expand(3, 100)):
        for window in (random_tensor(1, length), None):
            params = stft_params(signal, window, **given)
            found = backend.stft(params, signal, window)
            expected = native_call(NATIVE["stft"], signal, window=window, **given)
            exact = native_call(NATIVE["stft"], wide(signal), window=wide(window), **given)
            check_as_near(found, expected, exact)
    expected_kernel = "cut_frames" if arguments["n_fft"] in UNFUSED else "analysis"
    assert kernels_of(computing) <= {expected_kernel}


@pytest.mark.parametrize("arguments", ISTFTS, ids=str)
@pytest.mark.parametrize("is_complex", [False, True])
def test_istft_is_natives(
    computing: Computing, arguments: dict[str, Any], is_complex: bool
) -> None:
    backend, n_fft = computing.backend, arguments["n_fft"]
    bins = n_fft if is_complex else n_fft // 2 + 1
    given = {**arguments, "onesided": not is_complex, "return_complex": is_complex}
    # Imaginary parts of DC and Nyquist are among it, which are not read.
    spectrum = random_tensor(0, 2, bins, 9, complex_values=True)
    length = arguments.get("win_length", n_fft)
    window = random_tensor(1, length, complex_values=is_complex).abs() + 1
    if is_complex:
        window = window * (1 + 0.5j)
    for values in (spectrum, spectrum.conj(), spectrum[0]):
        for used in (window, None):
            params = istft_params(values, used, **given)
            found = backend.istft(params, values, used)
            expected = native_call(NATIVE["istft"], values, window=used, **given)
            exact = native_call(NATIVE["istft"], wide(values), window=wide(used), **given)
            check_as_near(found, expected, exact)
    fused = {"synthesis", "synthesis_walk"}
    assert kernels_of(computing) <= ({"add_frames"} if n_fft in UNFUSED else fused)


def test_a_two_sided_spectrum_of_a_real_signal(backend: Backend) -> None:
    """Of which native reads one half, whatever is in the other."""
    window = torch.hann_window(22) + 0.1
    spectrum = random_tensor(0, 2, 22, 9, complex_values=True)
    params = istft_params(spectrum, window, n_fft=22, hop_length=7, onesided=False)
    found = backend.istft(params, spectrum, window)
    expected = native_call(NATIVE["istft"], spectrum, 22, 7, window=window, onesided=False)
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(("n_fft", "hop"), [(128, 2), (128, 33), (60, 1), (22, 1)])
def test_windows_of_many_pieces_lose_no_digits(backend: Backend, n_fft: int, hop: int) -> None:
    window = torch.hann_window(n_fft) + 0.1
    frames = 3 * n_fft // hop
    spectrum = torch.fft.rfft(random_tensor(0, 1, frames, n_fft)).transpose(1, 2)
    params = istft_params(spectrum, window, n_fft=n_fft, hop_length=hop)
    found = backend.istft(params, spectrum, window)
    expected = NATIVE["istft"](spectrum, n_fft, hop, window=window)
    check_as_near(found, expected, NATIVE["istft"](wide(spectrum), n_fft, hop, window=wide(window)))


@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize("n_fft", [64, 60, 15, 22])
def test_vanishing_is_found_where_native_finds_it(
    backend: Backend, n_fft: int, is_complex: bool
) -> None:
    """At samples that are kept, and at no others: windows with holes, ends that are left out."""
    generator = torch.Generator().manual_seed(n_fft)
    bins = n_fft if is_complex else n_fft // 2 + 1
    refused = 0
    for turn in range(60):
        win, frames, hop = (
            n_fft - turn % 3,
            1 + turn % 7,
            (n_fft // 4, n_fft // 3, n_fft // 2)[turn % 3],
        )
        window = (torch.rand(win, generator=generator) > 0.2 * (turn % 4)).float()
        if is_complex:
            window = window.to(torch.complex64) * (1 + 0.5j)
        center = turn % 2 == 0 and frames > 2
        length = (None, hop + 1, n_fft, 10 * n_fft)[turn % 4]
        more: dict[str, Any] = {"center": center, "length": length, "return_complex": is_complex}
        spectrum = torch.ones(1, bins, frames, dtype=torch.complex64)
        sizes = {"n_fft": n_fft, "hop_length": hop, "win_length": win}
        try:
            expected = NATIVE["istft"](spectrum, window=window, **sizes, **more)
        except RuntimeError:
            expected = None
        params = istft_params(spectrum, window, **sizes, **more)
        if expected is None:
            refused += 1
            with pytest.raises(UnresolvedArguments):
                backend.istft(params, spectrum, window)
            with pytest.raises(UnresolvedArguments):
                backend.check_envelope(params, window)
        else:
            backend.check_envelope(params, window)
            found = backend.istft(params, spectrum, window)
            assert torch.allclose(found, expected, atol=1e-4), (win, hop, frames, more)
    assert 5 < refused < 55


def test_single_precision_whatever_the_default_is(backend: Backend) -> None:
    signal = random_tensor(0, 1, 90)
    spectrum = random_tensor(0, 1, 9, 5, complex_values=True)
    of_signal = stft_params(signal, None, n_fft=16, normalized=True, win_length=11)
    of_spectrum = istft_params(spectrum, None, n_fft=16)
    expected = backend.stft(of_signal, signal, None), backend.istft(of_spectrum, spectrum, None)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(backend.stft(of_signal, signal, None), expected[0])
        assert torch.equal(backend.istft(of_spectrum, spectrum, None), expected[1])
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_fft", [16, 15, 1, 2, 22, 130], ids=lambda n: f"n{n}")
def test_identities(backend: Backend, kind: str, n_fft: int) -> None:
    """Sizes that a fused kernel covers, and sizes where another transform stands between."""
    win = max(1, n_fft - 3)
    for mode in ("reflect", "replicate", "circular", "constant"):
        samples = 2 * n_fft + 7
        check_identities(backend, kind, n_fft, max(1, n_fft // 3), win, samples, pad_mode=mode)
        check_identities(backend, kind, n_fft, n_fft + 2, win, 5 * n_fft + 7, pad_mode=mode)
    check_identities(backend, kind, n_fft, max(1, n_fft // 2), win, 3 * n_fft, center=False)
    check_identities(backend, kind, n_fft, max(1, n_fft // 2), win, 3 * n_fft, edge=0.5)


def test_drawn_identities(computing: Computing) -> None:
    @drawn(150 if computing.launches is None else 25)
    @hypothesis.given(data=hypothesis.strategies.data())
    def check(data: Any) -> None:
        draw, st = data.draw, hypothesis.strategies
        kind, n_fft = draw(st.sampled_from(KINDS)), draw(st.integers(1, 70))
        hop, win = draw(st.integers(1, 90)), draw(st.integers(1, n_fft))
        mode = draw(st.sampled_from(["reflect", "replicate", "circular", "constant", None]))
        call: dict[str, Any] = {"center": mode is not None, "normalized": draw(st.booleans())}
        if mode is not None:
            call["pad_mode"] = mode
        samples = n_fft + draw(st.integers(0, 300))
        check_identities(computing.backend, kind, n_fft, hop, win, samples, **call)

    check()


@pytest.mark.parametrize("arguments", ISTFTS, ids=str)
@pytest.mark.parametrize("is_complex", [False, True])
def test_adjoints_of_istft(backend: Backend, arguments: dict[str, Any], is_complex: bool) -> None:
    check_istft(backend, arguments, is_complex)


def test_long_signals_are_summed_without_losing_digits(computing: Computing) -> None:
    """A window's gradient is a sum over every frame, of as many digits as its terms have."""
    samples = 1 << (21 if computing.launches is None else 17)
    signal = torch.ones(1, samples)
    window = torch.ones(8)
    params = stft_params(signal, window, n_fft=8, hop_length=4, center=False)
    spectrum = torch.zeros(1, params.bins, params.frames, dtype=torch.complex64)
    spectrum[:, 0] = 0.1
    analysis = Analysis(params, False, False)
    found = (
        computing.backend.differentiate_window(analysis, signal, spectrum) * analysis.inverse_scale
    )
    exact = float(torch.tensor(0.1).double()) * params.frames
    assert torch.all((found.double() - exact).abs() < 2e-6 * exact)


def test_a_spectrum_need_not_be_dense_or_resolved(backend: Backend) -> None:
    """Cotangents come expanded, conjugated, strided."""
    signal, window = random_tensor(0, 2, 90), random_tensor(1, 16)
    params = stft_params(signal, window, n_fft=16, hop_length=4)
    analysis = Analysis(params, False, False)
    base = random_tensor(2, 2, params.bins, 2 * params.frames, complex_values=True)
    for odd in (
        torch.tensor(1 + 2j).expand(2, params.bins, params.frames),
        base[..., ::2].conj(),
        base[:1, :, : params.frames].expand(2, -1, -1),
        torch._neg_view(base[..., : params.frames]),
    ):
        plain = odd.resolve_conj().resolve_neg().clone()
        for compute in (
            lambda z: backend.adjoint(analysis, z, window),
            lambda z: backend.differentiate_window(analysis, signal, z),
        ):
            assert torch.equal(compute(odd), compute(plain))


@pytest.mark.parametrize(
    ("op", "arguments"),
    [
        ("stft", {"n_fft": 16, "hop_length": 4, "return_complex": True}),
        ("stft", {"n_fft": 22, "hop_length": 7, "return_complex": True, "pad_mode": "circular"}),
        ("istft", {"n_fft": 16, "hop_length": 4}),
        ("istft", {"n_fft": 22, "hop_length": 7, "length": 70}),
    ],
    ids=str,
)
def test_derivatives_are_natives(computing: Computing, op: str, arguments: dict[str, Any]) -> None:
    """Of first and second order, forward and backward, each call by the backend that is asked."""
    n_fft = arguments["n_fft"]
    tensor = random_tensor(0, 2, 100)
    if op == "istft":
        tensor = random_tensor(0, 2, n_fft // 2 + 1, 12, complex_values=True)
    window = random_tensor(1, n_fft).abs() + 0.5
    names = compare_derivatives(
        lambda x, w: computing.call(op, x, w, **arguments),
        lambda x, w: NATIVE[op](x, window=w, **arguments),
        {"input": tensor, "window": window},
    )
    assert {"value", "gradient of input", "gradient of window", "tangent"} <= names


@pytest.mark.parametrize("is_complex", [False, True])
def test_gradients_of_complex_windows_and_two_sided_spectra(
    computing: Computing, is_complex: bool
) -> None:
    signal = random_tensor(0, 2, 100).requires_grad_()
    window = random_tensor(1, 11, complex_values=is_complex).requires_grad_()
    given = {"n_fft": 16, "hop_length": 5, "win_length": 11, "onesided": False}
    given["return_complex"] = True

    def gradients(result: torch.Tensor, leaves: Any) -> Any:
        weight = random_tensor(2, *result.shape, complex_values=True).to(result.dtype)
        return torch.autograd.grad(result, leaves, weight)

    leaves = (signal, window)
    found = gradients(computing.call("stft", signal, window, **given), leaves)
    expected = gradients(NATIVE["stft"](signal, window=window, **given), leaves)
    doubles = [wide(leaf).requires_grad_() for leaf in leaves]
    exact = gradients(NATIVE["stft"](doubles[0], window=doubles[1], **given), doubles)
    for name, ours, theirs, true in zip(("signal", "window"), found, expected, exact, strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        check_close(name, ours, theirs, true)


def test_results_are_apart_from_autograd(backend: Backend) -> None:
    """Which derivatives there are is said around the maps."""
    signal = random_tensor(0, 2, 100).requires_grad_()
    window = (random_tensor(1, 16).abs() + 1).requires_grad_()
    of_signal = stft_params(signal, window, n_fft=16, hop_length=4)
    spectrum = backend.stft(of_signal, signal, window)
    assert not spectrum.requires_grad
    leaf = spectrum.requires_grad_()
    of_spectrum = istft_params(leaf, window, n_fft=16, hop_length=4)
    assert not backend.istft(of_spectrum, leaf, window).requires_grad
    analysis = Analysis(of_signal, False, False)
    assert not backend.adjoint(analysis, leaf, window).requires_grad
    assert not backend.differentiate_window(analysis, signal, leaf).requires_grad
