"""Candidates: how they are named, and the adapters for those that are not quite torch's."""

from __future__ import annotations

import types
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch

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
from stft_parity.cases import istft_case, stft_case
from stft_parity.compare.comparison import compare_case

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


@pytest.mark.parametrize("adapt", [from_numpy, from_mlx])
def test_gradients_and_foreign_dtypes_are_unsupported(adapt: Any) -> None:
    with pytest.raises(Unsupported, match="gradients"):
        adapt(lambda signal: signal)(SIGNAL.clone().requires_grad_())
    if adapt is from_numpy:
        with pytest.raises(Unsupported, match="bfloat16"):
            adapt(lambda signal: signal)(SIGNAL.bfloat16())
    else:
        for dtype in (torch.float64, torch.complex128):
            with pytest.raises(Unsupported, match=str(dtype)):
                adapt(lambda signal: signal)(SIGNAL.to(dtype))


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
