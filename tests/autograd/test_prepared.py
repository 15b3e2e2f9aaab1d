"""Differentiated calls that come again: one launch forward, one back, and native's gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from computing import ROUTES, Computing, computing_by
from needs import ONCE_ONLY
from reference import close, random_tensor
from torch.utils.checkpoint import checkpoint

import torch_mlx_spectro as tms
from torch_mlx_spectro.autograd.prepared import MAX_LAYOUTS

pytestmark = ONCE_ONLY
WINDOW = random_tensor(50, 16).abs() + 0.5
SHORT = WINDOW[:11].clone()
SIZES: dict[str, Any] = {"n_fft": 16, "hop_length": 5}


@pytest.fixture(params=[route for route in ROUTES if route.id in ("mps-emulated", "cuda-stand-in")])
def computing(request: pytest.FixtureRequest, metal_cache: Path) -> Iterator[Computing]:
    tms.clear_caches()
    with computing_by(request.param, metal_cache) as found:
        yield found
    assert found.launches


def complete(op: str, given: dict[str, Any]) -> dict[str, Any]:
    return SIZES | ({"return_complex": True} if op == "stft" else {}) | given


def natively(op: str, tensor: torch.Tensor, window: Any, given: dict[str, Any]) -> torch.Tensor:
    result: torch.Tensor = getattr(torch, op)(tensor, window=window, **given)
    return result


#: Inputs and windows, and what differs from the usual arguments.
USUAL: dict[str, tuple[str, tuple[int, ...], bool, Any, dict[str, Any]]] = {
    "stft": ("stft", (3, 100), False, WINDOW, {}),
    "stft of one dimension": ("stft", (100,), False, WINDOW, {}),
    "stft in pairs": ("stft", (3, 100), False, WINDOW, {"return_complex": False}),
    "stft in pairs of one dimension": ("stft", (100,), False, WINDOW, {"return_complex": False}),
    "stft, two-sided": ("stft", (3, 100), False, WINDOW, {"onesided": False}),
    "stft, complex": ("stft", (3, 100), True, WINDOW, {}),
    "stft, not centred": ("stft", (3, 100), False, WINDOW, {"center": False}),
    "stft, constant": ("stft", (3, 100), False, WINDOW, {"pad_mode": "constant"}),
    "stft by a short window": ("stft", (3, 100), False, SHORT, {"win_length": 11}),
    "stft by no window": ("stft", (3, 100), False, None, {"normalized": True}),
    "istft": ("istft", (3, 9, 20), True, WINDOW, {}),
    "istft of one dimension": ("istft", (9, 20), True, WINDOW, {}),
    "istft with zeros behind it": ("istft", (3, 9, 20), True, WINDOW, {"length": 120}),
    "istft of one dimension with zeros": ("istft", (9, 20), True, WINDOW, {"length": 120}),
    "istft, shorter": ("istft", (3, 9, 20), True, WINDOW, {"length": 60}),
    "istft by a short window": ("istft", (3, 9, 20), True, SHORT, {"win_length": 11}),
    "istft, one frame": ("istft", (2, 9, 1), True, WINDOW, {"center": False}),
    "istft, complex": (
        *("istft", (3, 16, 20), True, WINDOW),
        {"onesided": False, "return_complex": True},
    ),
}
warns = pytest.mark.filterwarnings("ignore::UserWarning")


def is_same(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether two tensors are the same bits, and lie in memory alike."""
    return found.stride() == expected.stride() and torch.equal(found, expected)


