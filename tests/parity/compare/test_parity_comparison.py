"""The comparison itself: each thing that it compares goes red when it is wrong."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from discrepancy import Discrepancy, compare

from stft_parity.adapting import adapter
from stft_parity.cases import Case

STFT = Case(
    op="stft",
    x="torch.randn((2, 96), generator=g)",
    w="torch.hann_window(16)",
    arguments=(
        ("input", "x"),
        ("n_fft", "16"),
        ("hop_length", "4"),
        ("window", "w"),
        ("return_complex", "True"),
    ),
    positional=2,
)
WINDOWLESS = Case("stft", STFT.x, None, (*STFT.arguments[:3], STFT.arguments[4]))
REJECTED = Case("stft", STFT.x, "torch.hann_window(15)", STFT.arguments, fault="short window")
ISTFT = Case(
    op="istft",
    x="torch.randn((2, 20, 9), dtype=torch.complex64, generator=g).transpose(1, 2)",
    w="torch.hann_window(16)",
    arguments=(("input", "x"), ("n_fft", "16"), ("window", "w")),
)

Candidate = Callable[..., torch.Tensor]


def native(case: Case) -> Candidate:
    function: Candidate = getattr(torch, case.op)
    return function


def after(change: Callable[[torch.Tensor], torch.Tensor]) -> Candidate:
    """stft with something done to its result."""
    return lambda *args, **kwargs: change(torch.stft(*args, **kwargs))


def with_window(change: Callable[[torch.Tensor], torch.Tensor]) -> Candidate:
    def call(*args: Any, **kwargs: Any) -> torch.Tensor:
        return torch.stft(*args, **kwargs | {"window": change(kwargs["window"])})

    return call


def contiguous(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous()


def without_warning(*args: Any, **kwargs: Any) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.stft(*args, **kwargs)


def warning_of_something_else(*args: Any, **kwargs: Any) -> torch.Tensor:
    warnings.warn("by the way", UserWarning, stacklevel=2)
    return torch.stft(*args, **kwargs)


def writing_to_its_input(signal: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    result = torch.stft(signal, *args, **kwargs)
    signal[0, 0] += 1e-3
    return result


def aliasing_results() -> Candidate:
    kept: list[torch.Tensor] = []

    def call(*args: Any, **kwargs: Any) -> torch.Tensor:
        kept.append(torch.stft(*args, **kwargs))
        return kept[0]

    return call


def forgetful_results() -> Candidate:
    """Right at first, then off by a rounding."""
    scale = [1.0]

    def call(*args: Any, **kwargs: Any) -> torch.Tensor:
        scale.append(1 + 2e-7)
        return torch.stft(*args, **kwargs) * scale[-2]

    return call


def swallowing(*args: Any, **kwargs: Any) -> torch.Tensor | None:
    try:
        return torch.stft(*args, **kwargs)
    except RuntimeError:
        return None


def rewording(*args: Any, **kwargs: Any) -> torch.Tensor:
    try:
        return torch.stft(*args, **kwargs)
    except RuntimeError as error:
        raise RuntimeError(f"stft: {error}") from error


def retyping(*args: Any, **kwargs: Any) -> torch.Tensor:
    try:
        return torch.stft(*args, **kwargs)
    except RuntimeError as error:
        raise ValueError(str(error)) from error


@pytest.mark.parametrize("case", [STFT, WINDOWLESS, REJECTED, ISTFT], ids=lambda case: case.op)
def test_native_cannot_be_told_from_native(case: Case) -> None:
    outcome = compare(case, native(case), native(case))
    assert (outcome.error is not None) == bool(case.fault)
    assert bool(outcome.warned) == (case.w is None)


@pytest.mark.parametrize(
    ("candidate", "complaint"),
    [
        (after(contiguous), "strides differ"),
        (after(lambda z: z.to(torch.complex128)), "dtypes differ"),
        (after(lambda z: z[..., :-1]), "shapes differ"),
        (after(lambda z: z.detach().requires_grad_()), "requires_grad differ"),
        (after(lambda z: z.as_subclass(torch.nn.Buffer)), "types differ"),
        (after(lambda z: torch.conj(z.conj().resolve_conj())), "conjugate bits differ"),
        (after(lambda z: z.to("meta")), "devices differ"),
        (after(lambda z: z * (1 + 1e-5)), "values differ"),
        (after(lambda z: z.index_fill(-1, torch.tensor([3]), float("nan"))), "is not finite"),
        (with_window(lambda w: w.roll(1)), "values differ"),
        (with_window(lambda w: torch.hann_window(16, periodic=False)), "values differ"),
        (warning_of_something_else, "warnings differ"),
        (writing_to_its_input, "written to its argument x"),
        (aliasing_results(), "changes another"),
        (forgetful_results(), "a second call gives other values"),
    ],
)
def test_a_wrong_answer_is_noticed(candidate: Candidate, complaint: str) -> None:
    with pytest.raises(Discrepancy, match=complaint) as noticed:
        compare(STFT, candidate, torch.stft)
    assert STFT.reproducer() in str(noticed.value)


@pytest.mark.parametrize(
    ("candidate", "said"),
    [
        (swallowing, "the candidate accepts what the reference rejects"),
        (rewording, "the exception has another text"),
        (retyping, "the exception is of another type"),
    ],
)
def test_another_exception_is_noticed(candidate: Candidate, said: str) -> None:
    with pytest.raises(Discrepancy, match=said):
        compare(REJECTED, candidate, torch.stft)


def test_an_exception_of_the_candidates_own_is_noticed() -> None:
    def failing(*args: Any, **kwargs: Any) -> torch.Tensor:
        raise RuntimeError("out of luck")

    with pytest.raises(Discrepancy, match="out of luck"):
        compare(STFT, failing, torch.stft)


def test_a_missing_warning_is_noticed() -> None:
    with pytest.raises(Discrepancy, match="warnings differ"):
        compare(WINDOWLESS, without_warning, torch.stft)


def test_a_lazily_evaluated_input_bit_is_noticed_when_ignored() -> None:
    case = Case("istft", ISTFT.x + ".conj()", ISTFT.w, ISTFT.arguments)

    def blind(spectrum: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return torch.istft(spectrum.conj(), *args, **kwargs)

    with pytest.raises(Discrepancy, match="values differ"):
        compare(case, blind, torch.istft)


def test_a_result_in_its_inputs_memory_is_noticed() -> None:
    # Transforms of one sample are the samples themselves.
    case = Case(
        "stft",
        "torch.randn(24, dtype=torch.complex64, generator=g)",
        "torch.ones(1)",
        (("input", "x"), ("n_fft", "1"), ("hop_length", "1"), ("window", "w")),
    )

    def view(signal: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        result = torch.stft(signal, *args, **kwargs)
        return signal.as_strided(result.shape, result.stride())

    with pytest.raises(Discrepancy, match="written to its argument x"):
        compare(case, view, torch.stft)


def test_cancelling_terms_may_be_added_in_another_order() -> None:
    # Equal bins are a unit impulse at the first sample, which centring cuts off: what is left is
    # nothing but the rounding of terms that cancel.
    case = Case(
        "istft",
        "torch.full((2, 25), 0.75 - 0.5j, dtype=torch.complex64).transpose(-1, -2)",
        None,
        (("input", "x"), ("n_fft", "25"), ("hop_length", "1"), ("return_complex", "True")),
    )

    def off(error: float) -> Candidate:
        return adapter(
            lambda *args, **kwargs: torch.istft(*args, **kwargs).add_(error), torch.istft
        )

    compare(case, off(1e-9), torch.istft)
    with pytest.raises(Discrepancy, match="values differ"):
        compare(case, off(1e-6), torch.istft)


def test_a_reproducer_is_the_call() -> None:
    names: dict[str, Any] = {}
    exec(STFT.reproducer(), names)
    torch.testing.assert_close(names["y"], STFT.call(torch.stft), rtol=0, atol=0)
    assert STFT.reproducer().splitlines()[-1] == (
        "y = torch.stft(x, 16, 4, window=w, return_complex=True)"
    )
