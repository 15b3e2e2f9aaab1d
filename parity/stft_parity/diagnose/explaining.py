"""Which of the causes gives a result's values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch

from stft_parity.adapting import Function
from stft_parity.cases import Case, Tensors
from stft_parity.compare import oracle
from stft_parity.compare.values import wide
from stft_parity.diagnose import placing, rearranged, rounding
from stft_parity.diagnose.analysis import list_analysis_causes
from stft_parity.diagnose.causes import Cause
from stft_parity.diagnose.evidence import Evidence, explain, largest
from stft_parity.diagnose.model import Analysis, NoModel, Synthesis, model
from stft_parity.diagnose.synthesis import list_synthesis_causes

#: The steps give what the reference gives, in double precision: as share of the largest value.
SAME = 1e-9


@dataclass(frozen=True)
class Setting:
    """The call in double precision on the CPU, in steps where these are known."""

    case: Case
    tensors: Tensors
    native: Function
    steps: Analysis | Synthesis | None

    def compute(self, tensors: Tensors) -> torch.Tensor:
        """The call on other tensors, as numbers."""
        return oracle.numbers(self.case, oracle.truth(self.case, tensors, self.native))

    @property
    def rows(self) -> int:
        """Of the batch; 0 without one."""
        tensor = self.tensors["x"]
        return tensor.shape[0] if tensor.dim() == (2 if self.case.op == "stft" else 3) else 0


def read_setting(case: Case, tensors: Tensors, native: Function) -> Setting:
    """Read a call; its steps are known when they give what the reference gives."""
    here = {
        name: wide(value.detach().cpu()) if isinstance(value, torch.Tensor) else value
        for name, value in tensors.items()
    }
    plain = Setting(case, here, native, None)
    try:
        steps = model(case, here)
        truth, ours = plain.compute(here), steps.result()
    except (NoModel, RuntimeError):
        return plain
    finite = torch.isfinite(truth)
    same = ours.shape == truth.shape and torch.equal(torch.isfinite(ours), finite)
    if not same or not largest((ours - truth)[finite]) <= SAME * largest(truth[finite]):
        return plain
    return Setting(case, here, native, steps)


def of_result(at: Setting, expected: torch.Tensor, actual: torch.Tensor) -> str:
    """What is wrong with a result's values or shape."""
    truth = at.compute(at.tensors)
    for said, got in arrangements(at.case, truth, expected, actual):
        evidence = Evidence(truth, got, actual.dtype)
        if said and got.shape == truth.shape and evidence.right:
            return said
        sentence = explain(evidence, _suspects(at, evidence)) or _unfinite(at, evidence)
        if sentence:
            return f"{said}; moreover, {sentence}" if said else sentence
    got = next(got for _, got in arrangements(at.case, truth, expected, actual))
    if got.shape != truth.shape:
        return _shapes(at, truth, got)
    formats = rounding.formats_below(actual.dtype)
    inner = rounding.find_inner_format(truth, got, at.tensors, formats, at.compute)
    return inner or placing.where(truth, got, at.case.op, rows=bool(at.rows))


def right_values(at: Setting, expected: torch.Tensor, actual: torch.Tensor) -> bool:
    """Whether a result of another dtype has the right values."""
    truth = at.compute(at.tensors)
    return any(
        got.shape == truth.shape and Evidence(truth, got, expected.dtype).right
        for _, got in arrangements(at.case, truth, expected, actual)
    )


def arrangements(
    case: Case, truth: torch.Tensor, expected: torch.Tensor, actual: torch.Tensor
) -> Iterator[tuple[str, torch.Tensor]]:
    """Ways to read a result as numbers, each with what is wrong when it is to be read so."""
    got = actual.detach().resolve_conj().resolve_neg().cpu()
    if not truth.is_complex() or got.is_complex():
        asked = (
            "pairs of real and imaginary parts were" if truth.is_complex() else "a real signal was"
        )
        said = f"the result is complex where {asked} asked for"
        yield said if got.is_complex() and not expected.is_complex() else "", wide(got)
        return
    for dim in reversed(range(got.dim())):
        if got.shape[dim] == 2 and got.dim() == truth.dim() + 1:
            wrong = {
                "the result is pairs of real and imaginary parts instead of complex":
                    expected.is_complex(),
                f"real and imaginary parts are in dimension {dim} instead of the last one":
                    dim != got.dim() - 1,
            }  # fmt: skip
            said = "; ".join(text for text, holds in wrong.items() if holds)
            yield said, torch.complex(*got.double().unbind(dim))
    yield "", got.double() + 0j