@warns
@pytest.mark.parametrize("name", USUAL)
def test_a_call_that_comes_again_is_a_launch_forward_and_one_back(
    computing: Computing, name: str
) -> None:
    op, shape, is_complex, window, given = USUAL[name]
    given, launches = complete(op, given), computing.launches
    assert launches is not None

    def call(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[int]]:
        tensor = random_tensor(seed, *shape, complex_values=is_complex).requires_grad_()
        # The window and its copy are one kind of call.
        values = None if window is None else window.clone()
        counts = [len(launches)]
        result = computing.call(op, tensor, values, **given)
        counts.append(len(launches))
        cotangent = random_tensor(seed + 9, *result.shape, complex_values=result.is_complex())
        (gradient,) = torch.autograd.grad(result, tensor, cotangent)
        counts.append(len(launches))
        expected = natively(op, tensor, values, given)
        (natives,) = torch.autograd.grad(expected, tensor, cotangent)
        close(gradient, natives)
        assert (gradient.stride(), gradient.dtype) == (natives.stride(), natives.dtype)
        assert result._is_view() == expected._is_view()
        return result.detach(), gradient, cotangent, counts

    for seed in range(3):
        result, gradient, _, counts = call(seed)
    assert (counts[1] - counts[0], counts[2] - counts[1]) == (1, 1)
    tms.clear_caches()  # decided anew, by the general rules
    first_result, first_gradient, _, _ = call(2)
    assert is_same(result, first_result)
    assert is_same(gradient, first_gradient)


@pytest.mark.parametrize("op", ["stft", "istft"])
def test_a_checkpoint_may_compute_by_the_rules_and_then_by_a_launch(
    computing: Computing, op: str
) -> None:
    """Torch compares what the two computations of a checkpointed call have saved, in its order."""
    _, shape, is_complex, window, given = USUAL[op]
    given = complete(op, given)
    tensor = random_tensor(0, *shape, complex_values=is_complex).requires_grad_()
    result = checkpoint(
        lambda tensor: computing.call(op, tensor, window, **given), tensor, use_reentrant=False
    )
    assert isinstance(result, torch.Tensor)
    (gradient,) = torch.autograd.grad(result.abs().square().sum(), tensor)
    expected = natively(op, tensor, window, given).abs().square().sum()
    close(gradient, torch.autograd.grad(expected, tensor)[0])


#: Ways for a cotangent of shape (3, 9, 21) to lie in memory.
LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "contiguous": lambda values: values,
    "frames outermost": lambda values: values.mT.contiguous().mT,
    "conjugated": lambda values: values.conj(),
    "strided": lambda values: values.repeat_interleave(2, -1)[..., ::2],
    "expanded": lambda values: values[:1].expand(3, 9, 21),
    "within others": lambda values: torch.cat([values, values], -2)[:, 9:],
    "negative": lambda values: torch.view_as_complex(torch._neg_view(torch.view_as_real(values))),
}


def test_cotangents_lie_in_memory_as_they_do(computing: Computing) -> None:
    """Each is read as it lies, whichever came first, also where there are more than are kept."""
    given = complete("stft", {})
    for again in range(3):
        for lay in LAYOUTS.values():
            tensor = random_tensor(again, 3, 100).requires_grad_()
            cotangent = lay(random_tensor(again + 5, 3, 9, 21, complex_values=True))
            result = computing.call("stft", tensor, WINDOW, **given)
            (found,) = torch.autograd.grad(result, tensor, cotangent)
            expected = natively("stft", tensor, WINDOW, given)
            close(found, torch.autograd.grad(expected, tensor, cotangent)[0])
    for step in range(1, MAX_LAYOUTS + 2):
        cotangent = random_tensor(step, 3, 9, 21 * step, complex_values=True)[..., ::step]
        result = computing.call("stft", tensor, WINDOW, **given)
        (found,) = torch.autograd.grad(result, tensor, cotangent)
        expected = natively("stft", tensor, WINDOW, given)
        close(found, torch.autograd.grad(expected, tensor, cotangent)[0])


