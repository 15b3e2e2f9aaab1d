"""Every state of torch that speaks against accelerating a call, brought about for real."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from torch_mlx_spectro.native import private_names
from torch_mlx_spectro.native import private_state as torch_state

PLAIN = torch.zeros(8)
DEVICES = ("cpu", "mps")


def ambient() -> list[str]:
    return torch_state.ambient_reasons()


class SeesAll(TorchDispatchMode):
    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return func(*args, **(kwargs or {}))


def in_trace() -> list[str]:
    """What is asked while torch.jit.trace runs the program."""
    inside: list[list[str]] = []

    def program(signal: torch.Tensor) -> torch.Tensor:
        inside.append([*ambient(), *["recorded"] * torch_state.is_recorded()])
        return signal + 1

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit")  # another category from torch 2.14 on
        torch.jit.trace(program, PLAIN)
    return inside[0]


def in_transform(transform: Callable[..., Any]) -> list[str]:
    """What is asked while a torch.func transform runs the program."""
    inside: list[list[str]] = []

    def program(signal: torch.Tensor) -> torch.Tensor:
        inside.append(ambient())
        return signal.sum()

    transform(program)(torch.ones(2, 3))
    return inside[0]


def test_function_transforms_are_known() -> None:
    """Their tensors are wrapped, and reach us plain only inside of our functions."""
    inside: list[tuple[bool, ...]] = []
    window = torch.zeros(4)

    def program(signal: torch.Tensor) -> torch.Tensor:
        inside.append(
            (
                torch_state.is_transformed(),
                torch_state.is_differentiated(signal),
                torch_state.is_constant(window),
                torch_state.is_constant(signal),
            )
        )
        return signal.sum()

    for transform in (torch.func.vmap, torch.func.grad, torch.func.jacrev):
        assert in_transform(transform) == []
        transform(program)(torch.ones(2, 3))
    assert inside == 3 * [(True, True, True, False)]
    assert not torch_state.is_transformed()


def test_functionalize_has_no_rule_for_custom_functions() -> None:
    reason = "torch.func.functionalize is active"
    assert in_transform(torch.func.functionalize) == [reason]
    assert in_transform(lambda f: torch.func.functionalize(torch.func.grad(f))) == [reason]


def test_tracing() -> None:
    assert in_trace() == ["torch.jit.trace is recording", "recorded"]
    assert not torch_state.is_recorded()


def test_dispatch_modes() -> None:
    reason = "a TorchDispatchMode is active"
    with SeesAll():
        assert ambient() == [reason]


@pytest.mark.filterwarnings("ignore:.*torch.jit")  # torch's own
def test_forward_mode_derivatives() -> None:
    with forward_ad.dual_level():
        assert ambient() == []
        assert torch_state.is_forward_mode()
        assert torch_state.is_differentiated(PLAIN)
        assert torch_state.is_constant(PLAIN)
        assert not torch_state.is_constant(forward_ad.make_dual(PLAIN, torch.ones(8)))
    assert not torch_state.is_forward_mode()


def test_reverse_mode_derivatives() -> None:
    leaf = torch.zeros(8, requires_grad=True)
    for tensors, differentiated in (((PLAIN, None), False), ((PLAIN, leaf), True)):
        assert torch_state.is_differentiated(*tensors) == differentiated
    assert (torch_state.is_constant(PLAIN), torch_state.is_constant(leaf)) == (True, False)
    with torch.no_grad():
        assert not torch_state.is_differentiated(leaf)
        assert torch_state.is_constant(leaf)


def test_gradients_batched_by_torchs_older_vmap_are_taken_apart() -> None:
    seen: list[Any] = []

    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(tensor: torch.Tensor) -> torch.Tensor:
            return 2 * tensor

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            pass

        @staticmethod
        def backward(ctx: Any, *cotangents: Any) -> Any:
            def stacked(values: torch.Tensor, other: Any, *dims: Any) -> torch.Tensor:
                seen.append((tuple(values.shape), other, dims))
                return 2 * values

            return torch_state.apply_by_example(stacked, cotangents[0], None)

    leaf = torch.ones(3, requires_grad=True)
    result: torch.Tensor = Doubled.apply(leaf)  # type: ignore[no-untyped-call]
    (batch,) = torch.autograd.grad(result, leaf, torch.eye(3)[:2], is_grads_batched=True)
    assert torch.equal(batch, 2 * torch.eye(3)[:2])
    assert seen == [((2, 3), None, (0, None))]
    assert torch_state.apply_by_example(lambda *args: None, leaf, None) is None


def test_nothing_speaks_against_a_plain_program() -> None:
    for state in (nullcontext(), torch.no_grad(), torch.inference_mode()):
        with state:
            assert ambient() == []
            assert torch_state.tensor_reasons("input", PLAIN, DEVICES) == []
            assert not torch_state.overrides(PLAIN)
    # Every state above has ended.
    assert (ambient(), torch_state.is_compiling()) == ([], False)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int32])
def test_other_dtypes(dtype: torch.dtype) -> None:
    tensor = torch.zeros(8, dtype=dtype)
    reason = f"dtype {dtype} of input is not accelerated"
    assert torch_state.tensor_reasons("input", tensor, DEVICES) == [reason]


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_accelerated_dtypes(dtype: torch.dtype) -> None:
    assert torch_state.tensor_reasons("input", torch.zeros(8, dtype=dtype), DEVICES) == []


class Tagged(torch.Tensor):
    """A subclass that might mean anything by its values."""


def wrapped() -> dict[str, Any]:
    with FakeTensorMode():
        fake = torch.zeros(8)
    return {"Tagged": PLAIN.as_subclass(Tagged), "FakeTensor": fake}


@pytest.mark.parametrize("name", ["Tagged", "FakeTensor"])
def test_other_types_are_asked_nothing_else(name: str) -> None:
    """Whatever else a wrapper says of itself may be a lie, or run its code."""
    reasons = torch_state.tensor_reasons("window", wrapped()[name], DEVICES)
    assert reasons == [f"window is a {name}, not a plain tensor"]


def test_other_layouts() -> None:
    sparse = torch.zeros(8).to_sparse()
    reasons = torch_state.tensor_reasons("input", sparse, DEVICES)
    assert reasons == ["layout torch.sparse_coo of input is not accelerated"]


def test_other_devices() -> None:
    meta = torch.zeros(8, device="meta")
    reason = "device meta of input is not accelerated"
    assert torch_state.tensor_reasons("input", meta, DEVICES) == [reason]
    assert torch_state.tensor_reasons("input", PLAIN, ()) == [
        "device cpu of input is not accelerated"
    ]


def test_every_reason_of_one_tensor() -> None:
    tensor = torch.zeros(8, dtype=torch.float64, device="meta")
    reasons = torch_state.tensor_reasons("input", tensor, DEVICES)
    assert len(reasons) == 2
    assert "dtype torch.float64" in reasons[0]
    assert "device meta" in reasons[1]


class Watches(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return func(*args, **(kwargs or {}))


def test_function_modes_and_classes_want_to_see_calls() -> None:
    modes: list[AbstractContextManager[Any]] = [Watches(), torch.device("cpu")]
    for mode in modes:
        with mode:
            assert torch_state.overrides(PLAIN)
    assert torch_state.overrides(PLAIN.as_subclass(Tagged))
    assert not torch_state.overrides(torch.nn.Parameter(PLAIN.clone()))
    assert not torch_state.overrides(None)


def test_what_is_computed_again_and_what_is_kept_elsewhere() -> None:
    seen: list[bool] = []

    def asked(tensor: torch.Tensor) -> torch.Tensor:
        seen.append(torch_state.recomputes())
        return tensor.exp()

    tensor = torch.ones(3, requires_grad=True)
    checkpoint(asked, tensor, use_reentrant=False).sum().backward()
    assert seen == [True, True]
    with torch.autograd.graph.saved_tensors_hooks(lambda kept: kept, lambda kept: kept):
        assert torch_state.recomputes()  # whatever they do
    with torch.autograd.graph.save_on_cpu():
        assert not torch_state.recomputes()
    assert not torch_state.recomputes()


def test_private_names_of_torch_are_there() -> None:
    """Where torch lacks one, a state would pass unseen: a new torch must be looked at."""
    missing = private_names.always(None).__qualname__
    found = private_names.Found()
    assert (found.absent, found.unseen) == ({}, [])
    assert torch_state._dispatch_modes == found.dispatch_modes
    for name in ("dispatch_modes", "tracing_state", "functorch_level", "functorch_stack"):
        question = getattr(found, name)
        assert getattr(question, "__qualname__", "") != missing, name
        assert not question()
    for name in ("is_batched", "is_wrapped"):
        assert getattr(found, name).__qualname__ != "<lambda>", name
    assert torch_state.backward_pass() == -1
    assert torch_state.is_deterministic.__name__ == "_get_deterministic_algorithms"
    assert torch_state.saved_tensors_hooks(False) is None
    for name in ("backward_pass", "saved_tensors_hooks"):
        assert getattr(found, name).__qualname__ != missing, name
    assert found.functionalize is not None
    assert private_names.always(0)() == 0
    assert hasattr(forward_ad, "_current_level")