def _suspects(at: Setting, evidence: Evidence) -> Iterator[Cause]:
    """All causes that may apply to the result of a call."""
    truth, steps = evidence.truth, at.steps
    formats = rounding.formats_below(evidence.dtype)
    yield from of_factor(evidence, at)
    yield from rearranged.list_row_causes(truth, at.rows)
    if at.case.op == "istft":
        yield from rearranged.list_signal_causes(truth)
    if isinstance(steps, Analysis):
        yield from rearranged.list_spectrum_causes(truth, steps.n_fft, steps.hop, steps.onesided)
    yield from list_step_causes(steps)
    yield from rounding.list_result_causes(truth, formats)
    yield from rounding.list_input_causes(at.tensors, formats, at.compute)


def list_step_causes(steps: Analysis | Synthesis | None) -> list[Cause]:
    """List what may be wrong with one step of a transform, as far as its steps are known."""
    if steps is None:
        return []
    if isinstance(steps, Analysis):
        return list_analysis_causes(steps)
    return list_synthesis_causes(steps)


def of_factor(evidence: Evidence, at: Setting) -> Iterator[Cause]:
    """A common factor of all values."""
    if evidence.truth.shape != evidence.actual.shape:
        return
    found = rearranged.factor(evidence.truth, evidence.actual)
    if found is None:
        return
    known, steps, note = {}, at.steps, ""
    if steps is not None:
        win = steps.window.shape[0]
        known = rearranged.list_factors(steps.n_fft, steps.hop, win, steps.window)
        note = _normalization(steps, at.case.op, found)
    scaled = found if evidence.truth.is_complex() else found.real
    yield Cause(
        f"the values are scaled by {rearranged.factor_name(found, known)}{note}",
        lambda: evidence.truth * scaled,
    )


def _normalization(steps: Analysis | Synthesis, op: str, found: complex) -> str:
    """What a factor has to do with ``normalized``."""
    undone = math.sqrt(steps.n_fft) if op == "stft" else 1 / math.sqrt(steps.n_fft)
    asked = not math.isclose(steps.scale, 1.0)
    rows = (
        (undone, True, ": normalized=True is ignored"),
        (1 / undone, False, ": as with normalized=True"),
        (1 / undone, True, ": normalized=True is applied twice"),
    )
    said = (
        text
        for factor, given, text in rows
        if asked == given and abs(found - factor) <= rearranged.SAME_FACTOR * factor
    )
    return next(said, "") if steps.n_fft > 1 else ""


def _unfinite(at: Setting, evidence: Evidence) -> str:
    """What is wrong where one side is not finite and the other is."""
    if evidence.truth.shape != evidence.actual.shape:
        return ""
    cleaned = {
        name: _without_unfinite(value) if isinstance(value, torch.Tensor) else value
        for name, value in at.tensors.items()
    }
    suspects = (
        Cause("NaN and Inf in the input are taken for zero", partial(at.compute, cleaned)),
        Cause(
            "NaN and Inf in the result are replaced by zero",
            partial(_without_unfinite, evidence.truth),
        ),
    )
    return explain(evidence, suspects) or placing.unfinite(
        evidence.truth, evidence.actual, at.case.op, rows=bool(at.rows)
    )


def _without_unfinite(tensor: torch.Tensor) -> torch.Tensor:
    return torch.where(torch.isfinite(tensor), tensor, 0.0)


def _shapes(at: Setting, truth: torch.Tensor, got: torch.Tensor) -> str:
    """What can be said of another shape when no cause gives it."""
    if truth.dim() != got.dim():
        return f"the result has {got.dim()} dimensions instead of {truth.dim()}"
    names = (*(("frame", "bin") if at.case.op == "stft" else ("sample",)), *["row"] * truth.dim())
    surplus = [ours - wanted for ours, wanted in zip(got.shape, truth.shape, strict=True)]
    said = (
        f"{abs(more)} {name}{'s' if abs(more) != 1 else ''} too {'many' if more > 0 else 'few'}"
        for more, name in zip(reversed(surplus), names, strict=False)
        if more
    )
    return f"the result has {' and '.join(said)}, and no cause that is known gives its values"
