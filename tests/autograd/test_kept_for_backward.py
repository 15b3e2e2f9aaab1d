"""What a program may change in place before the backward pass, and what is kept for it.

Every expectation is what native does in the same run. Each of our backends computes the calls, and
every test asserts that it did.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from every_backend import SHORT, WINDOW, Call, given_tensor, natively, patched
from every_backend import ours as ours
from needs import ONCE_ONLY
from patched import accelerated_calls
from reference import close

import torch_mlx_spectro as tms

pytestmark = [
    *ONCE_ONLY,
    # torch.compile looks at it.
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
]

#: Tensors that a program changes in place between a call and the backward pass.
CHANGES = (("input",), ("window",), ("input", "window"))
KEPT: list[tuple[str, dict[str, Any]]] = [
    ("stft", {}),
    ("stft", {"pad_mode": "constant"}),
    ("stft", {"pad_mode": "replicate", "return_complex": False}),
    ("stft", {"center": False}),
    ("stft", {"window": SHORT, "win_length": 12}),
    ("stft", {"window": SHORT, "win_length": 12, "center": False}),
    ("istft", {}),
    ("istft", {"window": SHORT, "win_length": 12, "length": 60}),
]
Gradients = tuple[torch.Tensor, ...] | None


def unless_refused(message: str, compute: Callable[[], tuple[torch.Tensor, ...]]) -> Gradients:
    """What is computed; None where torch refuses to, for this reason."""
    try:
        return compute()
    except RuntimeError as error:
        if message not in str(error):
            raise
        return None


TRAINED = (("input",), ("window",), ("input", "window"))


def after_changes(
    call: Call,
    op: str,
    arguments: dict[str, Any],
    rows: int | None,
    trained: tuple[str, ...],
    changed: tuple[str, ...],
) -> Gradients:
    """Gradients after changes in place; None where torch refuses to compute them."""
    leaves = {"input": given_tensor(op, rows), "window": arguments.get("window", WINDOW).clone()}
    for name in trained:
        leaves[name].requires_grad_()
    used = {name: leaf * 1 for name, leaf in leaves.items()}
    result = call(op, used["input"], **{**arguments, "window": used["window"]})
    with torch.no_grad():
        for name in changed:
            used[name].mul_(3)
    return unless_refused(
        "modified by an inplace operation",
        lambda: torch.autograd.grad(result.abs().square().sum(), [leaves[n] for n in trained]),
    )


@pytest.mark.parametrize("trained", TRAINED, ids=" and ".join)
def test_what_may_be_changed_before_backward(ours: Call, trained: tuple[str, ...]) -> None:
    """As natively, allowed and refused; gradients are those of the values before the changes."""
    refused = []
    for op, arguments in KEPT:
        for rows in (None, 2):
            given = (op, arguments, rows, trained)
            for changed in CHANGES:
                expected, actual = (
                    after_changes(call, *given, changed) for call in (natively, ours)
                )
                assert (expected is None) == (actual is None), (op, arguments, rows, changed)
                if expected is None or actual is None:
                    refused.append((op, arguments.get("center"), len(arguments), changed))
                    continue
                for one, other in zip(actual, expected, strict=True):
                    close(one.resolve_conj(), other.resolve_conj(), 2e-5)
    if "window" in trained:
        # A signal that is framed where it lies is native's to refuse, and ours.
        assert any(case[:2] == ("stft", False) and case[3] == ("input",) for case in refused)
    if "input" in trained:
        assert any(case[0] == "istft" and case[3] == ("window",) for case in refused)


def after_inference(
    call: Call, op: str, arguments: dict[str, Any], of_inference: str, trained: str
) -> Gradients:
    """Gradients of a call with a tensor made under inference mode; None where torch refuses."""
    given = {"input": given_tensor(op, 2), "window": arguments.get("window", WINDOW).clone()}
    with torch.inference_mode():
        given[of_inference] = given[of_inference].clone()
    given[trained].requires_grad_()

    def gradient() -> tuple[torch.Tensor, ...]:
        result = call(op, given["input"], **{**arguments, "window": given["window"]})
        return torch.autograd.grad(result.abs().square().sum(), given[trained])

    return unless_refused("Inference tensors cannot be saved", gradient)


@pytest.mark.parametrize("pair", [("input", "window"), ("window", "input")], ids=" ".join)
def test_tensors_made_under_inference_mode(ours: Call, pair: tuple[str, str]) -> None:
    allowed = 0
    for op, arguments in KEPT:
        expected, actual = (
            after_inference(call, op, arguments, *pair) for call in (natively, ours)
        )
        assert (expected is None) == (actual is None), (op, arguments)
        if expected is not None and actual is not None:
            allowed += 1
            close(actual[0].resolve_conj(), expected[0].resolve_conj(), 2e-5)
    assert 0 < allowed < len(KEPT)


#: What a program does with tensors that are made under inference mode; returns what shows.
INFERENCE: dict[str, Callable[[Call, str], Any]] = {
    "a leaf": lambda call, op: _infer(call, op, leaf="input", of_inference=("input",)),
    "a leaf and a window": lambda call, op: _infer(
        call, op, leaf="input", of_inference=("input", "window")
    ),
    "a trained window": lambda call, op: _infer(call, op, leaf="window", of_inference=("window",)),
    "recorded within": lambda call, op: _infer(
        call, op, leaf="input", of_inference=("input", "window"), within=torch.enable_grad
    ),
    "within": lambda call, op: _infer(
        call, op, leaf="input", of_inference=("input",), within=nullcontext
    ),
    "not within": lambda call, op: _infer(
        call, op, leaf="input", of_inference=(), within=lambda: torch.inference_mode(False)
    ),
    "a gradient within": lambda call, op: _infer(
        call, op, leaf="input", of_inference=(), back=torch.inference_mode
    ),
}


def _infer(
    call: Call,
    op: str,
    leaf: str,
    of_inference: tuple[str, ...],
    within: Callable[[], Any] | None = None,
    back: Callable[[], Any] = nullcontext,
) -> Any:
    given = {"input": given_tensor(op, 2), "window": WINDOW.clone()}
    with torch.inference_mode():
        given |= {name: given[name].clone() for name in of_inference}
        for name in of_inference:  # torch allows this within alone
            given[name].requires_grad_(name == leaf)
    try:
        with nullcontext() if within is None else torch.inference_mode(), (within or nullcontext)():
            if leaf not in of_inference:
                given[leaf].requires_grad_()
            result = call(op, given["input"], window=given["window"])
        if not result.requires_grad:
            return result.is_inference()
        loss = result.abs().square().sum()
        with back():
            (gradient,) = torch.autograd.grad(loss, given[leaf])
    except RuntimeError as error:
        return str(error).partition(".")[0]
    return gradient.is_inference(), gradient.clone().resolve_conj()


@pytest.mark.parametrize("name", INFERENCE)
def test_inference_mode_within_and_around(ours: Call, name: str) -> None:
    """The same errors and the same results, also of calls that come again."""
    for op in ("stft", "istft"):
        ours(op, given_tensor(op, 2))  # the route is asserted of it where the others raise
        expected = INFERENCE[name](natively, op)
        for _ in range(3):
            found = INFERENCE[name](ours, op)
            if not isinstance(expected, tuple):
                assert found == expected, op
                continue
            assert found[0] == expected[0], op
            close(found[1], expected[1], 2e-5)


#: By name: who computes, and what it does besides: calls are compared, or timed by ``auto``.
WATCHED_CALLS: dict[str, Callable[[], Any]] = {
    "compared": lambda: tms.backend("cpu", strict=True, verify=1),
    "timed": lambda: tms.backend("auto"),
}


@pytest.mark.parametrize("name", WATCHED_CALLS)
@pytest.mark.parametrize("is_view", [False, True])
def test_changes_are_refused_while_calls_are_compared_or_timed(name: str, is_view: bool) -> None:
    """Such calls are given aliases of the program's tensors, which share their versions."""
    window = torch.hann_window(64)

    def change(changed: str) -> None:
        leaf = torch.randn(2, 8, 40_000, requires_grad=True)
        given = {"input": leaf * 1, "window": window * 1}
        signal = given["input"][1] if is_view else given["input"].flatten(0, 1)
        if changed == "input" and not is_view:
            given["input"] = signal
        result = torch.stft(signal, 64, window=given["window"], return_complex=True)
        with torch.no_grad():
            given[changed].mul_(2)
        del signal
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            result.abs().square().sum().backward()

    for changed in ("input", "window"):
        change(changed)
        with tms.patch("auto"), WATCHED_CALLS[name]():
            for _ in range(8):
                change(changed)
    backends = {backend for _, backend in tms.stats().calls}
    assert "cpu" in backends


