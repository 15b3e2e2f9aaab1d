"""First derivatives of verified calls: compared when autograd computes them, and put right."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from patched import NATIVE, verify_drawn

import torch_mlx_spectro as tms
from stft_parity.cases import Case
from torch_mlx_spectro.backends.mlx.backend import MLX
from torch_mlx_spectro.dispatch import decide as deciding
from torch_mlx_spectro.native import private_state as torch_state
from torch_mlx_spectro.verify import criterion
from torch_mlx_spectro.verify import gradients as gradient_checks

SIGNAL = torch.randn(3, 120, generator=torch.Generator().manual_seed(1))
WINDOW = torch.hann_window(16) + 0.1
SPECTRUM = NATIVE["stft"](SIGNAL, 16, 4, window=WINDOW, return_complex=True)
INPUTS = {"stft": SIGNAL, "istft": SPECTRUM}
GIVEN: dict[str, dict[str, Any]] = {"stft": {"return_complex": True}, "istft": {}}


@pytest.fixture(autouse=True)
def _nothing_verified(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("TORCH_MLX_SPECTRO_VERIFY", raising=False)
    deciding.ledger.clear()
    yield
    deciding.ledger.clear()


def leaves(op: str, *names: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Input and window; those that are named are differentiated."""
    tensor = INPUTS[op].clone().requires_grad_("input" in names)
    return tensor, WINDOW.clone().requires_grad_("window" in names)


def call(
    op: str, tensor: torch.Tensor, window: torch.Tensor, native: bool = False, **others: Any
) -> torch.Tensor:
    function = NATIVE[op] if native else getattr(torch, op)
    result: torch.Tensor = function(tensor, 16, 4, window=window, **GIVEN[op], **others)
    return result


#: Padded so, native keeps nothing of its input; padded by reflection it does.
ZEROS = {"pad_mode": "constant"}


def cotangent_of(result: torch.Tensor, seed: int = 2) -> torch.Tensor:
    return torch.randn(
        result.shape, dtype=result.dtype, generator=torch.Generator().manual_seed(seed)
    )


def gradients(op: str, *names: str, native: bool = False, **more: Any) -> tuple[Any, ...]:
    given = dict(zip(("input", "window"), leaves(op, *names), strict=True))
    result = call(op, given["input"], given["window"], native)
    wanted = [given[name] for name in names]
    return torch.autograd.grad(result, wanted, cotangent_of(result), **more)


#: What makes a gradient; the second where the window is differentiated, too.
MAPS = {
    ("stft", "input"): ("adjoint",),
    ("stft", "window"): ("differentiate_window",),
    ("istft", "input"): ("adjoint_synthesis", "analyse"),
    ("istft", "window"): ("differentiate_window",),
}


def spoil(monkeypatch: pytest.MonkeyPatch, op: str, name: str) -> None:
    """Make one gradient a thousandth too large."""
    for map_name in MAPS[op, name]:
        right = getattr(MLX, map_name)
        wrong = partial(lambda right, *given: right(*given) * 1.001, right)
        monkeypatch.setattr(MLX, map_name, wrong)


def counts() -> tuple[int, int]:
    return tms.stats().verified, tms.stats().mismatches


@pytest.mark.parametrize("op", ["stft", "istft"])
@pytest.mark.parametrize("names", [("input",), ("window",), ("input", "window")], ids="+".join)
def test_right_gradients_are_compared_and_stay_ours(op: str, names: tuple[str, ...]) -> None:
    with tms.patch("mlx", strict=True):
        expected = gradients(op, *names)
    with tms.patch("mlx", strict=True, verify=1):
        for ours, before in zip(gradients(op, *names), expected, strict=True):
            assert torch.equal(ours, before)
    assert counts() == (1 + len(names), 0)


@pytest.mark.parametrize("op", ["stft", "istft"])
@pytest.mark.parametrize("name", ["input", "window"])
def test_a_wrong_gradient_is_natives_and_so_are_later_calls(
    op: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, op, name)
    (expected,) = gradients(op, name, native=True)
    with tms.patch("mlx", verify=1):
        with pytest.warns(RuntimeWarning, match=f"its gradient in {name}: its largest") as told:
            (found,) = gradients(op, name)
        assert torch.equal(found, expected)
        assert told[0].filename == __file__
        assert "y.backward(torch.randn_like(y))" in str(told[0].message)
        assert counts() == (2, 1)
        (again,) = gradients(op, name)  # without a warning
    assert torch.equal(again, expected)
    assert tms.stats().calls == {(op, "mlx"): 1, (op, "native"): 1}
    (reason,) = tms.stats().fallbacks
    assert f"its gradient in {name}" in reason


