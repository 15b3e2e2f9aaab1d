"""Uses of a call: each is what its reproducer does, native's own, and drawn with every argument."""

from __future__ import annotations

import warnings
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from small_calls import istft_case, stft_case

import stft_parity as parity
from stft_parity.adapting import adapter, find_calling_lines, takes_arrays
from stft_parity.cases import Case, widen
from stft_parity.cases.choices import VALUES
from stft_parity.cases.draws import draws
from stft_parity.cases.grid import grid, quick
from stft_parity.cases.uses import BEFORE_BACKWARD, FACTOR, USES
from stft_parity.compare.observing import find_strides, observe

TORCH = parity.native()


def used(op: str, use: str) -> Case:
    """A small call with this use, and with a gradient where that makes sense."""
    case = stft_case() if op == "stft" else istft_case()
    leaves = {"input of inference mode": ("w",), "window of inference mode": ()}
    if op == "stft":
        leaves |= dict.fromkeys(("input changed before backward", RAISING[0]), ("w",))
    return replace(case, use=use, differentiate=leaves.get(use, ("x",)))


#: A use in which istft's backward raises.
RAISING = ("window changed before backward", "istft")


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("op", VALUES)
def test_a_reproducer_makes_the_use(op: str, use: str) -> None:
    case = used(op, use)
    lines = case.reproducer().splitlines()
    assert len(lines) == 5
    names: dict[str, Any] = {}
    raising = (use, op) == RAISING
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop")
        with pytest.raises(RuntimeError, match="inplace") if raising else nullcontext():
            exec("\n".join(lines), names)
    tensors = case.tensors()
    args, kwargs = case.bind(tensors)
    function = TORCH.function(op)
    assert function is not None
    wanted = case.used(function)(*args, **kwargs)
    torch.testing.assert_close(names["y"], wanted, rtol=0, atol=0)
    for flag in (torch.Tensor.stride, torch.is_inference, torch.Tensor._is_view):
        assert flag(names["y"]) == flag(wanted)
    assert names["y"].requires_grad == wanted.requires_grad
    for name in case.differentiate:
        has_graph = use not in ("in place after no_grad", "within inference mode")
        has_graph &= use != "vmap of gradients" and not raising
        assert (names[name].grad is not None) == has_graph
    for name in case.how.inference:
        assert names[name].is_inference()
    if case.how.changed:
        name = case.how.changed
        torch.testing.assert_close(names[name], FACTOR * tensors[name], rtol=0, atol=0)


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("op", VALUES)
def test_native_makes_every_use_as_native_does(op: str, use: str) -> None:
    report = parity.run(TORCH.stft, TORCH.istft, cases=[used(op, use)])
    assert report.ok, report.failures
    assert report.counts()["pass"] == 1


def test_what_differs_first_is_what_the_last_line_shows(capsys: pytest.CaptureFixture[str]) -> None:
    exec(istft_case("torch.zeros((9, 20)) + 0j").reproducer(aspect="view"), {})
    assert capsys.readouterr().out.split() == ["True"]
    case = replace(istft_case(), differentiate=("x", "w"))
    exec(case.reproducer(aspect="gradient strides"), {})
    assert capsys.readouterr().out == "[(180, 20, 1), (1,)]\n"


@pytest.mark.parametrize("op", VALUES)
def test_quick_has_every_use_with_and_without_a_batch(op: str) -> None:
    found = Counter(
        (case.use, case.label("rows"), case.label("center"))
        for case in quick() if case.op == op
    )  # fmt: skip
    for use in tuple(USES)[1:]:
        for rows in ("3", *(("no batch",) if use != "vmap over rows" else ())):
            for center in ("True", "False"):
                assert found[use, rows, center] >= 1, (use, rows, center)
    changed = {
        (case.use, case.label("gradient"), case.label("center"))
        for case in quick() if case.op == op and case.use in BEFORE_BACKWARD
    }  # fmt: skip
    assert len(changed) >= len(BEFORE_BACKWARD) * 3 * 2