@pytest.mark.usefixtures("strict_mlx")
def test_copies_are_kept_only_where_native_keeps_one() -> None:
    """By name of the call: bytes that are saved besides the program's own tensors."""

    def copied(op: str, *trained: str, **arguments: Any) -> int:
        given = {"input": given_tensor(op, 2), "window": arguments.pop("window", WINDOW).clone()}
        for name in trained:
            given[name].requires_grad_()
        own = {one.untyped_storage().data_ptr() for one in given.values()}
        saved: list[torch.Tensor] = []

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            saved.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            patched(op, given["input"], **arguments, window=given["window"])
        places = {one.untyped_storage().data_ptr(): one.nbytes for one in saved}
        return sum(size for place, size in places.items() if place not in own)

    signal, short = 2 * 100 * 4, {"window": SHORT, "win_length": 12}
    assert copied("stft", "input") == copied("istft", "input") == 0
    assert copied("stft", "input", **short) == copied("istft", "input", **short) == SHORT.nbytes
    assert copied("stft", "window") == signal
    assert copied("stft", "window", center=False) == 0
    # Native refers to what it reflects.
    assert copied("stft", "input", "window") == 0
    assert copied("stft", "input", "window", pad_mode="constant") == signal
    # The spectrum; and besides it what the envelope's derivatives need, and the signal.
    assert 0 <= copied("istft", "window") - 2 * 9 * 20 * 8 < 3 * 4 * 2 * 100
    assert accelerated_calls() == 9


@pytest.mark.parametrize("trained", TRAINED, ids=" and ".join)
def test_what_may_be_changed_before_backward_in_compiled_programs(
    trained: tuple[str, ...],
) -> None:
    for op, arguments in (KEPT[1], KEPT[3], KEPT[4], *KEPT[6:]):

        def compiled(call: Call) -> Call:
            torch.compiler.reset()
            return torch.compile(call, backend="aot_eager")

        given = (op, arguments, 2, trained)
        for changed in CHANGES[:2]:
            expected = after_changes(compiled(natively), *given, changed)
            with tms.patch("mlx", strict=True):
                actual = after_changes(compiled(patched), *given, changed)
            if actual is None:
                assert expected is None, (op, arguments, changed)
                continue
            wanted = expected or after_changes(natively, *given, ())
            assert wanted is not None
            for one, other in zip(actual, wanted, strict=True):
                close(one, other, 2e-5)
    assert accelerated_calls() == 10
