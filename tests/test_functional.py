"""torch.stft and torch.istft under a strict patch against native: drawn calls, then chosen ones."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
import torch
from conftest import Tally
from patched import NATIVE, accelerated_calls, check_patched
from small_calls import COMPLEX_SIGNAL, SIGNAL, SPECTRUM, UNUSUAL, istft_case, stft_case
from strategies import istft_cases, stft_cases

import torch_mlx_spectro as tms
from stft_parity.cases.case import PARAMETERS, Call, Case
from stft_parity.cases.faults import ISTFT_FAULTS, STFT_FAULTS
from stft_parity.compare.observing import observe

Check = Callable[[Case], bool]


def compare_drawn(cases: st.SearchStrategy[Case], check: Check, tally: Tally, op: str) -> None:
    """Draw as many calls as the profile says, check each, and make sure that they were many."""

    @hypothesis.given(cases)
    def drawn(case: Case) -> None:
        tally.add(case, check(case))

    drawn()
    assert tally.distinct(op) >= tally.expected


@pytest.mark.usefixtures("strict_mlx")
def test_every_drawn_call_of_stft_is_natives_but_for_the_clock(tally: Tally) -> None:
    compare_drawn(stft_cases(), check_patched, tally, "stft")


@pytest.mark.usefixtures("strict_mlx")
def test_every_drawn_call_of_istft_is_natives_but_for_the_clock(tally: Tally) -> None:
    compare_drawn(istft_cases(), check_patched, tally, "istft")


TWO_SIDED = "torch.randn((3, 20, 16), dtype=torch.complex64, generator=g).transpose(1, 2)"

#: Each argument and each property of a tensor that the contract names, one at a time.
CHOSEN = {
    "odd n_fft": stft_case(w="torch.hann_window(15)", n_fft="15"),
    "prime n_fft": stft_case(w="torch.hann_window(31)", n_fft="31"),
    "large prime n_fft": stft_case("torch.randn(9000, generator=g)", None, n_fft="4099"),
    "hop beyond n_fft": stft_case(hop_length="21"),
    "hop beyond everything": stft_case(hop_length="2**40"),
    "short window": stft_case(w="torch.hann_window(11)", win_length="11"),
    "no window": stft_case(w=None),
    "no window, short": stft_case(w=None, win_length="11"),
    "complex window": stft_case(w="torch.randn(16, dtype=torch.complex64, generator=g)"),
    "complex signal": stft_case(COMPLEX_SIGNAL),
    "constant": stft_case(pad_mode="'constant'"),
    "replicate": stft_case(pad_mode="'replicate'"),
    "circular": stft_case(pad_mode="'circular'"),
    "not centred": stft_case(center="False"),
    "aligned to the window": stft_case(
        w="torch.hann_window(10)", win_length="10", center="False", align_to_window="True"
    ),
    "normalized": stft_case(normalized="True"),
    "two-sided": stft_case(onesided="False"),
    "viewed as real": stft_case(return_complex="False"),
    "one row": stft_case("torch.randn(120, generator=g)"),
    "transposed": stft_case("torch.randn((120, 3), generator=g).t()"),
    "strided": stft_case("torch.randn((3, 240), generator=g)[:, ::2]"),
    "expanded": stft_case("torch.randn(120, generator=g).expand(3, 120)"),
    "conjugated": stft_case(COMPLEX_SIGNAL + ".conj()"),
    "negated": stft_case(COMPLEX_SIGNAL + ".conj().imag"),
    "transposed, not centred": stft_case("torch.randn((120, 3), generator=g).t()", center="False"),
    "transposed, one bin": stft_case(
        "torch.randn((1, 3), generator=g).t()",
        "torch.ones(1)",
        n_fft="1",
        hop_length="1",
        pad_mode="'replicate'",
    ),
    "offset": stft_case("torch.randn((3, 130), generator=g)[:, 7:]"),
    "strided window": stft_case(w="torch.hann_window(32)[::2]"),
    "istft: native layout": istft_case(),
    "istft: contiguous": istft_case("torch.randn((3, 9, 20), dtype=torch.complex64, generator=g)"),
    "istft: conjugated": istft_case(SPECTRUM + ".conj()"),
    "istft: negated": istft_case(f"torch._neg_view({SPECTRUM})"),
    "istft: expanded": istft_case(SPECTRUM + "[:1].expand(3, 9, 20)"),
    "istft: offset": istft_case(SPECTRUM + "[..., 3:]"),
    "istft: one row": istft_case(SPECTRUM + "[0]"),
    "istft: shorter": istft_case(length="50"),
    "istft: exact": istft_case(length="76"),
    "istft: too long": istft_case(length="120"),
    "istft: no window": istft_case(w=None),
    "istft: no window, too long": istft_case(w=None, length="120"),
    "istft: short window": istft_case(w="torch.hann_window(11)", win_length="11"),
    "istft: normalized": istft_case(normalized="True"),
    "istft: not centred": istft_case(w="torch.hamming_window(16)", center="False"),
    "istft: two-sided": istft_case(TWO_SIDED, onesided="False"),
    "istft: complex": istft_case(TWO_SIDED, return_complex="True"),
    "istft: complex window": istft_case(
        TWO_SIDED, "torch.randn(16, dtype=torch.complex64, generator=g)", return_complex="True"
    ),
}


@pytest.mark.usefixtures("strict_mlx")
@pytest.mark.parametrize("case", CHOSEN.values(), ids=CHOSEN)
def test_chosen_calls_are_accelerated(case: Case) -> None:
    assert check_patched(case)


@pytest.mark.usefixtures("strict_mlx")
@pytest.mark.parametrize("changes", UNUSUAL.values(), ids=UNUSUAL)
def test_unusual_integers_are_accelerated(changes: dict[str, Any]) -> None:
    assert check_patched(stft_case(**changes))
    assert check_patched(istft_case(**changes))


@pytest.mark.usefixtures("strict_mlx")
@pytest.mark.parametrize("fault", STFT_FAULTS)
def test_every_fault_of_stft_gets_torchs_exception(fault: str) -> None:
    x = COMPLEX_SIGNAL if "complex" in fault else SIGNAL
    assert not check_patched(stft_case(x, fault=fault, **STFT_FAULTS[fault]))


@pytest.mark.usefixtures("strict_mlx")
@pytest.mark.parametrize("fault", ISTFT_FAULTS)
def test_every_fault_of_istft_gets_torchs_exception(fault: str) -> None:
    assert not check_patched(istft_case(fault=fault, **ISTFT_FAULTS[fault]))


@pytest.mark.usefixtures("strict_mlx")
@pytest.mark.parametrize("size", ["2**62", "2**70"])  # more bytes, more than an integer can hold
def test_sizes_beyond_all_memory_get_torchs_exception(size: str) -> None:
    # Padding by one of these makes up for any n_fft, so nothing but its size speaks against it.
    for mode in ("'constant'", "'replicate'"):
        assert not check_patched(stft_case(n_fft=size, win_length="16", pad_mode=mode))
    assert not check_patched(istft_case(w="torch.ones(16)", length=size))


@pytest.mark.usefixtures("strict_mlx")
@pytest.mark.parametrize("op", ["stft", "istft"])
def test_wrongly_bound_calls_get_torchs_exception(op: str) -> None:
    x = torch.ones(40)
    wrong: list[Call] = [
        ((), {}),
        ((x,), {}),
        ((x, 16), {"n_fft": 16}),
        ((x, 16), {"input": x}),
        ((x, *[None] * len(PARAMETERS[op]), 1), {}),
        ((), {"n_fft": 16}),
    ]
    for args, kwargs in wrong:
        expected = observe(NATIVE[op], args, kwargs)
        actual = observe(getattr(torch, op), args, kwargs)
        assert isinstance(expected.error, TypeError)
        assert (type(actual.error), str(actual.error)) == (TypeError, str(expected.error))
        assert actual.warned == expected.warned


@pytest.mark.usefixtures("strict_mlx")
@pytest.mark.parametrize("make", [stft_case, istft_case])
def test_keywords_and_positions_bind_alike(make: Callable[..., Case]) -> None:
    everything = {"win_length": "16", "center": "True", "normalized": "False", "onesided": "None"}
    everything |= {"pad_mode": "'reflect'"} if make is stft_case else {"length": "30"}
    keywords = make(**everything)
    for positional in range(len(PARAMETERS[keywords.op]) + 1):
        case = Case(keywords.op, keywords.x, keywords.w, keywords.arguments, 0, positional)
        assert check_patched(case)
    before = accelerated_calls()
    (tensor, *rest), named = keywords.bind(keywords.tensors())
    assert rest == []
    getattr(torch, keywords.op)(input=tensor, **named)
    getattr(tensor, keywords.op)(**named)
    assert accelerated_calls() == before + 2


def test_signatures_are_torchs() -> None:
    assert inspect.signature(tms.stft) == inspect.signature(NATIVE["stft"])
    ours = list(inspect.signature(tms.istft).parameters.values())
    # torch.istft is a builtin without a signature: its documentation and the method tell it.
    _, *methods = inspect.signature(torch.Tensor.istft).parameters.values()
    assert ours[0].name == "input"
    assert ours[0].default is inspect.Parameter.empty
    assert [(p.name, p.default, p.kind) for p in ours[1:]] == [
        (p.name, p.default, p.kind) for p in methods
    ]
    with tms.patch():
        assert inspect.signature(torch.stft) == inspect.signature(NATIVE["stft"])
