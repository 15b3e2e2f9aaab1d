"""Each cause that the diagnosis knows is recognised in the values that it gives."""

from __future__ import annotations

import itertools
import warnings
from functools import partial
from typing import Any

import pytest
import torch
from small_calls import istft_case, stft_case

from stft_parity.cases import Case
from stft_parity.compare.observing import Outcome
from stft_parity.diagnose import behaviour, diagnose, explaining, placing, rearranged
from stft_parity.diagnose.analysis import list_analysis_causes
from stft_parity.diagnose.causes import Cause
from stft_parity.diagnose.evidence import Evidence, explain
from stft_parity.diagnose.model import Analysis, Synthesis, extend
from stft_parity.diagnose.synthesis import list_synthesis_causes
from stft_parity.results import ASPECTS

COMPLEX = "dtype=torch.complex64, generator=g"
# A window without symmetry, and sizes that have nothing in common, so that causes differ.
UNEVEN = "torch.rand(13, generator=g) + 0.1"
SIGNAL = f"torch.randn((3, 131), {COMPLEX})"
TWO_SIDED = f"torch.randn((3, 16, 20), {COMPLEX})"

CASES = {
    "centred": stft_case(w=UNEVEN, win_length="13", hop_length="3"),
    "odd n_fft": stft_case(w=UNEVEN, win_length="13", n_fft="17", hop_length="3"),
    "from the start": stft_case(center="False", hop_length="3"),
    "aligned": stft_case(
        w=UNEVEN, win_length="13", hop_length="3", center="False", align_to_window="True"
    ),
    "complex": stft_case(x=SIGNAL, w=f"torch.randn(13, {COMPLEX})", win_length="13"),
    "one row": stft_case(x="torch.randn((1, 131), generator=g)", pad_mode="'replicate'"),
    "no batch": stft_case(x="torch.randn(131, generator=g)", pad_mode="'circular'"),
    "inverse": istft_case(w=UNEVEN, win_length="13", hop_length="3"),
    "inverse from the start": istft_case(w="torch.rand(16, generator=g) + 0.1", center="False"),
    "shortened": istft_case(length="50"),
    "lengthened": istft_case(length="90"),
    "complex inverse": istft_case(
        x=TWO_SIDED, w=f"torch.randn(13, {COMPLEX})", win_length="13", return_complex="True"
    ),
    "two-sided inverse": istft_case(x=TWO_SIDED),
}
#: Of a case's causes every so many are tried, beginning elsewhere with each case; all are suspects.
STEP = 3
#: Causes that are tried with each case and change something there, at least.
LEAST = 23

BATCH = stft_case()


def native(case: Case) -> Any:
    return torch.stft if case.op == "stft" else torch.istft


def answered(case: Case) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result: torch.Tensor = case.call(native(case))
    return result


def setting_of(case: Case) -> explaining.Setting:
    return explaining.read_setting(case, case.tensors(), native(case))


def evaluated(case: Case) -> tuple[torch.Tensor, list[Cause]]:
    """The truth, and all causes that torch can compute; each is computed once."""
    at = setting_of(case)
    truth, steps = at.compute(at.tensors), at.steps
    causes = [rearranged.list_row_causes(truth, at.rows)]
    if isinstance(steps, Analysis):
        spectrum = rearranged.list_spectrum_causes(truth, steps.n_fft, steps.hop, steps.onesided)
        causes += [spectrum, list_analysis_causes(steps)]
    else:
        assert isinstance(steps, Synthesis)
        causes += [rearranged.list_signal_causes(truth), list_synthesis_causes(steps)]
    found = []
    for cause in itertools.chain(*causes):
        try:
            found.append(Cause(cause.sentence, partial(torch.clone, cause.values())))
        except RuntimeError:  # torch cannot compute it with this case
            continue
    return truth, found


@pytest.mark.parametrize("name", CASES)
def test_what_a_cause_gives_is_told_by_it(name: str) -> None:
    single = answered(CASES[name]).dtype
    truth, causes = evaluated(CASES[name])
    told = 0
    first = list(CASES).index(name) % STEP
    for cause in causes[first::STEP]:
        evidence = Evidence(truth, cause.values().to(single).to(truth.dtype), single)
        if not evidence.right:  # with this case the cause changes something
            assert cause.sentence in explain(evidence, causes)
            told += 1
    assert told >= LEAST


def test_noise_is_told_by_no_cause() -> None:
    truth, causes = evaluated(CASES["centred"])
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    assert not explain(Evidence(truth, truth + 0.01 * noise, torch.complex64), causes)


def understood(op: str) -> list[Case]:
    """Calls that torch accepts, over all arguments that the steps depend on."""
    windows = [None, "torch.rand({win}, generator=g) + 0.1", f"torch.randn({{win}}, {COMPLEX})"]
    sizes = [("16", None), ("16", "11"), ("15", "11")]
    common = itertools.product(windows, sizes, ("True", "False"), ("True", "False"))
    found = []
    for window, (n_fft, win), center, normalized in common:
        given = {"n_fft": n_fft, "win_length": win, "center": center, "normalized": normalized}
        w = window and window.format(win=win or n_fft)
        if op == "stft":
            modes = ("reflect", "constant", "replicate", "circular")
            changes = [{"pad_mode": repr(mode)} for mode in modes]
            if center == "False":
                changes = [{"align_to_window": align} for align in ("True", "False")]
            found += [stft_case(w=w, hop_length="5", **given, **change) for change in changes]
        else:
            x = f"torch.randn((2, {n_fft}, 20), {COMPLEX})"
            lengths, kinds = (None, "20", "90"), ("True", "False")
            found += [
                istft_case(x=x, w=w, hop_length="3", **given, length=length, return_complex=kind)
                for length, kind in itertools.product(lengths, kinds)
            ]
    return found


