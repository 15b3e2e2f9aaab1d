"""Deliberately wrong candidates: each is found, and what is said of it is what is wrong with it.

Each is native torch with one thing wrong. ``FAULTS`` show in values or shapes, ``MISBEHAVIOURS`` in
anything else.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import faulty_candidates as wrong
import pytest
import right_candidates as right
import torch
from faulty_candidates import Function, after, changed, edited, kept, with_gradient, with_window
from small_calls import istft_case, stft_case

from stft_parity.candidates import Unsupported
from stft_parity.cases import Case
from stft_parity.cases.grid import quick
from stft_parity.cases.uses import USES
from stft_parity.known import Known
from stft_parity.report.tables import headline
from stft_parity.results import ASPECTS
from stft_parity.running import run

BATCH = stft_case()
LONG = stft_case(x="torch.randn((2, 480), generator=g)", w="torch.hann_window(64)", n_fft="64")
UNEVEN = stft_case(w="torch.rand(16, generator=g)", hop_length="5")
SHORT_WINDOW = stft_case(w="torch.hann_window(10)", win_length="10")
DEFAULT_HOP = stft_case(hop_length=None)
WINDOWLESS = stft_case(w=None)
REPLICATED = stft_case(pad_mode="'replicate'")
ROW = stft_case(x="torch.randn(120, generator=g)")
PAIRS = stft_case(return_complex="False")
COMPLEX = stft_case(x="torch.randn((3, 120), dtype=torch.complex64, generator=g)")
CONJUGATED = stft_case(x="torch.randn((3, 120), dtype=torch.complex64, generator=g).conj()")
UNFINITE = stft_case(
    x="torch.randn((2, 120), generator=g).index_fill(1, torch.tensor([60]), torch.nan)"
)
SINGLE_SAMPLES = stft_case(
    x="torch.randn(24, dtype=torch.complex64, generator=g)",
    w="torch.ones(1)",
    n_fft="1",
    hop_length="1",
)
REJECTED = stft_case(w="torch.hann_window(15)", fault="the window is shorter than win_length")
GRADIENT = Case(BATCH.op, BATCH.x, BATCH.w, BATCH.arguments, differentiate=("x", "w"))
INVERSE = istft_case()
LENGTH = istft_case(length="60")
LONGER = istft_case(length="90")
INVERSE_GRADIENT = Case("istft", INVERSE.x, INVERSE.w, INVERSE.arguments, differentiate=("x",))


ONE_GRADIENT = Case(BATCH.op, BATCH.x, BATCH.w, BATCH.arguments, differentiate=("x",))
WINDOWS_GRADIENT = replace(BATCH, differentiate=("w",))
WINDOWLESS_INVERSE = istft_case(w=None)


@dataclass(frozen=True)
class Faulty:
    """A wrong candidate: how to make it, a case that shows it, and what is to be said."""

    name: str
    make: Callable[[], Function]
    case: Case
    aspect: str
    said: str


FAULTS = [
    Faulty("window off by one", lambda: with_window(lambda w: w.roll(1)), BATCH, "values",
           "the window is off by one sample"),
    Faulty("symmetric window", lambda: with_window(lambda w: torch.hann_window(len(w), False)),
           BATCH, "values", "the Hann window is symmetric where a periodic one was passed"),
    Faulty("another window", lambda: with_window(lambda w: torch.hamming_window(len(w))),
           BATCH, "values", "a periodic Hamming window is used in place of the one passed"),
    Faulty("no window", lambda: changed("stft", lambda _: {"window": None, "win_length": None}),
           BATCH, "values", "the window is missing"),
    Faulty("window twice", lambda: with_window(torch.square), BATCH, "values",
           "the window is applied twice"),
    Faulty("window at the front", lambda: changed("stft", wrong.window_at_the_front), SHORT_WINDOW,
           "values", "a window of win_length < n_fft begins with the frame"),
    Faulty("conjugated", lambda: edited(lambda z: z.imag.neg_()), BATCH, "values",
           "the spectrum is conjugated"),
    Faulty("no Nyquist bin", lambda: after(lambda z: z[..., :-1, :]), BATCH, "shape",
           "the Nyquist bin is missing"),
    Faulty("Nyquist bin zero", lambda: edited(lambda z: z[..., -1, :].zero_()), BATCH, "values",
           "the Nyquist bin is zero"),
    Faulty("DC bin zero", lambda: edited(lambda z: z[..., 0, :].zero_()), BATCH, "values",
           "the DC bin is zero"),
    Faulty("always normalized", lambda: changed("stft", lambda _: {"normalized": True}), UNEVEN,
           "values", "scaled by 0.25 (1/√n_fft): as with normalized=True"),
    Faulty("scaled by n_fft", lambda: edited(lambda z: z.div_(16)), UNEVEN, "values",
           "scaled by 0.0625 (1/n_fft)"),
    Faulty("scaled by the window", lambda: with_window(lambda w: w / w.sum()), LONG, "values",
           "scaled by 0.03125 (1/(n_fft / 2) = 1/Σw)"),
    Faulty("edge twice", lambda: wrong.padded_by(wrong.mirrored_with_edge), BATCH, "values",
           "symmetric: reflection that includes the edge sample"),
    Faulty("zero padding", lambda: changed("stft", lambda _: {"pad_mode": "constant"}), BATCH,
           "values", "the padding is constant (zeros), where pad_mode='reflect'"),
    Faulty("circular", lambda: changed("stft", lambda _: {"pad_mode": "circular"}), REPLICATED,
           "values", "the padding is circular (the other end), where pad_mode='replicate'"),
    Faulty("not centred", lambda: changed("stft", lambda _: {"center": False}), BATCH, "shape",
           "the padding is missing"),
    Faulty("a sample late", lambda: wrong.beginning_late(lambda given: 1), BATCH, "values",
           "the frames begin one sample too late"),
    Faulty("a frame late", lambda: wrong.beginning_late(lambda given: given["hop_length"]), BATCH,
           "values", "shifted by a frame"),
    Faulty("another default", lambda: changed("stft", lambda g: {"hop_length": g["n_fft"] // 2}),
           DEFAULT_HOP, "shape", "the hop is 8 (n_fft // 2 = win_length // 2) instead of 4"),
    Faulty("two-sided", lambda: changed("stft", lambda _: {"onesided": False}), BATCH, "shape",
           "the spectrum is two-sided where a onesided one was asked for"),
    Faulty("real for imaginary", lambda: after(wrong.exchanged), BATCH, "values",
           "real and imaginary parts are exchanged"),
    Faulty("parts first", lambda: after(lambda z: z.movedim(-1, 0)), PAIRS, "shape",
           "real and imaginary parts are in dimension 0 instead of the last one"),
    Faulty("axes exchanged", lambda: after(lambda z: z.transpose(-1, -2)), BATCH, "shape",
           "time axis and bin axis are exchanged"),
    Faulty("bins reversed", lambda: after(lambda z: kept(z, z.flip(-2))), BATCH, "values",
           "the bins are reversed"),
    Faulty("first row", lambda: edited(lambda z: z[1:].copy_(z[:1])), BATCH, "values",
           "every row of the batch is computed from the first one"),
    Faulty("rows exchanged", lambda: after(lambda z: z.flip(0)), BATCH, "values",
           "the rows of the batch are exchanged"),
    Faulty("float16 inside", lambda: wrong.in_format(torch.float16), LONG, "values",
           "it looks computed in float16 or TF32 inside"),
    Faulty("bfloat16 inside", lambda: wrong.in_format(torch.bfloat16), LONG, "values",
           "it looks computed in bfloat16 inside"),
    Faulty("TF32 operands", wrong.with_tf32, LONG, "values", "rounded to TF32"),
    Faulty("float16 result", lambda: after(wrong.through_float16), BATCH,
           "values", "the result is rounded to float16"),
    Faulty("NaN for zero", lambda: changed("stft", lambda g: {"input": g["input"].nan_to_num()}),
           UNFINITE, "values", "NaN and Inf in the input are taken for zero"),
    Faulty("conjugate bit", lambda: changed("stft", lambda g: {"input": g["input"].conj()}),
           CONJUGATED, "values", "its conjugate bit is ignored"),
    Faulty("sum of the window", lambda: wrong.dividing_by(lambda w: w), INVERSE, "values",
           "the sum of the window (Σw) instead of its square (Σw²)"),
    Faulty("no envelope", lambda: wrong.dividing_by(None), INVERSE, "values",
           "the envelope is missing"),
    Faulty("edges' imaginary", lambda: changed("istft", wrong.with_edges_imaginary), INVERSE,
           "values", "the imaginary part of the DC bin is used, which torch ignores"),
    Faulty("wrong end", lambda: wrong.cut_at_the_front, LENGTH, "values",
           "length is met by cutting at the front"),
    Faulty("zeros in front", lambda: wrong.zeros_at_the_front, LONGER, "values",
           "length is met by zeros at the front"),
    Faulty("length ignored", lambda: changed("istft", lambda _: {"length": None}), LENGTH,
           "shape", "length is ignored"),
    Faulty("unknown cause", lambda: edited(lambda z: z[1, 3, 5:7].mul_(1.5j)), BATCH, "values",
           "no cause that was tried explains it"),
]  # fmt: skip

MISBEHAVIOURS = [
    Faulty("contiguous", lambda: after(torch.Tensor.contiguous), BATCH, "strides",
           "the result is contiguous: (rows, bins, frames) lie in memory"),
    Faulty("swallowing", lambda: wrong.swallowing, REJECTED, "exception",
           "the exception is swallowed: the candidate accepts what the reference rejects with "
           "RuntimeError \"stft("),
    Faulty("rewording", lambda: wrong.rewording, REJECTED, "exception",
           'the exception has another text: "bad window"'),
    Faulty("retyping", lambda: wrong.retyping, REJECTED, "exception",
           "the exception is of another type: ValueError instead of RuntimeError"),
    Faulty("refusing", lambda: wrong.refusing, BATCH, "exception",
           "the candidate rejects what the reference accepts: NotImplementedError \"no such "
           'hop_length", raised in refusing'),
    Faulty("no warning", lambda: wrong.without_warning, WINDOWLESS, "warnings",
           "a warning is missing"),
    Faulty("a warning", lambda: wrong.with_a_warning, BATCH, "warnings",
           'there is a warning too many: UserWarning "by the way"'),
    Faulty("in its input", lambda: wrong.in_its_input, SINGLE_SAMPLES, "aliasing",
           "shares memory with its argument x"),
    Faulty("one memory", wrong.one_memory, BATCH, "aliasing",
           "shares memory with a previous result"),
    Faulty("read-only", lambda: after(lambda z: z.detach().requires_grad_()), ONE_GRADIENT,
           "writability", "the result is read-only"),
    Faulty("wavering", wrong.wavering, BATCH, "repeatability",
           "nondeterministic: two runs differ by up to"),
    Faulty("writing", lambda: wrong.writing_to_its_input, BATCH, "arguments",
           "the candidate modifies its arguments"),
    Faulty("taking turns", wrong.taking_turns, BATCH, "aliasing",
           "a later call writes to the result of an earlier one"),
    Faulty("remembering", wrong.remembering, BATCH, "repeatability",
           "after its arguments are changed in place the call gives wrong values"),
    Faulty("drawing", lambda: wrong.drawing, BATCH, "state",
           "the call changes what is not its own: the state of torch's random numbers"),
    Faulty("stopping gradients", lambda: wrong.stopping_gradients, BATCH, "state",
           "the call changes what is not its own: the grad mode"),
    Faulty("a gradient left", lambda: wrong.leaving_a_gradient, BATCH, "arguments",
           "the candidate modifies its arguments"),
    Faulty("gradients always", lambda: wrong.with_gradients_always, ONE_GRADIENT,
           "repeatability", "requires a gradient under torch.no_grad()"),
    Faulty("graph lost", lambda: after(torch.Tensor.detach), ONE_GRADIENT, "requires_grad",
           "requires_grad is lost"),
    Faulty("gradient doubled", lambda: with_gradient("input", lambda grad: 2 * grad), GRADIENT,
           "gradient of input", "gradient: the values are scaled by 2"),
    Faulty("gradient conjugated",
           lambda: with_gradient("input", torch.conj_physical, "istft"), INVERSE_GRADIENT,
           "gradient of input", "gradient: the spectrum is conjugated"),
    Faulty("no gradient of the window", lambda: wrong.with_detached("window"), GRADIENT,
           "gradient of window", "the gradient is missing"),
    Faulty("windowless gradient", lambda: wrong.windowless_backward, ONE_GRADIENT,
           "gradient of input", "the gradient is that of another transform: the window is missing"),
    Faulty("blind to bits", lambda: wrong.blind_to_bits, ONE_GRADIENT, "gradient of input",
           "a cotangent whose conjugate or negative bit is set gives another gradient"),
    Faulty("backward once", lambda: wrong.backward_once, ONE_GRADIENT, "gradient of input",
           "a second backward through a graph that is kept raises"),
    Faulty("in double", lambda: changed("stft", lambda g: {"input": g["input"].double()}), BATCH,
           "dtype", "computed and returned in double precision"),
    Faulty("made double", lambda: after(lambda z: kept(z, z.to(torch.complex128))), BATCH,
           "dtype", "computed in the right precision and converted at the end"),
    Faulty("elsewhere", lambda: after(lambda z: z.to("meta")), BATCH, "device",
           "the result is on meta"),
    Faulty("an array", lambda: after(lambda z: z.numpy()), BATCH, "type",
           "the result is no tensor, but a ndarray of numpy"),
    Faulty("conjugate bit set", lambda: after(lambda z: z.conj().resolve_conj().conj()), BATCH,
           "bits", "the result has a conjugate bit"),
    Faulty("a view", lambda: after(lambda z: z.view_as(z)), BATCH, "view",
           "the result is a view of another tensor where the reference's is a fresh tensor"),
    Faulty("NumPy's memory", lambda: after(wrong.in_memory_of_numpys), BATCH, "view",
           "after resize_ of the result: RuntimeError: Trying to resize storage"),
    Faulty("transposed gradient", lambda: with_gradient("input", wrong.bins_innermost, "istft"),
           INVERSE_GRADIENT, "gradient strides",
           "(rows, frames, bins) lie in memory where the reference has (rows, bins, frames)"),
    Faulty("a line of its own", lambda: wrong.warning_of_its_own_line, WINDOWLESS_INVERSE,
           "warning line", "of faulty_candidates.py where the reference's names the line that"),
    Faulty("saving its input", wrong.saving_its_input,
           replace(WINDOWS_GRADIENT, use="input changed before backward"),
           "changed before backward", "after the input is changed in place, backward raises"),
    Faulty("seeing changes", wrong.seeing_changes,
           replace(WINDOWS_GRADIENT, use="input changed before backward"),
           "changed before backward", "the gradient is another one than the reference's"),
    Faulty("blind to changes", lambda: with_window(lambda w: w.clone()),
           replace(ONE_GRADIENT, use="window changed before backward"),
           "changed before backward", "after the window is changed in place, backward accepts"),
    Faulty("a view, in place", lambda: after(lambda z: z.view_as(z)),
           replace(BATCH, use="in place after no_grad"), "exception",
           "multiplied in place by a parameter after torch.no_grad(): the candidate rejects"),
    Faulty("saving its result", lambda: wrong.saving_its_result,
           replace(ONE_GRADIENT, use="in place before backward"), "gradient of input",
           "multiplied in place by a parameter: backward raises RuntimeError"),
    Faulty("no tensors of inference mode", lambda: wrong.without_inference_tensors,
           replace(WINDOWS_GRADIENT, use="input of inference mode"), "exception",
           "of an input made in inference mode: the candidate rejects what the reference accepts"),
    Faulty("a window kept for backward", lambda: with_window(lambda w: w.clone()),
           replace(ONE_GRADIENT, use="window of inference mode"), "exception",
           "of a window made in inference mode: the exception is swallowed"),
    Faulty("out of inference mode", lambda: wrong.leaving_inference_mode,
           replace(BATCH, use="within inference mode"), "bits",
           "within inference mode: the result lacks the inference flag"),
    Faulty("vmapped otherwise", lambda: after(wrong.frames_outermost),
           replace(BATCH, use="vmap over rows"), "strides",
           "under torch.func.vmap: the strides are"),
    Faulty("stacked otherwise", lambda: after(wrong.frames_outermost),
           replace(BATCH, use="vmap over a stack"), "strides",
           "(rows, rows, frames, bins) lie in memory where the reference has (rows, rows, bins,"),
    Faulty("vmapped gradient otherwise",
           lambda: with_gradient("input", torch.Tensor.neg, vmapped=True),
           replace(ONE_GRADIENT, use="vmap of gradients"), "values",
           "the gradient under torch.func.vmap: the values are scaled by -1"),
]  # fmt: skip


@pytest.mark.parametrize("faulty", [*FAULTS, *MISBEHAVIOURS], ids=lambda faulty: faulty.name)
def test_a_wrong_candidate_is_found_and_diagnosed(faulty: Faulty) -> None:
    report = run(**{faulty.case.op: faulty.make()}, cases=[faulty.case])
    (result,) = report.results
    assert not report.ok
    assert result.failed
    told = [found.diagnosis for found in result.differences if found.aspect == faulty.aspect]
    assert any(faulty.said in sentence for sentence in told), result.differences
    assert not any("search for the cause failed" in found.diagnosis for found in result.differences)


def test_what_is_saved_for_backward_is_a_convention() -> None:
    case = replace(ONE_GRADIENT, use="window changed before backward")
    report = run(with_window(lambda w: w.clone()), cases=[case])
    (result,) = report.results
    assert [found.aspect for found in result.differences] == ["changed before backward"]
    assert (result.failing, report.exit_code) == ("other conventions", 3)
    assert headline(report) == (
        "values: compared in 1 case, wrong in 0; conventions: 1 differ (changed before backward 1)"
    )


def test_a_case_of_each_fault_tells_nothing_of_native() -> None:
    cases = {faulty.case for faulty in (*FAULTS, *MISBEHAVIOURS)}
    report = run(torch.stft, torch.istft, cases=cases)
    assert report.ok
    assert report.counts()["pass"] == len(cases)


class Unusable(torch.Tensor):
    @classmethod
    def __torch_function__(cls, *args: object, **kwargs: object) -> None:
        raise TypeError("not mine")


@pytest.mark.parametrize(
    ("change", "aspect", "said"),
    [
        (lambda z: z.to_sparse(), "layout", "of layout torch.sparse_coo"),
        (lambda z: torch.nested.nested_tensor(list(z.abs())), "layout", "is of layout"),
        (lambda z: z.abs().int(), "dtype", "it is not a floating-point number at all"),
        (lambda z: z.abs().to(torch.float8_e4m3fn), "dtype", "the result is float8_e4m3fn"),
        (lambda z: z.abs(), "dtype", "only the magnitude is there"),
        (lambda z: z.real, "dtype", "the imaginary part is missing"),
        (lambda z: z.as_subclass(Unusable), "type", "the result is a Unusable, a subclass"),
        (lambda z: None, "type", "the candidate returns nothing (None)"),
        (lambda z: z.sum(), "shape", "the result has 0 dimensions instead of 3"),
        (lambda z: z[:1].expand(z.shape), "writability", "the result is read-only"),
    ],
)
def test_no_result_is_too_odd_to_be_told_of(change: Function, aspect: str, said: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (result,) = run(after(change), cases=[BATCH]).results
    assert result.verdict == "differs"
    told = [found.diagnosis for found in result.differences if found.aspect == aspect]
    assert any(said in sentence for sentence in told), result.differences


def test_a_run_that_compares_nothing_is_not_well() -> None:
    def refusing(*args: object, **kwargs: object) -> None:
        raise Unsupported("everything")

    assert not run(refusing, cases=[BATCH]).ok
    assert not run(torch.stft, cases=[]).ok
    assert run(torch.stft, cases=[BATCH]).ok


def test_every_use_has_a_fault() -> None:
    assert {faulty.case.use for faulty in (*FAULTS, *MISBEHAVIOURS)} == set(USES)
    assert {faulty.aspect for faulty in (*FAULTS, *MISBEHAVIOURS)} >= {*ASPECTS} - {
        "layout", "route"
    }  # fmt: skip


#: In what a candidate of many operations differs by what these keep and how they lie in memory.
MEMORY = Known((), ("view", "gradient strides", "warning line"), "It is many operations.")


def test_another_order_of_operations_is_no_fault() -> None:
    plain = [case for case in quick() if case.use == "plain"]
    stft, istft = right.stft_by_complex_fft, right.istft_by_complex_fft
    report = run(stft, istft, cases=plain, known=[MEMORY])
    assert report.ok, [(result.case, result.differences) for result in report.failures[:3]]
    assert report.counts()["pass"] > 0.85 * len(report.results)
    # It is another computation: not all of its errors are native's own.
    assert any(result.error not in (None, 0.0) for result in report.results)
