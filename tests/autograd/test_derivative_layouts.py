"""The order in memory of gradients, tangents and vmapped results: native's, as far as it shows.

Every expectation is what native does in the same run. Each of our backends computes the calls, and
every test asserts that it did.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from every_backend import CALLS, SHORT, WINDOW, Call, given_tensor, natively
from every_backend import ours as ours
from gradients import torchs_own_warnings
from hypothesis import HealthCheck, example, given, settings
from needs import ONCE_ONLY
from reference import close, random_tensor
from strategies import PAD_MODES
from torch.func import grad, jacrev, jvp, vjp, vmap

pytestmark = ONCE_ONLY


def observed(tensor: torch.Tensor) -> tuple[int | None, ...]:
    """The strides along which there is more than one value."""
    return tuple(
        stride if size > 1 else None
        for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
    )


def layouts(tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """A tensor (rows, ..., last) in several orders of memory, and with memory that is shared."""
    wide = torch.cat([tensor, tensor], -1)
    found = {
        "contiguous": tensor,
        "last outermost": tensor.movedim(-1, 0).contiguous().movedim(0, -1),
        "cut": wide[..., : tensor.shape[-1]],
        "every other": torch.stack([tensor, tensor], -1).flatten(-2)[..., ::2],
        "one row for all": tensor[:1].expand_as(tensor),
        "one value for all of a row": tensor[..., :1].expand_as(tensor),
    }
    if tensor.is_complex():
        found["conjugated"] = tensor.conj()
    else:
        found["overlapping rows"] = torch.cat([*tensor]).as_strided(tensor.shape, (4, 1))
    return found


DIFFERENTIATED: list[tuple[str, dict[str, Any]]] = [
    ("stft", {"pad_mode": "circular", "onesided": False}),
    ("stft", {"center": False, "hop_length": 16}),
    ("stft", {"center": False, "return_complex": False, "window": SHORT, "win_length": 12}),
    ("istft", {}),
    ("istft", {"length": 120}),
    ("istft", {"window": SHORT, "win_length": 12, "onesided": False}),
    ("istft", {"onesided": False, "return_complex": True}),
]


def gradients(
    call: Call, op: str, tensor: torch.Tensor, of_window: bool, arguments: dict[str, Any]
) -> list[torch.Tensor]:
    """First and second derivatives in the input, and in the window."""
    leaf = tensor.detach().requires_grad_()
    window = arguments.get("window", WINDOW).clone().requires_grad_(of_window)
    leaves = [leaf, window] if of_window else [leaf]
    given = {**arguments, "window": window}
    result = call(op, leaf, **given)
    weight = torch.linspace(0.5, 1.5, result.numel()).view(result.shape)
    loss = (weight * result.abs().pow(3)).sum()
    first = torch.autograd.grad(loss, leaves, create_graph=True)
    second = torch.autograd.grad(sum(one.abs().square().sum() for one in first), leaves)
    return [one.detach() for one in (*first, *second)]


@pytest.mark.parametrize("of_window", [False, True], ids=["input", "input and window"])
def test_gradients_have_natives_strides(ours: Call, of_window: bool) -> None:
    differing = []
    for op, arguments in DIFFERENTIATED:
        bins = 16 if arguments.get("onesided") is False and op == "istft" else 9
        for name, tensor in layouts(given_tensor(op, 3, bins)).items():
            for one in (tensor, tensor[0]):
                given = (op, one, of_window, arguments)
                expected, actual = gradients(natively, *given), gradients(ours, *given)
                for index, (wanted, got) in enumerate(zip(expected, actual, strict=True)):
                    if observed(wanted) != observed(got):
                        differing.append(
                            (op, arguments, name, index, wanted.stride(), got.stride())
                        )
                    close(got.resolve_conj(), wanted.resolve_conj(), 2e-5)
    assert not differing


@st.composite
def drawn_small_calls(draw: Any) -> tuple[str, torch.Tensor, dict[str, Any], bool]:
    """A call that has sizes of one: of the batch, the frames or the bins; and how it is trained."""
    n_fft, rows = draw(st.sampled_from([16, 16, 1])), draw(st.integers(0, 2))
    frames, hop = draw(st.sampled_from([1, 1, 2, 5])), draw(st.sampled_from([4, 16]))
    made: dict[str, Any] = {"n_fft": n_fft, "hop_length": min(hop, n_fft)}
    op = draw(st.sampled_from(["stft", "istft"]))
    made["window"] = random_tensor(5, n_fft).abs() + 0.5
    if op == "stft":
        made |= {"center": draw(st.booleans()), "pad_mode": draw(st.sampled_from(PAD_MODES))}
        made["return_complex"] = draw(st.booleans())
        shape: tuple[int, ...] = ((frames - 1) * made["hop_length"] + n_fft,)
    else:
        made["center"] = frames > 1 and draw(st.booleans())
        two_sided = draw(st.booleans())
        made |= {"onesided": not two_sided, "return_complex": two_sided and draw(st.booleans())}
        made["length"] = draw(st.sampled_from([None, 3, 30])) if n_fft > 1 else None
        shape = (n_fft if two_sided else n_fft // 2 + 1, frames)
    shape = shape if rows == 0 else (rows, *shape)
    tensor = random_tensor(1, *shape, complex_values=op == "istft")
    lay = draw(st.sampled_from(["contiguous", "odd", "cut", "transposed"]))
    if lay == "odd":  # any stride will do along a size of one
        pairs = zip(shape, tensor.stride(), strict=True)
        tensor = tensor.as_strided(shape, [7 if size == 1 else stride for size, stride in pairs])
    elif lay == "cut":
        tensor = torch.cat([tensor, tensor], -1)[..., : shape[-1]]
    elif lay == "transposed" and len(shape) > 1:
        tensor = tensor.mT.contiguous().mT
    return op, tensor, made, draw(st.booleans())


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(drawn_small_calls())
@example(("stft", random_tensor(1, 1, 32)[:, :16], {"center": False, "window": WINDOW}, False))
@example(("istft", random_tensor(1, 2, 9, 1, complex_values=True), {"center": False}, False))
@example(
    (
        *("istft", random_tensor(1, 16, 1, complex_values=True)),
        *({"center": False, "onesided": False}, False),
    )
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_strides_along_sizes_of_one_are_natives(
    ours: Call, drawn: tuple[str, torch.Tensor, dict[str, Any], bool]
) -> None:
    """Of results and of gradients, of the first call and of one that comes again."""
    op, tensor, arguments, of_window = drawn

    def list_strides(call: Call) -> list[tuple[int, ...]]:
        window = arguments.get("window", WINDOW).clone().requires_grad_(of_window)
        leaf = tensor.detach().requires_grad_()
        alone = call(op, tensor, **{**arguments, "window": window.detach()})
        result = call(op, leaf, **{**arguments, "window": window})
        leaves = [leaf, window] if of_window else [leaf]
        gradients = torch.autograd.grad(result.abs().square().sum(), leaves)
        return [one.stride() for one in (alone, result, *gradients)]

    try:
        expected = list_strides(natively)
    except RuntimeError:
        ours(op, given_tensor(op, 2))  # torch rejects the call
        return
    assert list_strides(ours) == list_strides(ours) == expected


#: By name: what is computed of a call of one tensor (examples first) and a window, and of windows.
TRANSFORMS: dict[str, Callable[[Any, torch.Tensor, torch.Tensor], Any]] = {
    "vmap": lambda f, x, w: vmap(f, (0, None))(x, w[0]),
    "vmap, last dimension in": lambda f, x, w: vmap(f, (-1, None))(x.movedim(0, -1), w[0]),
    "vmap, memory of another order": lambda f, x, w: vmap(f, (1, None))(
        x.movedim(0, 1).contiguous(), w[0]
    ),
    "vmap, last dimension out": lambda f, x, w: vmap(f, (0, None), -1)(x, w[0]),
    "vmap over windows": lambda f, x, w: vmap(f, (None, 0))(x[0], w),
    "vmap over both": lambda f, x, w: vmap(f)(x, w),
    "vmap of vmap": lambda f, x, w: vmap(vmap(f, (0, None)), (None, 0))(x, w),
    "vmap in autograd": lambda f, x, w: _in_autograd(vmap(f, (0, None)), x, w[0]),
    "vmap of vjp": lambda f, x, w: vmap(lambda x: _pulled(f, x, w[0]))(x),
    "vmap of jvp": lambda f, x, w: vmap(lambda x: jvp(f, (x, w[0]), (x, w[0])))(x),
    "vmap of grad": lambda f, x, w: vmap(grad(_energy(f)), (0, None))(x, w[0]),
    "vmap of grad in the window": lambda f, x, w: vmap(grad(_energy(f), 1), (0, None))(x, w[0]),
    "vjp of vmap": lambda f, x, w: _pulled(vmap(f, (0, None)), x, w[0]),
    "jvp of vmap": lambda f, x, w: jvp(vmap(f, (0, None)), (x, w[0]), (x, w[0])),
    "grad": lambda f, x, w: grad(_energy(f), (0, 1))(x[0], w[0]),
    "jvp": lambda f, x, w: jvp(f, (x[0], w[0]), (x[1], w[1])),
    "jacrev in the window": lambda f, x, w: jacrev(lambda w: f(x[0], w).abs()[..., :2])(w[0]),
    "batched cotangents": lambda f, x, w: _batched_gradients(f, x[0], w[0]),
}


def _energy(function: Any) -> Any:
    return lambda x, w: function(x, w).abs().pow(3).sum()


def _pulled(function: Any, *inputs: torch.Tensor) -> Any:
    value, pullback = vjp(function, *inputs)
    return value, *pullback(value)


def _in_autograd(function: Any, *inputs: torch.Tensor) -> Any:
    leaves = [one.clone().requires_grad_() for one in inputs]
    return torch.autograd.grad(_energy(function)(*leaves), leaves)


def _batched_gradients(function: Any, *inputs: torch.Tensor) -> Any:
    leaves = [one.clone().requires_grad_() for one in inputs]
    value = function(*leaves)
    cotangents = torch.stack([value.detach(), 2 * value.detach()])
    return torch.autograd.grad(value, leaves, cotangents, is_grads_batched=True)


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
@pytest.mark.parametrize("name", TRANSFORMS)
def test_results_of_transforms_have_natives_strides(ours: Call, name: str) -> None:
    windows = torch.stack([WINDOW, WINDOW + 1, WINDOW.flip(0)])
    differing = []
    for op, arguments in CALLS:
        bins = 16 if arguments.get("onesided") is False else 9
        for rows in (None, 2):
            shape = (3, *given_tensor(op, rows, bins).shape)
            examples = random_tensor(1, *shape, complex_values=op == "istft")
            # Kernels' tables that were first made under a transform of torch.func would be the
            # transform's, on MPS.
            gradients(ours, op, examples[0], True, arguments)
            found = []
            for call in (natively, ours):

                def function(
                    x: torch.Tensor,
                    w: torch.Tensor,
                    call: Call = call,
                    op: str = op,
                    arguments: dict[str, Any] = arguments,
                ) -> torch.Tensor:
                    return call(op, x, window=w, **arguments)

                with torchs_own_warnings():
                    results = TRANSFORMS[name](function, examples, windows)
                found.append(results if isinstance(results, tuple) else (results,))
            for wanted, got in zip(*found, strict=True):
                assert wanted.shape == got.shape
                if observed(wanted) != observed(got):
                    differing.append((op, arguments, rows, wanted.stride(), got.stride()))
    assert not differing
