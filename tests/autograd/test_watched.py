"""Backward passes that somebody watches: tracers, fake tensors, modes, compiled autograd.

The calls were made before, by one of our backends. Whoever watches is shown torch's operations, as
natively, and their results are native's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from computing import ROUTES, Computing, computing_by
from needs import ONCE_ONLY
from reference import close, istft_params, random_tensor, stft_params
from torch._dynamo import compiled_autograd
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

import torch_mlx_spectro as tms
from torch_mlx_spectro.autograd import linear_maps
from torch_mlx_spectro.autograd.linear_maps import Task
from torch_mlx_spectro.autograd.plain_maps import PLAIN_MAPS
from torch_mlx_spectro.backends import registry
from torch_mlx_spectro.core.linear import Analysis

pytestmark = [
    *ONCE_ONLY,
    # torch looks at it as it makes a tensor fake.
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
]
WINDOW = random_tensor(50, 16).abs() + 0.5
SIZES: dict[str, Any] = {"n_fft": 16, "hop_length": 5}
STFT = SIZES | {"return_complex": True}
Call = Callable[..., torch.Tensor]
#: By name: function, shape, whether it is complex, arguments, and whether the window is trained.
CASES: dict[str, tuple[str, tuple[int, ...], bool, dict[str, Any], bool]] = {
    "stft": ("stft", (3, 100), False, STFT, False),
    "stft of one dimension, in pairs": (
        *("stft", (100,), False),
        *(STFT | {"return_complex": False, "pad_mode": "circular"}, False),
    ),
    "stft, trained": ("stft", (3, 100), False, STFT | {"pad_mode": "replicate"}, True),
    "istft": ("istft", (3, 9, 20), True, SIZES, False),
    "istft of one dimension": ("istft", (9, 20), True, SIZES | {"length": 60}, False),
    "istft, trained": ("istft", (3, 9, 20), True, SIZES, True),
}


@pytest.fixture(params=ROUTES)
def computing(request: pytest.FixtureRequest, metal_cache: Path) -> Iterator[Computing]:
    tms.clear_caches()
    with computing_by(request.param, metal_cache) as found:
        yield found
    assert found.launches is None or found.launches


def natively(op: str, tensor: torch.Tensor, window: torch.Tensor, **given: Any) -> torch.Tensor:
    result: torch.Tensor = getattr(torch, op)(tensor, window=window, **given)
    return result


class Computed:
    """A call that was made, ready to be differentiated."""

    def __init__(self, call: Call, name: str) -> None:
        op, shape, is_complex, given, is_trained = CASES[name]
        tensor = random_tensor(1, *shape, complex_values=is_complex).requires_grad_()
        window = WINDOW.clone().requires_grad_(is_trained)
        self.leaves = [tensor, window] if is_trained else [tensor]
        self.result = call(op, tensor, window, **given)
        kind = {"complex_values": self.result.is_complex()}
        self.cotangent = random_tensor(2, *self.result.shape, **kind)

    def differentiate(self, cotangent: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(self.result, self.leaves, cotangent, retain_graph=True)


@pytest.fixture(params=CASES)
def both(request: pytest.FixtureRequest, computing: Computing) -> tuple[Computed, Computed]:
    """A call natively, and by the backend where it comes again."""
    for _ in range(2):
        earlier = Computed(computing.call, request.param)
        earlier.differentiate(earlier.cotangent)
    return Computed(natively, request.param), Computed(computing.call, request.param)


def test_make_fx_records_what_computes_a_gradient(both: tuple[Computed, Computed]) -> None:
    expected, found = both

    def differentiate(cotangent: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return found.differentiate(cotangent)

    for function in (differentiate, torch.func.functionalize(differentiate)):
        traced = make_fx(function)(found.cotangent)
        other = found.cotangent.flip(-1) * 2
        for one, native in zip(traced(other), expected.differentiate(other), strict=True):
            close(one.detach(), native, 5e-6)


def test_fake_cotangents_have_fake_gradients(both: tuple[Computed, Computed]) -> None:
    """Nothing reads or writes memory that a fake tensor does not have."""
    for computed in both:
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            fakes = computed.differentiate(mode.from_tensor(computed.cotangent))
        for fake, real in zip(fakes, both[0].differentiate(both[0].cotangent), strict=True):
            assert isinstance(fake, FakeTensor)
            assert (fake.shape, fake.dtype, fake.stride()) == (
                real.shape,
                real.dtype,
                real.stride(),
            )


class Recording(TorchDispatchMode):
    """Notes the operations that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.seen.append(str(function))
        return function(*args, **(kwargs or {}))