def test_the_warnings_lines_reproduce_the_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, "stft", "window")
    with tms.patch("mlx", verify=1), pytest.warns(RuntimeWarning) as told:
        gradients("stft", "input", "window")
    lines = str(told[0].message).partition("matter:\n")[2]
    assert lines.startswith("import torch")
    deciding.ledger.clear()
    with pytest.warns(RuntimeWarning, match="its gradient in window"):
        exec(lines, {})


def test_strictly_a_wrong_gradient_raises_out_of_the_backward_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spoil(monkeypatch, "istft", "input")
    with (
        tms.patch("mlx", strict=True, verify=1),
        pytest.warns(RuntimeWarning),
        pytest.raises(tms.NotAccelerated, match="its gradient in input"),
    ):
        gradients("istft", "input")


@pytest.mark.parametrize("op", ["stft", "istft"])
@pytest.mark.parametrize("name", ["input", "window"])
def test_natives_gradient_can_be_differentiated_again(
    op: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As gradient penalties do, in all that it depends on."""

    def second(native: bool) -> tuple[torch.Tensor, ...]:
        tensor, window = leaves(op, "input", "window")
        result = call(op, tensor, window, native)
        cotangent = cotangent_of(result).requires_grad_()
        wanted = {"input": tensor, "window": window}[name]
        (found,) = torch.autograd.grad(result, wanted, cotangent, create_graph=True)
        return torch.autograd.grad(
            found, [tensor, window, cotangent], cotangent_of(found, 3), allow_unused=True
        )

    expected = second(native=True)
    spoil(monkeypatch, op, name)
    with tms.patch("mlx", verify=1), pytest.warns(RuntimeWarning, match="its gradient"):
        found = second(native=False)
    for ours, natives in zip(found, expected, strict=True):
        # Native has zeros for what it does not depend on, autograd for what nobody asked.
        if ours is None or natives is None:
            assert ours is natives is None or not bool((natives if ours is None else ours).any())
        else:
            torch.testing.assert_close(ours, natives)


def test_a_gradient_is_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with tms.patch("mlx", strict=True, verify=1):
        tensor, window = leaves("stft", "input", "window")
        result = call("stft", tensor, window)
        cotangent = cotangent_of(result)
        for _ in range(3):
            torch.autograd.grad(result, [tensor], cotangent, retain_graph=True)
            assert counts() == (2, 0)
        for _ in range(2):
            result.backward(cotangent, retain_graph=True)
            assert counts() == (3, 0)


def test_a_tensor_that_is_used_elsewhere_is_compared_for_this_call_alone() -> None:
    window = WINDOW.clone().requires_grad_()
    with tms.patch("mlx", strict=True, verify=1):
        results = [call("stft", SIGNAL * scale, window) for scale in (1, 3)]
        loss = sum(result.abs().square().sum() for result in results) + window.sum()
        loss.backward()
    assert counts() == (4, 0)


def test_nothing_of_the_input_is_kept_for_its_own_gradient() -> None:
    with tms.patch("mlx", strict=True, verify=1):
        tensor = SIGNAL * torch.ones((), requires_grad=True)
        gone = weakref.ref(tensor)
        result = call("stft", tensor, WINDOW, **ZEROS)
        del tensor
        gc.collect()
        assert gone() is None
        cotangent = cotangent_of(result)
        gone = weakref.ref(cotangent)
        result.backward(cotangent)
        del cotangent
        assert gone() is None
    assert counts() == (2, 0)


@pytest.mark.parametrize("op", ["stft", "istft"])
def test_nothing_is_to_be_seen_of_it(op: str) -> None:
    with tms.patch("mlx", strict=True, verify=1):
        tensor, window = leaves(op, "input", "window")
        result: Any = call(op, tensor, window)
    given: tuple[Any, ...] = (tensor, window, result)
    assert [leaf._backward_hooks for leaf in given] == [None] * 3
    assert (tensor.grad_fn, window.grad_fn) == (None, None)
    assert (result.is_leaf, result._is_view()) == (False, call(op, tensor, window, True)._is_view())


def test_the_input_may_be_changed_after_the_call() -> None:
    """As after native's, which keeps nothing of it."""
    with tms.patch("mlx", strict=True, verify=1):
        tensor = SIGNAL * torch.ones((), requires_grad=True)
        result = call("stft", tensor, WINDOW, **ZEROS)
        tensor.mul_(2)
        result.backward(cotangent_of(result))
    assert counts() == (2, 0)


@pytest.mark.parametrize("op", ["stft", "istft"])
def test_the_result_may_be_changed_in_place(op: str) -> None:
    with tms.patch("mlx", strict=True, verify=1):
        tensor, window = leaves(op, "input", "window")
        result = call(op, tensor, window)
        result.mul_(2)
        result.backward(cotangent_of(result))
    assert counts() == (3, 0)


def test_examples_of_a_vectorised_backward_pass_are_not_compared() -> None:
    with tms.patch("mlx", strict=True, verify=1):
        tensor, window = leaves("istft", "input")
        result = call("istft", tensor, window)
        cotangents = torch.randn(2, *result.shape)
        (found,) = torch.autograd.grad(result, tensor, cotangents, is_grads_batched=True)
    assert found.shape == (2, *tensor.shape)
    assert counts() == (1, 0)


def test_a_windows_gradient_is_judged_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a sum over all rows of a batch, and has none itself."""
    right = MLX.differentiate_window
    signal, window = leaves("stft", "window")
    signal[:, 3::16] = 0  # what a value of the window is multiplied by

    def round_one(*given: Any) -> torch.Tensor:
        gradient = right(*given)
        assert gradient[3] == 0
        gradient[3] = 1e-7 * gradient.abs().amax()
        return gradient

    monkeypatch.setattr(MLX, "differentiate_window", round_one)
    with tms.patch("mlx", strict=True, verify=1):
        result = torch.stft(signal, 16, 16, window=window, center=False, return_complex=True)
        result.backward(cotangent_of(result))
    assert counts() == (2, 0)


def test_an_inputs_gradient_is_judged_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    right = MLX.adjoint

    def spoil_quiet_row(*given: Any) -> torch.Tensor:
        gradient = right(*given)
        gradient[1] *= 1.01
        return gradient

    monkeypatch.setattr(MLX, "adjoint", spoil_quiet_row)
    with tms.patch("mlx", verify=1):
        tensor, window = leaves("stft", "input")
        result = call("stft", tensor, window)
        cotangent = cotangent_of(result) * torch.tensor([1.0, 1e-5, 1.0])[:, None, None]
        with pytest.warns(RuntimeWarning, match="in row 1,"):
            result.backward(cotangent)
    assert counts() == (2, 1)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        NotImplementedError("mps"),
        RuntimeError("is not deterministic"),
    ],
    ids=str,
)
def test_what_cannot_be_compared_is_no_mismatch(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_gradient(self: Any, *given: Any, **more: Any) -> torch.Tensor:
        raise error

    monkeypatch.setattr(gradient_checks.GradientCheck, "_compute_gradient", no_gradient)
    with tms.patch("mlx", strict=True, verify=1):
        gradients("stft", "input")
    assert counts() == (1, 0)


@pytest.mark.parametrize("error", [ValueError("a bug"), RuntimeError("out of memory")], ids=str)
def test_of_errors_of_ours_but_the_lack_of_memory_stays_unseen(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = criterion.find_value_difference

    def fail(comparison: criterion.Comparison, *given: torch.Tensor) -> str | None:
        if comparison.tensor.dtype == torch.complex64:  # the cotangent
            raise error
        return judge(comparison, *given)

    monkeypatch.setattr(criterion, "find_value_difference", fail)
    with tms.patch("mlx", strict=True, verify=1):
        if isinstance(error, ValueError):
            with pytest.raises(ValueError, match="a bug"):
                gradients("stft", "input")
        else:
            gradients("stft", "input")
    assert counts() == (1, 0)


def test_where_backward_passes_have_no_number_nothing_is_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch_state, "backward_pass", lambda: -1)
    with tms.patch("mlx", strict=True, verify=1):
        gradients("stft", "input")
    assert counts() == (1, 0)


def test_backward_passes_of_one_graph_at_once_keep_their_cotangents_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One waits in our adjoint until the other has begun."""
    both = threading.Barrier(2, timeout=20)
    right = MLX.adjoint

    def adjoint(*given: Any) -> torch.Tensor:
        both.wait()
        return right(*given)

    monkeypatch.setattr(MLX, "adjoint", adjoint)
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            torch.autograd.grad(result, tensor, cotangent_of(result, seed), retain_graph=True)
        except BaseException as error:
            errors.append(error)

    with tms.patch("mlx", strict=True, verify=1):
        tensor, window = leaves("stft", "input")
        result = call("stft", tensor, window)
        threads = [threading.Thread(target=work, args=(seed,)) for seed in (5, 6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not errors
    assert counts() == (2, 0)


@pytest.mark.parametrize("op", ["stft", "istft"])
def test_no_right_gradient_is_found_wrong(op: str) -> None:

    def differentiate(case: Case, function: Callable[..., torch.Tensor]) -> None:
        def of_a_leaf(*args: Any, **kwargs: Any) -> torch.Tensor:
            args, kwargs = list(args), dict(kwargs)
            tensor = args.pop(0) if args else kwargs.pop("input")
            return function(tensor.detach().requires_grad_(), *args, **kwargs)

        result = case.call(of_a_leaf)
        if result.requires_grad:
            result.backward(cotangent_of(result))

    compared = verify_drawn(op, 15, differentiate)
    verified, mismatches = counts()
    assert mismatches == 0
    assert verified > compared > 5
