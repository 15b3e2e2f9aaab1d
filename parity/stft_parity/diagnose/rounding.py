"""Whether values were computed or stored with fewer digits than they should have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from stft_parity.cases import Tensors
from stft_parity.diagnose.causes import Cause

Step = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Format:
    """A number format: its name, what rounding to it does, and its digits after the first."""

    name: str
    rounded: Step
    bits: int


def _round_parts(step: Step, tensor: torch.Tensor) -> torch.Tensor:
    if not tensor.is_complex():
        return step(tensor)
    return torch.view_as_complex(step(torch.view_as_real(tensor)))


def _through(dtype: torch.dtype) -> Step:
    return partial(_round_parts, lambda parts: parts.to(dtype).to(torch.float64))


def _tf32(parts: torch.Tensor) -> torch.Tensor:
    mantissa, exponent = torch.frexp(parts)
    return torch.ldexp(torch.round(mantissa * 2**11) / 2**11, exponent)


#: From fewest digits to most.
FORMATS = (
    Format("bfloat16", _through(torch.bfloat16), 7),
    Format("float16", _through(torch.float16), 10),
    Format("TF32", partial(_round_parts, _tf32), 10),
    Format("float32", _through(torch.float32), 23),
)

#: Computed in a format throughout: the error is as many times that of a rounded input at least,
#: and at most. Successive formats of the list lie a factor of eight apart, or 8192.
INSIDE = (0.4, 3.0)
#: Rounding touches most values: as many exceed a hundredth of the root-mean-square error.
SPREAD = 0.8
SPREAD_FLOOR = 0.01


def formats_below(dtype: torch.dtype) -> tuple[Format, ...]:
    """Formats with fewer digits than a result of ``dtype`` has."""
    double = dtype in (torch.float64, torch.complex128)
    return FORMATS if double else FORMATS[:-1]


def list_input_causes(
    tensors: Tensors, formats: tuple[Format, ...], compute: Callable[[Tensors], torch.Tensor]
) -> list[Cause]:
    """List inputs that were rounded first; ``compute`` is the call in double precision."""
    given = {"xw": "input and window are", "x": "the input is", "w": "the window is"}
    return [
        Cause(
            f"{what} rounded to {kind.name} first",
            partial(compute, _round_tensors(tensors, names, kind)),
        )
        for kind in formats
        for names, what in given.items()
        if all(isinstance(tensors.get(name), torch.Tensor) for name in names)
    ]


def _round_tensors(tensors: Tensors, names: str, kind: Format) -> Tensors:
    return {
        name: kind.rounded(value) if name in names and isinstance(value, torch.Tensor) else value
        for name, value in tensors.items()
    }


def list_result_causes(truth: torch.Tensor, formats: tuple[Format, ...]) -> list[Cause]:
    """List ways in which the result was computed well, and rounded at the end."""
    return [
        Cause(f"the result is rounded to {kind.name} at the end", partial(kind.rounded, truth))
        for kind in formats
    ]


def find_inner_format(
    truth: torch.Tensor,
    actual: torch.Tensor,
    tensors: Tensors,
    formats: tuple[Format, ...],
    compute: Callable[[Tensors], torch.Tensor],
) -> str:
    """The format that the error looks like; empty when it looks like none.

    The measure is the error of the same call in double precision on rounded inputs.
    """
    error = (actual - truth).abs().flatten()
    error = error[torch.isfinite(error)]
    size = error.square().mean().sqrt() if error.numel() else torch.zeros(())
    if not size > 0 or (error > SPREAD_FLOOR * size).double().mean() < SPREAD:
        return ""
    found = []
    for kind in formats:
        moved = compute(_round_tensors(tensors, "xw", kind)) - truth
        moved = moved[torch.isfinite(moved)].abs()
        of_rounding = moved.square().mean().sqrt() if moved.numel() else torch.zeros(())
        if of_rounding > 0 and INSIDE[0] <= size / of_rounding <= INSIDE[1]:
            stored = torch.equal(kind.rounded(actual), actual)
            found.append((not stored, kind))
    if not found:
        return ""
    found.sort(key=lambda pair: pair[0])
    certain = not found[0][0]
    names = [kind.name for unstored, kind in found if not (certain and unstored)]
    share = size / truth[torch.isfinite(truth)].abs().square().mean().sqrt()
    return (
        f"it looks computed in {' or '.join(names)} inside: the error, {share:.1e} of the values "
        f"in the mean, is spread over all of them as rounding to {found[0][1].bits + 1} binary "
        "digits gives"
    )