def test_a_mode_sees_a_transform(both: tuple[Computed, Computed]) -> None:
    expected, found = both
    with Recording() as mode:
        gradients = found.differentiate(found.cotangent)
    assert any("_fft_" in name for name in mode.seen)
    for one, native in zip(gradients, expected.differentiate(expected.cotangent), strict=True):
        close(one, native, 5e-6)
    functional = torch.func.functionalize(found.differentiate)(found.cotangent)
    for one, native in zip(functional, gradients, strict=True):
        close(one, native, 5e-6)


def test_compiled_autograd_computes_gradients(both: tuple[Computed, Computed]) -> None:
    gradients = []
    for computed in both:
        torch.compiler.reset()
        loss = computed.result.abs().square().sum()
        with compiled_autograd._enable(torch.compile(backend="eager")):
            loss.backward()
        gradients.append([leaf.grad for leaf in computed.leaves])
    for native, one in zip(*gradients, strict=True):
        assert native is not None
        assert one is not None
        close(one, native, 5e-6)


@pytest.mark.parametrize("name", ["stft", "istft"])
def test_compiled_autograd_of_calls_that_are_compared_and_timed(name: str) -> None:
    def compared(op: str, tensor: torch.Tensor, window: torch.Tensor, **given: Any) -> torch.Tensor:
        with tms.backend("cpu", strict=True, verify=1):
            result: torch.Tensor = getattr(tms, op)(tensor, window=window, **given)
        return result

    gradients = []
    for call in (natively, compared):
        computed = Computed(call, name)
        torch.compiler.reset()
        with compiled_autograd._enable(torch.compile(backend="eager")):
            computed.result.abs().square().sum().backward()
        gradients.append(computed.leaves[0].grad)
    assert gradients[0] is not None
    assert gradients[1] is not None
    close(gradients[1], gradients[0], 5e-6)
    assert tms.stats().calls == {(CASES[name][0], "cpu"): 1}


#: Arguments of stft that the maps have cases for, and whether signal and window are complex.
MAPPED: list[tuple[dict[str, Any], bool, bool]] = [
    *(({"pad_mode": mode}, False, False) for mode in ("reflect", "constant", "replicate")),
    ({"pad_mode": "circular", "onesided": False, "normalized": True}, False, False),
    ({"center": False, "win_length": 11}, True, False),
    ({"onesided": False}, False, True),
    ({"n_fft": 15, "win_length": 11}, False, False),
]


@pytest.mark.parametrize("windowed", [True, False])
def test_each_map_is_the_backends(windowed: bool) -> None:
    def check(name: str, subject: Any, *pair: Any) -> torch.Tensor:
        task = Task(registry.load("cpu"), subject)
        expected: torch.Tensor = getattr(linear_maps, f"compute_{name}")(task, *pair)
        found = PLAIN_MAPS[name](task, *pair)
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype), (name, subject)
        close(found, expected, 5e-6)
        return expected

    for given, complex_signal, complex_window in MAPPED:
        given = {"n_fft": 16, "hop_length": 5, "return_complex": True, **given}
        signal = random_tensor(1, 3, 100, complex_values=complex_signal)
        length = given.get("win_length", given["n_fft"])
        window = random_tensor(2, length, complex_values=complex_window) if windowed else None
        is_complex_window = complex_window and windowed
        params = stft_params(signal, window, **given)
        analysis = Analysis(params, complex_signal, is_complex_window)
        spectrum = check("analysis", analysis, signal, window)
        check("adjoint", analysis, spectrum, window)
        if window is not None:
            check("correlation", analysis, signal, spectrum)
    for given in ({}, {"length": 120}, {"onesided": False, "return_complex": True}):
        bins = 16 if "onesided" in given else 9
        spectrum = random_tensor(3, 3, bins, 20, complex_values=True)
        window = WINDOW if windowed else None
        params_back = istft_params(spectrum, window, **SIZES, **given)
        check("inverse", params_back, spectrum, window)
        kind = {"complex_values": params_back.return_complex}
        cotangent = random_tensor(4, 3, params_back.output_length, **kind)
        check("inverse_adjoint", params_back, cotangent, window)
