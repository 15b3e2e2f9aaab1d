"""Candidates: how they are named, and the adapters for those that are not quite torch's."""

from __future__ import annotations

import types
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from small_calls import istft_case, stft_case

import stft_parity as parity
import torch_mlx_spectro as tms
from stft_parity import (
    Candidate,
    Unsupported,
    bound,
    from_mlx,
    from_numpy,
    load,
    native,
    with_arguments,
)
from stft_parity.compare.comparison import compare_case
from stft_parity.report import tables

SIGNAL = torch.randn(2, 40)


def stft(*args: Any, **kwargs: Any) -> torch.Tensor:
    return torch.stft(*args, **kwargs)


def my_istft(*args: Any, **kwargs: Any) -> torch.Tensor:
    return torch.istft(*args, **kwargs)


READY = Candidate(stft, None, "ready")
BOTH = types.SimpleNamespace(stft=stft, istft=my_istft)
NOTHING = 3


def made() -> Candidate:
    return READY


def fft(signal: torch.Tensor) -> torch.Tensor:
    return signal


@pytest.mark.parametrize(
    ("path", "functions"),
    [
        (f"{__name__}:READY", (stft, None)),
        (f"{__name__}:made", (stft, None)),
        (f"{__name__}:BOTH", (stft, my_istft)),
        (f"{__name__}:stft", (stft, None)),
        (f"{__name__}:my_istft", (None, my_istft)),
        (f"{__name__}:BOTH.istft", (None, my_istft)),
        (__name__, (stft, None)),
        ("torch", (torch.stft, torch.istft)),
    ],
)
def test_a_path_names_a_candidate(path: str, functions: tuple[Any, Any]) -> None:
    found = load(path)
    assert (found.stft, found.istft) == functions
    assert (found.function("stft"), found.function("istft")) == functions


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("no_such_module", "no_such_module"),
        (f"{__name__}:no_such_name", "no_such_name"),
        (f"{__name__}:NOTHING", "neither stft nor istft"),
        (f"{__name__}:fft", "neither stft nor istft"),
    ],
)
def test_a_path_to_nothing_is_refused(path: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        load(path)


def test_native_is_native_under_a_patch() -> None:
    before = native()
    with tms.patch(backend="mlx"):
        under = native()
        assert under.stft is not torch.stft
        assert under.istft is not torch.istft
    assert before == under
    assert (before.stft, before.istft) == (torch.stft, torch.istft)


def test_who_was_patched_first_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from stft_parity import candidates

    monkeypatch.setitem(candidates._NATIVE, "stft", stft)
    with pytest.raises(RuntimeError, match="replaced before"):
        native()
    monkeypatch.undo()
    monkeypatch.setitem(candidates._NATIVE, "istft", my_istft)
    with pytest.raises(RuntimeError, match="replaced before"):
        native()


def few(signal: torch.Tensor, n_fft: int, hop: int, window: torch.Tensor | None) -> Any:
    return (signal, n_fft, hop, window)


def test_fewer_arguments_are_passed_by_the_functions_names() -> None:
    adapted = with_arguments(few, {"n_fft": "n_fft", "hop_length": "hop", "window": "window"})
    adapted = partial(adapted, return_complex=True)
    window = torch.ones(8)
    expected = (SIGNAL, 8, 2, window)
    defaults = {"center": True, "pad_mode": "reflect", "onesided": None, "win_length": None}
    for found in (
        adapted(SIGNAL, 8, 2, window=window),
        adapted(SIGNAL, n_fft=8, hop_length=2, window=window, **defaults),
        adapted(input=SIGNAL, n_fft=8, hop_length=2, window=window),
        adapted(SIGNAL, 8, 2, None, window, True, "reflect", False),
    ):
        assert [a is b for a, b in zip(found, expected, strict=True)] == 4 * [True]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"center": False}, "center=False"),
        ({"pad_mode": "constant"}, "pad_mode='constant'"),
        ({"win_length": 4, "normalized": True}, "normalized=True, win_length=4"),
    ],
)
def test_other_arguments_are_unsupported(given: dict[str, Any], named: str) -> None:
    adapted = with_arguments(few, ["n_fft", "hop_length", "window"])
    with pytest.raises(Unsupported) as refused:
        adapted(SIGNAL, 8, 2, window=None, **given)
    assert str(refused.value) == named