@pytest.mark.parametrize(
    "name", ["stft", "stft of one dimension", "istft", "istft of one dimension"]
)
def test_second_derivatives_and_batched_gradients(computing: Computing, name: str) -> None:
    op, shape, is_complex, window, given = USUAL[name]
    given = complete(op, given)
    tensor = random_tensor(1, *shape, complex_values=is_complex).requires_grad_()

    def differentiate(call: Callable[..., torch.Tensor]) -> list[torch.Tensor]:
        result = call(op, tensor, window, **given)
        kind = {"complex_values": result.is_complex()}
        cotangent = random_tensor(2, *result.shape, **kind).requires_grad_()
        options: dict[str, Any] = {"create_graph": True, "retain_graph": True}
        (first,) = torch.autograd.grad(result, tensor, cotangent, **options)
        (second,) = torch.autograd.grad(first.abs().square().sum(), cotangent, retain_graph=True)
        stacked = random_tensor(3, 4, *result.shape, **kind)
        (batched,) = torch.autograd.grad(result, tensor, stacked, is_grads_batched=True)
        return [first.detach(), second, batched]

    for _ in range(3):
        found = differentiate(computing.call)
    expected = differentiate(lambda op, *tensors, **given: natively(op, *tensors, given))
    for one, other in zip(found, expected, strict=True):
        close(one, other)


@pytest.mark.parametrize("op", ["stft", "istft"])
def test_a_transform_may_run_around_a_gradient_of_what_was_computed_before(
    computing: Computing, op: str
) -> None:
    """Whether it transforms the cotangent or nothing of the gradient."""
    _, shape, is_complex, window, given = USUAL[op]
    given = complete(op, given)
    tensor = random_tensor(1, *shape, complex_values=is_complex).requires_grad_()

    def differentiate(result: torch.Tensor) -> list[torch.Tensor]:
        cotangent = random_tensor(2, *result.shape, complex_values=result.is_complex())

        def pull_back(cotangent: torch.Tensor) -> torch.Tensor:
            (found,) = torch.autograd.grad(result, tensor, cotangent, retain_graph=True)
            return found.abs().square().sum()

        def scale(factor: torch.Tensor) -> torch.Tensor:
            return pull_back(cotangent) * factor

        return [
            torch.func.grad(pull_back)(cotangent),
            torch.func.grad(scale)(torch.ones(())),
            torch.func.vmap(torch.func.grad(scale))(torch.ones(2)),
            torch.autograd.grad(result, tensor, cotangent)[0],
        ]

    expected = differentiate(natively(op, tensor, window, given))
    for _ in range(3):
        found = differentiate(computing.call(op, tensor, window, **given))
        for one, other in zip(found, expected, strict=True):
            close(one, other)


@pytest.mark.parametrize("op", ["stft", "istft"])
def test_hooks_may_give_the_window_back_elsewhere(computing: Computing, op: str) -> None:
    """Whoever saves tensors for autograd may lay them out anew."""
    _, shape, is_complex, window, given = USUAL[op]
    given = complete(op, given)
    tensor = random_tensor(1, *shape, complex_values=is_complex).requires_grad_()

    def spread(saved: torch.Tensor) -> torch.Tensor:
        return saved.repeat_interleave(2, -1)[..., ::2]

    natives = natively(op, tensor, window, given)
    (expected,) = torch.autograd.grad(natives.abs().square().sum(), tensor)
    for hooked in (False, False, True, False):
        hooks = torch.autograd.graph.saved_tensors_hooks(spread, lambda saved: saved)
        with hooks if hooked else nullcontext():
            result = computing.call(op, tensor, window, **given)
        (found,) = torch.autograd.grad(result.abs().square().sum(), tensor)
        close(found, expected)


@pytest.mark.parametrize("op", ["stft", "istft"])
def test_a_window_is_read_as_it_was_where_its_data_is_replaced(
    computing: Computing, op: str
) -> None:
    """As of a parameter whose module is moved to another dtype; no later call reads as it lies."""
    _, shape, is_complex, window, given = USUAL[op]
    given = complete(op, given)
    tensor = random_tensor(1, *shape, complex_values=is_complex).requires_grad_()
    natives = natively(op, tensor, window, given)
    (expected,) = torch.autograd.grad(natives.abs().square().sum(), tensor)
    others = (window.repeat_interleave(2)[::2], window.double(), window[:5].clone())
    for data in (None, *others, None, *others):
        values = torch.nn.Parameter(window.clone(), requires_grad=False)
        result = computing.call(op, tensor, values, **given)
        if data is not None:
            values.data = data
        (found,) = torch.autograd.grad(result.abs().square().sum(), tensor)
        close(found, expected)