@pytest.mark.parametrize("op", ["stft", "istft"])
def test_the_steps_are_torchs(op: str) -> None:
    accepted = 0
    for case in understood(op):
        try:
            answered(case)
        except RuntimeError:
            continue
        accepted += 1
        # Only steps that give torch's values are kept.
        assert setting_of(case).steps is not None, case
    assert accepted >= 100


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_a_signal_is_extended_as_torch_does(mode: str) -> None:
    signal = torch.randn((2, 9), dtype=torch.float64)
    wanted = torch.nn.functional.pad(signal, (4, 6), mode)
    torch.testing.assert_close(extend(signal, 4, 6, mode), wanted, rtol=0, atol=0)


def test_a_signal_is_extended_as_numpy_does_with_modes_that_torch_lacks() -> None:
    import numpy as np

    signal = torch.randn(9, dtype=torch.float64)
    for mode, options in (("symmetric", {}), ("reflect", {"reflect_type": "odd"})):
        wanted = np.pad(signal.numpy(), (4, 6), mode, **options)  # type: ignore[call-overload]
        ours = extend(signal, 4, 6, "odd" if options else mode)
        np.testing.assert_allclose(ours.numpy(), wanted)


@pytest.mark.parametrize("aspect", ASPECTS)
@pytest.mark.parametrize("thing", [None, object(), 3, torch.tensor(()), ValueError("no"), "text"])
def test_a_diagnosis_never_raises(aspect: str, thing: Any) -> None:
    assert isinstance(diagnose(aspect, BATCH, {}, thing, thing, torch.stft), str)
    answer = answered(BATCH)
    assert isinstance(diagnose(aspect, BATCH, BATCH.tensors(), answer, thing, torch.stft), str)


@pytest.mark.parametrize(
    ("touched", "said"),
    [
        ([1, 1, 1, 1, 1, 1, 1, 1], "all 8 samples"),
        ([1, 0, 0, 0, 0, 0, 0, 0], "sample 0 (the first) of 8"),
        ([0, 0, 0, 0, 0, 0, 0, 1], "sample 7 (the last) of 8"),
        ([0, 0, 1, 1, 1, 0, 0, 0], "samples 2 to 4 of 8"),
        ([1, 1, 0, 0, 0, 0, 0, 1], "the first 2 and the last 1 of 8 samples"),
        ([0, 1, 0, 1, 0, 1, 0, 1], "every second sample from 1 on"),
        ([0, 1, 0, 0, 1, 1, 0, 0], "samples 1, 4, 5 of 8"),
    ],
)
def test_a_place_in_words(touched: list[int], said: str) -> None:
    assert placing.region(torch.tensor(touched) > 0, "istft", rows=False) == said


@pytest.mark.parametrize(
    ("case", "factor", "said"),
    [
        (stft_case(normalized="True"), 4.0, "normalized=True is ignored"),
        (stft_case(normalized="True"), 0.25, "normalized=True is applied twice"),
        (istft_case(normalized="True"), 0.25, "normalized=True is ignored"),
        (istft_case(), 4.0, "as with normalized=True"),
        (stft_case(), 2.0, "scaled by 2"),
        (stft_case(), 1.0001, "scaled by 1 + 0.0001"),
        (stft_case(), 1j, "scaled by i"),
        (stft_case(), -1.0, "scaled by -1"),
    ],
)
def test_a_factor_is_named(case: Case, factor: complex, said: str) -> None:
    answer = answered(case)
    told = diagnose("values", case, case.tensors(), answer, answer * factor, native(case))
    assert said in told


def test_what_a_case_does_not_tell_apart_is_said() -> None:
    case = stft_case(x="torch.randn((1, 120), generator=g)")
    answer = answered(case)
    zeros = torch.zeros_like(answer)
    said = diagnose("values", case, case.tensors(), answer, zeros, torch.stft)
    assert said.endswith("(this case does not tell it from this: all values are zero)")


@pytest.mark.parametrize(
    ("wanted", "got", "said"),
    [
        ([("A", "a"), ("B", "b")], [("B", "b"), ("A", "a")], "in another order"),
        ([("A", "a")], [("B", "a")], "is a B instead of a A"),
        ([("A", "a")], [("A", "b")], 'another text: "b" instead of "a"'),
        ([("A", "a")], [("A", "a"), ("A", "a")], "too many (it comes twice)"),
        ([("A", "a")], [], 'a warning is missing: A "a"'),
    ],
)
def test_warnings_in_words(wanted: Any, got: Any, said: str) -> None:
    expected, actual = (Outcome(None, None, tuple(warned)) for warned in (wanted, got))
    assert said in behaviour.describe_warnings(expected, actual)