def test_the_names_are_those_of_the_functions_parameters() -> None:
    adapted = with_arguments(lambda signal, n_fft, window=None, center=True: (n_fft, center))
    assert adapted(SIGNAL, 8, center=False, hop_length=None, return_complex=True) == (8, False)
    with pytest.raises(Unsupported, match="hop_length=2"):
        adapted(SIGNAL, 8, 2, return_complex=True)
    with pytest.raises(ValueError, match="no argument size"):
        with_arguments(lambda signal, size: None)


def test_a_complex_spectrum_is_meant_where_a_function_does_not_take_return_complex() -> None:
    adapted = with_arguments(few, {"n_fft": "n_fft", "hop_length": "hop", "window": "window"})
    complex_window = torch.ones(8, dtype=torch.complex64)
    for signal, window in ((SIGNAL + 0j, None), (SIGNAL, complex_window)):
        assert adapted(signal, 8, 2, window=window)[1] == 8
    for given in (False, None):
        with pytest.raises(Unsupported, match="pairs of real numbers"):
            adapted(SIGNAL, 8, 2, window=None, return_complex=given)
    with pytest.raises(Unsupported, match="pairs of real numbers"):
        adapted(SIGNAL + 0j, 8, 2, window=None, return_complex=False)
    # An istft without it returns a real signal, as torch's does by default.
    inverse = with_arguments(few, ["n_fft", "hop", "window"][:1], op="istft")
    with pytest.raises(Unsupported, match="return_complex=True"):
        inverse(SIGNAL + 0j, 8, return_complex=True)


def test_the_documented_adapter_compares_ordinary_calls() -> None:
    def analysis(signal: Any, n_fft: int, hop_length: Any = None, window: Any = None) -> Any:
        return torch.stft(signal, n_fft, hop_length, window=window, return_complex=True)

    cases = [case for case in parity.select("quick") if case.use == "plain"][:100]
    adapted = with_arguments(analysis, ["n_fft", "hop_length", "window"])
    report = parity.run(stft=adapted, cases=cases)
    assert report.counts()["unsupported"] < 70
    assert report.ordinary > 25
    assert not report.failures


def test_a_run_says_that_no_ordinary_call_was_compared() -> None:
    def refuses(*args: Any, **kwargs: Any) -> Any:
        torch.stft(*args, **kwargs)
        raise Unsupported("whatever torch computes")

    report = parity.run(stft=refuses, cases=[stft_case(), stft_case(input="x[:0]", fault="rows")])
    assert report.counts()["pass"] == 1  # both reject the second one
    assert (report.ordinary, report.ok, report.exit_code) == (0, False, 4)
    assert tables.conclude(report) == "no ordinary call was compared"
    assert tables.headline(report).startswith("no ordinary call was compared: ")
    # Nothing but calls that torch rejects is another matter: that was asked for.
    faults = parity.run(stft=refuses, cases=[stft_case(input="x[:0]", fault="rows")])
    assert (faults.ok, faults.refuses_all) == (True, False)
    assert parity.run(stft=torch.stft, cases=[stft_case()]).ordinary == 1


def test_arguments_of_neither_are_an_error() -> None:
    with pytest.raises(ValueError, match="no argument pad_mode"):
        with_arguments(few, ["n_fft", "pad_mode"], op="istft")
    with pytest.raises(TypeError, match="multiple values"):
        bound("stft", (SIGNAL, 8), {"n_fft": 8})
    with pytest.raises(TypeError, match="takes 10 arguments"):
        bound("istft", (SIGNAL, *range(10)), {})
    assert bound("stft", (SIGNAL, 8), {"center": True}).keys() == {"input", "n_fft", "center"}