def test_uses_are_a_part_of_the_grid_and_of_the_draws() -> None:
    for cases, least in ((grid(), 4000), (draws(0, 2000), 100)):
        found = Counter(case.use for case in cases)
        assert set(found) == set(USES)
        assert least < len(cases) - found["plain"] < 0.15 * len(cases)


def test_functions_of_arrays_have_fewer_uses() -> None:
    def of_arrays(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("it is not called")

    function = parity.from_numpy(of_arrays)
    assert takes_arrays(function)
    assert takes_arrays(parity.with_arguments(function, ["n_fft"]))
    assert not takes_arrays(parity.with_arguments(of_arrays, ["n_fft"]))
    for use, how in USES.items():
        if not how.arrays:
            (result,) = parity.run(function, cases=[used("stft", use)]).results
            assert (result.verdict, result.reason) == (
                "unsupported", f"{use}: arrays have no such use"
            )  # fmt: skip


def test_an_adapters_line_is_the_callers() -> None:
    def adapted(*args: Any, **kwargs: Any) -> Any:
        return torch.istft(*args, **kwargs)

    case = istft_case(w=None)
    args, kwargs = case.bind(case.tensors())
    native, own = observe(torch.istft, args, kwargs), observe(adapted, args, kwargs)
    assert native.lines == ("the line that makes the call",)
    assert own.lines == (f"line {adapted.__code__.co_firstlineno + 1} of test_parity_uses.py",)
    assert observe(adapter(adapted, torch.istft), args, kwargs).lines == native.lines
    assert (__file__, adapted.__code__.co_firstlineno + 1) in find_calling_lines(adapted)
    case = stft_case(w=None)
    args, kwargs = case.bind(case.tensors())
    (line,) = observe(torch.stft, args, kwargs).lines
    assert line.endswith("of torch/functional.py")


def test_strides_of_one_element_tell_nothing_of_gradients() -> None:
    def widely(result: torch.Tensor) -> torch.Tensor:
        return torch.empty_strided(result.shape, (700, 1)).copy_(result)

    class OtherStrides(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # type: ignore[override]
            return widely(gradient)

    def stft(x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return torch.stft(OtherStrides.apply(x), *args, **kwargs)

    row = replace(stft_case("torch.randn((1, 120), generator=g)"), differentiate=("x",))
    batch = replace(stft_case("torch.randn((2, 120), generator=g)"), differentiate=("x",))
    assert parity.run(stft, cases=[row]).ok
    (result,) = parity.run(stft, cases=[batch]).results
    assert "gradient strides" in {difference.aspect for difference in result.differences}


def test_what_torch_takes_in_half_precision_alone_is_compared() -> None:
    # The last sample's envelope is zero, which is not less than 1e-11 in half precision.
    case = istft_case(
        "torch.randn((2, 7), dtype=torch.complex64, generator=g)", "torch.ones(1).half()",
        n_fft="2", hop_length="1", win_length="1", onesided="True", length="12",
    )  # fmt: skip
    case = replace(case, differentiate=("w",))
    assert parity.run(istft=torch.istft, cases=[case]).ok
    doubled = parity.run(
        istft=lambda *args, **kwargs: 2 * torch.istft(*args, **kwargs), cases=[case]
    )
    assert "values" in doubled.aspects()
    args, kwargs = case.bind(widen(case.tensors()))
    with pytest.raises(RuntimeError, match="overlap add"):
        torch.istft(*args, **kwargs)


def test_strides_of_nothing_are_not_compared() -> None:
    """By them nothing works or fails; of the next size they are."""
    assert find_strides(torch.zeros(4)[::2][:0]) == find_strides(torch.zeros(0)) == ()
    assert find_strides(torch.zeros(4)[::2]) == (2,)
