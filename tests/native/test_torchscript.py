"""Scripted code that calls our functions: native's operators, and torch's private registries."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from reference import close, native_istft, native_stft, random_tensor

from torch_mlx_spectro import functional
from torch_mlx_spectro.native import functions as native
from torch_mlx_spectro.native import private_state as torch_state
from torch_mlx_spectro.native import torchscript

our_stft = functional.patched_stft
our_istft = functional.patched_istft
PAIRS: torchscript.Pairs = ((native.stft, our_stft), (native.istft, our_istft))


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """Installation is remembered for good; here each test installs anew."""
    torchscript.install.cache_clear()
    yield
    torchscript.install.cache_clear()


def scripted(function: Callable[..., Any]) -> Callable[..., Any]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit")  # another category from torch 2.14 on
        return torch.jit.script(function)


def centred(signal: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    return our_stft(signal, 16, hop_length=4, window=window, return_complex=True)


def uncentred(signal: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    return our_stft(
        signal, 16, 4, 16, window, False, "reflect", True, onesided=False, return_complex=True
    )


def inverse(spectrum: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    return our_istft(spectrum, 16, hop_length=4, window=window, length=90)


def test_scripted_code_gives_natives_results() -> None:
    """Including centring, which the bare operator ``aten::stft`` would not do."""
    assert torchscript.install(PAIRS)
    signal, window = random_tensor(0, 2, 100), torch.hann_window(16)
    spectrum = native_stft(signal, n_fft=16, hop_length=4, window=window)
    close(scripted(centred)(signal, window), spectrum)
    expected = native_stft(
        signal, n_fft=16, hop_length=4, window=window, center=False, normalized=True, onesided=False
    )
    close(scripted(uncentred)(signal, window), expected)
    back = native_istft(spectrum, n_fft=16, hop_length=4, window=window, length=90)
    close(scripted(inverse)(spectrum, window), back)


def test_scripted_code_calls_torchs_operators_and_not_python() -> None:
    """Saved modules run where this package is not installed."""
    torchscript.install(PAIRS)
    graph = str(scripted(inverse).inlined_graph) + str(scripted(centred).inlined_graph)
    assert "aten::istft" in graph
    assert "aten::stft" in graph
    assert "PythonOp" not in graph
    assert "torch_mlx_spectro" not in graph.replace(__file__, "")


def test_installing_again_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    original = torch.jit.script
    monkeypatch.setattr(torch.jit, "script", lambda what: (calls.append(what), original(what))[1])
    assert [torchscript.install(PAIRS) for _ in range(3)] == [True, True, True]
    assert calls == [native.stft]


def test_nothing_is_said_about_scripting_to_a_program_that_does_not_script() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torchscript.install(PAIRS)


@pytest.mark.parametrize("name", ["register_builtin", "keep_scripted"])
def test_a_torch_without_the_registries_is_told_and_left_alone(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered: list[Any] = []
    for other in ("register_builtin", "keep_scripted"):
        monkeypatch.setattr(torch_state, other, lambda *given: registered.append(given))
    monkeypatch.setattr(torch_state, name, None)
    assert torchscript.install(PAIRS) is False
    assert registered == []