def test_numpy_functions_get_arrays() -> None:
    seen: list[Any] = []

    def function(signal: Any, n_fft: int, **more: Any) -> Any:
        seen.extend((signal, more["window"]))
        return np.ones((3, 4), np.complex64).T

    result = from_numpy(function)(SIGNAL, 8, window=torch.ones(8).conj())
    assert [type(value) for value in seen] == [np.ndarray, np.ndarray]
    assert (result.dtype, result.shape, result.stride()) == (torch.complex64, (4, 3), (1, 4))
    lazily = from_numpy(lambda signal: signal)(torch.tensor([1 + 2j]).conj())
    assert lazily.tolist() == [1 - 2j]
    backwards = from_numpy(lambda signal: signal[::-1])(torch.tensor([1.0, 2.0]))
    assert backwards.tolist() == [2.0, 1.0]
    assert from_numpy(lambda signal: None)(SIGNAL) is None


def test_what_arrays_do_not_have_is_unsupported() -> None:
    with pytest.raises(Unsupported, match="gradients"):
        from_numpy(lambda signal: signal)(SIGNAL.clone().requires_grad_())
    with pytest.raises(Unsupported, match="bfloat16"):
        from_numpy(lambda signal: signal)(SIGNAL.bfloat16())
    for dtype in (torch.float64, torch.complex128):
        with pytest.raises(Unsupported, match=str(dtype)):
            from_mlx(lambda signal: signal)(SIGNAL.to(dtype))


def test_gradients_of_mlx_functions_are_those_of_vjp() -> None:
    function = from_mlx(lambda signal, size, window, step: (signal * window) ** 2 * size * step)
    signal, window = SIGNAL.clone().requires_grad_(), torch.ones(40, requires_grad=True)
    result = function(signal, np.int64(3), window=window, step=2)
    assert torch.allclose(result, 6 * SIGNAL**2)
    gradients = torch.autograd.grad(result.sum(), (signal, window))
    assert torch.allclose(gradients[0], 12 * SIGNAL)
    assert torch.allclose(gradients[1], (12 * SIGNAL**2).sum(0))
    with torch.no_grad():
        assert not function(signal, 3, window=window, step=2).requires_grad
    # Of complex numbers, too, as torch means them.
    spectrum = from_mlx(mx.fft.rfft)(signal)
    (found,) = torch.autograd.grad(spectrum, signal, torch.full_like(spectrum.detach(), 1 + 2j))
    expected = torch.fft.rfft(signal)
    (right,) = torch.autograd.grad(expected, signal, torch.full_like(expected.detach(), 1 + 2j))
    assert torch.allclose(found, right, atol=1e-5)


def test_mlx_functions_get_arrays() -> None:
    result = from_mlx(lambda signal, n_fft: mx.stack([signal] * n_fft))(SIGNAL, 3)
    assert result.shape == (3, 2, 40)
    assert torch.equal(result[1], SIGNAL)


def test_a_numpy_fft_is_compared_as_any_candidate() -> None:
    def analysis(signal: Any, n_fft: int, hop: int, window: Any) -> Any:
        half = n_fft // 2
        padded = np.pad(signal, ((0, 0), (half, half)), mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft, -1)[:, ::hop]
        return np.fft.rfft(frames * window).astype(np.complex64).swapaxes(-1, -2)

    names = {"n_fft": "n_fft", "hop_length": "hop", "window": "window", "return_complex": None}
    adapted = from_numpy(
        with_arguments(
            lambda signal, return_complex=None, **more: analysis(signal, **more),
            {name: own or name for name, own in names.items()},
        )
    )
    found = compare_case(stft_case(), adapted, torch.stft)
    assert found.differences == ()
    assert found.error is not None
    assert 0 < found.error <= 2
    refused = compare_case(stft_case(center="False"), adapted, torch.stft)
    assert str(refused.refused) == "center=False"
    assert compare_case(istft_case(), torch.istft, torch.istft).differences == ()
