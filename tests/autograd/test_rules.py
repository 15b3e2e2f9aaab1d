"""The table of rules: every gradient in it is right, and no map can be without one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from gradients import wide
from map_identities import inner
from reference import istft_params, random_tensor, stft_params

from torch_mlx_spectro.autograd import derivatives, linear_maps
from torch_mlx_spectro.autograd.linear_maps import Task
from torch_mlx_spectro.autograd.rules import MAPS, build_maps
from torch_mlx_spectro.backends import registry
from torch_mlx_spectro.backends.cpu.backend import CPU, TorchBlocks
from torch_mlx_spectro.core.linear import RULES, Analysis, Gradient, Rule
from torch_mlx_spectro.native import functions as native

Tensor = torch.Tensor
N_FFT, HOP, WIN, LENGTH = 16, 5, 13, 90
SIZES = {"n_fft": N_FFT, "hop_length": HOP, "win_length": WIN}
KINDS = ["real", "complex"]


def _analyse(signal: Tensor, window: Tensor) -> Tensor:
    """Native's stft in double precision; twice as much of DC and Nyquist of real frames."""
    onesided = not signal.is_complex()
    spectrum = native.stft(signal, **SIZES, window=window, onesided=onesided, return_complex=True)
    edges = torch.ones(spectrum.shape[1], 1, dtype=torch.float64)
    if onesided:
        edges[[0, -1]] = 2.0
    return spectrum * edges


def _invert(spectrum: Tensor, window: Tensor) -> Tensor:
    is_complex = window.is_complex()
    return native.istft(
        spectrum,
        **SIZES,
        window=window,
        length=LENGTH,
        onesided=not is_complex,
        return_complex=is_complex,
    )


def _pull_back(function: Callable[[Tensor], Tensor], primal: Tensor, cotangent: Tensor) -> Tensor:
    return torch.func.vjp(function, primal)[1](cotangent)[0]


#: By the name of a map: the map in double precision, by native torch and its own derivatives. It is
#: given zeros of the kind of the gradient's argument, too.
REFERENCES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "analysis": lambda x, w, _: _analyse(x, w),
    "adjoint": lambda z, w, x: _pull_back(lambda x: _analyse(x, w), x, z),
    "correlation": lambda x, z, w: _pull_back(lambda w: _analyse(x, w), w, z),
    "inverse": lambda z, w, _: _invert(z, w),
    "inverse_adjoint": lambda y, w, z: _pull_back(lambda z: _invert(z, w), z, y),
}
#: The arguments of a map and its result.
ROLES = {
    "analysis": ("signal", "window", "spectrum"),
    "adjoint": ("spectrum", "window", "signal"),
    "correlation": ("signal", "spectrum", "window"),
    "inverse": ("spectrum", "window", "signal"),
    "inverse_adjoint": ("signal", "window", "spectrum"),
}


def make_task(name: str, kind: str) -> tuple[Task[Any], dict[str, Tensor]]:
    """A task of a map of the ``cpu`` backend, and tensors by their role."""
    is_complex = kind == "complex"
    signal = random_tensor(0, 2, LENGTH, complex_values=is_complex)
    window = random_tensor(1, WIN, complex_values=is_complex) + 3
    spectrum_of_signal = stft_params(signal, window, **SIZES, onesided=not is_complex)
    bins, frames = spectrum_of_signal.bins, spectrum_of_signal.frames
    spectrum = random_tensor(2, 2, bins, frames, complex_values=True)
    subject: Any = Analysis(spectrum_of_signal, is_complex, is_complex, 1.0 if is_complex else 2.0)
    if RULES[name].second is None:
        kinds = {"onesided": not is_complex, "return_complex": is_complex}
        subject = istft_params(spectrum, window, **SIZES, **kinds, length=LENGTH)
    return Task(CPU, subject), {"signal": signal, "window": window, "spectrum": spectrum}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", RULES)
def test_gradients_are_adjoints_of_the_map(name: str, kind: str) -> None:
    """<c, M(dx, y)> = <gradient(c, y), dx>, and so for the second argument.

    The left side is native's in double precision; the right side is what the table says, computed
    by a backend.
    """
    task, tensors = make_task(name, kind)
    *arguments, result = (tensors[role] for role in ROLES[name])
    exact = REFERENCES[name](*map(wide, (*arguments, torch.zeros_like(result))))
    cotangent = result.flip(0) + 1
    leaves = [tensor.clone().requires_grad_() for tensor in arguments]
    if RULES[name].second is None:
        leaves[1].requires_grad_(False)
    found = MAPS[name].apply(task, *leaves)
    assert type(found.grad_fn).__name__ == name.title().replace("_", "") + "Backward"
    scale = float(exact.norm() * cotangent.norm())
    assert float((found.detach() - exact).abs().max()) < 1e-5 * float(exact.abs().max())
    expected = inner(cotangent, exact)
    trained = [leaf for leaf in leaves if leaf.requires_grad]
    for leaf, gradient in zip(trained, torch.autograd.grad(found, trained, cotangent), strict=True):
        assert (gradient.dtype, gradient.shape) == (leaf.dtype, leaf.shape)
        assert abs(inner(gradient, leaf.detach()) - expected) < 1e-5 * scale