def test_what_native_refuses_is_refused_when_it_comes_again(computing: Computing) -> None:
    given = complete("stft", {})
    for _ in range(3):
        leaf = random_tensor(1, 3, 100).requires_grad_()
        tensor, window = leaf * 1, WINDOW.clone()
        result = computing.call("stft", tensor, window, **given).abs().sum()
        result.backward(retain_graph=True)
        result.backward()
        with pytest.raises(RuntimeError, match="a second time"):
            result.backward()
        for changed in (tensor, window):
            result = computing.call("stft", tensor, window, **given).abs().sum()
            with torch.no_grad():
                changed.mul_(2)
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                result.backward()


def test_a_part_of_a_sum_that_is_not_asked_for(computing: Computing) -> None:
    """Autograd hands on no cotangent where a result is not used, and zeros where it is."""
    given = complete("stft", {})
    for _ in range(3):
        leaf = random_tensor(1, 3, 100).requires_grad_()
        result = computing.call("stft", leaf, WINDOW, **given)
        (found,) = torch.autograd.grad((result * 0).abs().sum(), leaf)
        assert not found.any()
        assert torch.autograd.grad(leaf.sum(), result, allow_unused=True) == (None,)


#: Keyword arguments of an stft, whose gradients refer to the signal where it is reflected.
REFERRING: list[dict[str, Any]] = [
    {},
    *({"pad_mode": mode} for mode in ("constant", "replicate", "circular")),
    {"center": False},
]


@pytest.mark.parametrize("differentiated", ["x", "w", "xw", "xc", "wc", "xwc"])
def test_gradients_of_what_is_linear_can_be_differentiated_as_natively(
    computing: Computing, differentiated: str
) -> None:
    """Whether a first gradient requires one, and what it is: in the signal natively zeros."""

    def differentiate(call: Any, op: str, given: dict[str, Any], is_leaf: bool) -> list[Any]:
        shape = (3, 100) if op == "stft" else (3, 9, 20)
        leaf = random_tensor(1, *shape, complex_values=op == "istft")
        leaf.requires_grad_("x" in differentiated)
        window = WINDOW.clone().requires_grad_("w" in differentiated)
        # Nobody but autograd holds an input that is no leaf.
        result = call(op, leaf if is_leaf else leaf * 2, window, **given)
        cotangent = random_tensor(2, *result.shape, complex_values=result.is_complex())
        cotangent.requires_grad_("c" in differentiated)
        leaves = [one for one in (leaf, window, cotangent) if one.requires_grad]
        asked = [one for one in (leaf, window) if one.requires_grad]
        shown: list[Any] = []
        for first in torch.autograd.grad(result, asked, cotangent, create_graph=True):
            shown.append(first.requires_grad)
            if first.requires_grad:
                options: dict[str, Any] = {"retain_graph": True, "allow_unused": True}
                shown += torch.autograd.grad(first.abs().square().sum(), leaves, **options)
        return shown

    for op, more in [*(("stft", more) for more in REFERRING), ("istft", {})]:
        given = complete(op, more)
        for is_leaf in (True, False):
            expected = differentiate(
                lambda op, *pair, **given: natively(op, *pair, given), op, given, is_leaf
            )
            for _ in range(2):
                found = differentiate(computing.call, op, given, is_leaf)
                assert list(map(type, found)) == list(map(type, expected)), (op, more)
                for one, other in zip(found, expected, strict=True):
                    if isinstance(other, torch.Tensor):
                        close(one, other, 5e-6)
                    else:
                        assert one is other, (op, more)