@pytest.mark.parametrize("name", RULES)
def test_examples_of_vmap_are_those_of_a_loop(name: str) -> None:
    task, tensors = make_task(name, "real")
    first, second = (tensors[role] for role in ROLES[name][:2])
    firsts, seconds = torch.stack([first, first + 1]), torch.stack([second, second * 2])

    def apply(a: Tensor, b: Tensor) -> Tensor:
        return MAPS[name].apply(task, a, b)

    for pairs, dims in (((firsts, second), (0, None)), ((firsts, seconds), (0, 0))):
        found = torch.func.vmap(apply, dims)(*pairs)
        each = [apply(firsts[i], pairs[1] if dims[1] is None else seconds[i]) for i in range(2)]
        torch.testing.assert_close(found, torch.stack(each))


@pytest.mark.parametrize("name", RULES)
def test_the_rule_of_vmap_tells_how_many_calls_there_are(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, tensors = make_task(name, "real")
    first, second = (tensors[role] for role in ROLES[name][:2])
    calls: list[Tensor] = []
    original = MAPS[name]._function

    def count(*given: Any) -> Tensor:
        calls.append(given[1])
        return original(*given)

    monkeypatch.setattr(MAPS[name], "_function", count)
    torch.func.vmap(lambda a: MAPS[name].apply(task, a, second))(torch.stack([first] * 3))
    assert len(calls) == (3 if name == "correlation" else 1)


def test_a_map_without_a_gradient_is_refused() -> None:
    computed = {name: found._function for name, found in MAPS.items()}
    assert build_maps(RULES, computed).keys() == RULES.keys()
    more: Any = {**computed, "shifted": linear_maps.compute_analysis}
    with pytest.raises(ValueError, match="for shifted"):
        build_maps(RULES, more)
    with pytest.raises(ValueError, match="for shifted"):
        build_maps({**RULES, "shifted": Rule(Gradient("adjoint"), None)}, computed)
    unknown = Rule(Gradient("adjoint"), Gradient("shifted adjoint"))
    with pytest.raises(ValueError, match="for shifted adjoint"):
        build_maps({**RULES, "shifted": unknown}, more)


def test_every_map_has_a_reference_here() -> None:
    """So a map that is added is compared, too."""
    assert REFERENCES.keys() == ROLES.keys() == RULES.keys()


def test_a_backend_is_looked_up_once_for_a_bound_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a call that is bound, nor its gradients of any order, ask for a backend by name."""
    signal, window = random_tensor(0, 2, LENGTH), random_tensor(1, WIN) + 3
    params = stft_params(signal, window, **SIZES)
    stft = derivatives.bind(params, CPU, signal, window)
    spectrum = random_tensor(2, 2, params.bins, params.frames, complex_values=True)
    istft = derivatives.bind(
        istft_params(spectrum, window, **SIZES, length=LENGTH), CPU, spectrum, window
    )

    def refuse(*given: Any) -> None:
        raise AssertionError("a backend is looked up")

    monkeypatch.setattr(registry, "load", refuse)
    for is_trained in (False, True):
        x, w = signal.clone().requires_grad_(), window.clone().requires_grad_(is_trained)
        leaves = (x, w) if is_trained else (x,)
        back = istft(stft(x, w), w)
        first = torch.autograd.grad(back.pow(3).sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum(one.pow(2).sum() for one in first), leaves)
        assert all(bool(one.isfinite().all()) for one in second)


class _Other(TorchBlocks):
    """A backend that counts, and is in no registry."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def analyse(self, *given: Any) -> Tensor:
        self.calls.append("analyse")
        return super().analyse(*given)

    def adjoint(self, *given: Any) -> Tensor:
        self.calls.append("adjoint")
        return super().adjoint(*given)


def test_derivatives_are_computed_by_the_object_that_was_bound() -> None:
    other, signal = _Other(), random_tensor(0, 2, LENGTH).requires_grad_()
    window = random_tensor(1, WIN)
    call = derivatives.bind(stft_params(signal.detach(), window, **SIZES), other, signal, window)
    (found,) = torch.autograd.grad(call(signal, window).abs().sum(), signal)
    assert other.calls == ["analyse", "adjoint"]
    assert found.shape == signal.shape
