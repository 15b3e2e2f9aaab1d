"""Decide whether a result of ours is native torch's, but for rounding: verification's criterion.

It is used on a program's own calls, in production. So a correct result must never fail, and a wrong
one must: wrong samples, a wrong window, half precision inside. Each row of a batch is compared by
itself, since a quiet row may be wrong beside a loud one.

First both results are compared with each other, which settles nearly every call. The rest is
computed natively in double precision, on the host or, for CUDA tensors, on their device (the way to
the host and the computation there took up to a second). Then the errors of both are compared. Ours
may be a multiple of native's, plus a share of the largest value, plus what a few roundings of the
input do to the result where terms cancel or the envelope is small.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from ..native import private_state as torch_state

#: The parity suite admits these three (its own, since it imports nothing of this package; a test
#: holds them equal); verification a multiple of them, for machines that were not tested.
OWN_ERROR = 2.0
SHARE_OF_PEAK = 2e-6
ROUNDINGS = 30
#: Then 1e-5 to 3e-5 of the largest value pass, and half precision (5e-4) or TF32 do not.
MARGIN = 4.0
#: Of the largest value of a row: a smaller difference is right without a comparison in double
#: precision. Native's own error is at most about a third of SHARE_OF_PEAK, ours by the tests twice
#: that and the share.
CERTAIN_SHARE = 2 * SHARE_OF_PEAK
ROUNDING_TRIALS = 3
#: Values that are compared at once, as whole rows: each takes some 30 bytes meanwhile.
COMPARED_AT_ONCE = 1 << 22
#: One of so many values has to be finite and not zero: of a click hardly any is, of noise all are.
CONCLUSIVE_SHARE = 4

Recompute = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]


@dataclass(frozen=True)
class Comparison:
    """A call whose result is compared.

    Attributes:
        recompute: returns native's answer to the same call with another input and window.
        tensor: the input.
        window: the window, or None.
        n_fft: length of the transform.
        batched: results have a dimension of rows.
        pairs: complex results are pairs of reals.
        recorded: autograd has to record the result.
        device: the device that compares, and computes in double precision.
    """

    recompute: Recompute
    tensor: torch.Tensor
    window: torch.Tensor | None
    n_fft: int
    batched: bool
    pairs: bool
    recorded: bool
    device: torch.device | str = torch_state.HOST

    def rows(self, result: torch.Tensor) -> torch.Tensor:
        """Return the values of a result, one row of the batch in each row."""
        values = result.detach().to(self.device).resolve_conj().resolve_neg()
        values = torch.view_as_complex(values) if self.pairs else values
        return values.reshape(values.shape[0] if self.batched else 1, -1)


def find_difference(call: Comparison, expected: torch.Tensor, actual: torch.Tensor) -> str | None:
    """Find in what ``actual``, ours, differs from ``expected``, native's; None if in nothing."""
    kind = find_kind_difference(expected, actual)
    if kind is not None:
        return kind
    if expected.stride() != actual.stride():
        return f"its strides are {actual.stride()}, native's {expected.stride()}"
    for what in ("is_conj", "is_neg", "is_inference"):
        if getattr(expected, what)() != getattr(actual, what)():
            return f"its {what}() is {getattr(actual, what)()}"
    if actual.requires_grad != call.recorded:
        return f"its requires_grad is {actual.requires_grad}"
    return find_value_difference(call, expected, actual)


def find_value_difference(
    call: Comparison, expected: torch.Tensor, actual: torch.Tensor
) -> str | None:
    """As :func:`find_difference`, for values alone, whatever their memory order."""
    if actual.numel() == 0:
        return None
    try:
        return _compare_values(call, expected, actual)
    except torch.OutOfMemoryError:
        if call.device == torch_state.HOST:
            raise
    return _compare_values(replace(call, device=torch_state.HOST), expected, actual)


def _compare_values(call: Comparison, expected: torch.Tensor, actual: torch.Tensor) -> str | None:
    native, ours = call.rows(expected), call.rows(actual)
    rows = max(1, COMPARED_AT_ONCE // native.shape[1])
    needs_exact = any(
        _needs_exact(native[first : first + rows], ours[first : first + rows])
        for first in range(0, len(native), rows)
    )
    return _compare_errors(call, native, ours) if needs_exact else None


def is_conclusive(expected: torch.Tensor) -> bool:
    """Whether a wrong computation would show beside this result; silence and NaN hide it."""
    values = expected.detach().abs()
    informative = torch.isfinite(values) & (values > 0)
    return int(torch.count_nonzero(informative)) * CONCLUSIVE_SHARE >= max(values.numel(), 1)


def choose_device(tensor: torch.Tensor) -> torch.device | str:
    """Choose the device that compares results computed from a tensor."""
    # MPS has no double precision, and must not be trusted before it was compared.
    return tensor.device if tensor.is_cuda else torch_state.HOST


def find_kind_difference(expected: torch.Tensor, actual: torch.Tensor) -> str | None:
    """As :func:`find_difference`, for shape, dtype, device and layout."""
    for what in ("shape", "dtype", "device", "layout"):
        wanted, got = getattr(expected, what), getattr(actual, what)
        if wanted != got:
            return f"its {what} is {_format_attribute(got)}, native's {_format_attribute(wanted)}"
    return None


def _format_attribute(value: object) -> str:
    return str(tuple(value) if isinstance(value, torch.Size) else value)


def _needs_exact(native: torch.Tensor, ours: torch.Tensor) -> bool:
    finite = torch.isfinite(native)
    if not torch.equal(finite, torch.isfinite(ours)):
        return True
    peak = _find_peaks(native, finite)
    # A peak that overflows admits anything.
    share = CERTAIN_SHARE * _find_precision(native)
    is_certain = (_find_peaks(ours - native, finite) <= share * peak) & torch.isfinite(peak)
    return not bool(is_certain.all())


def _find_precision(values: torch.Tensor) -> float:
    """The rounding of these values, as a multiple of single precision's."""
    return torch.finfo(values.dtype).eps / torch.finfo(torch.float32).eps


def _find_peaks(values: torch.Tensor, finite: torch.Tensor) -> torch.Tensor:
    """The largest absolute value of each row, among those that count."""
    return torch.where(finite, values, values.new_zeros(())).abs().amax(dim=1)


def _compare_errors(call: Comparison, native: torch.Tensor, ours: torch.Tensor) -> str | None:
    tensor = _widen(call.tensor, call.device)
    window = None if call.window is None else _widen(call.window, call.device)
    truth = call.rows(call.recompute(tensor, window))
    if not bool(_compare_finiteness(call, native, ours, truth).all()):
        return "it is not finite elsewhere than native's"
    finite = torch.isfinite(ours) & torch.isfinite(native) & torch.isfinite(truth)
    peak, own = _find_peaks(truth, finite), _find_peaks(native - truth, finite)
    error = _find_peaks(ours - truth, finite)
    # Subnormal numbers are zeros to a GPU.
    flushed = torch.finfo(ours.dtype).tiny * call.n_fft
    share = SHARE_OF_PEAK * _find_precision(ours)
    allowed = MARGIN * (OWN_ERROR * own + share * peak) + flushed
    if not bool((error <= allowed).all()):
        moved = _measure_rounding(call, tensor, window, truth, finite)
        allowed = allowed + MARGIN * ROUNDINGS * moved
    excess = error - allowed
    if bool((error <= allowed).all()):
        return None
    worst = int(torch.where(excess.isnan(), torch.inf, excess).argmax())
    return (
        f"its largest error against float64 is {error[worst]:.3g} in row {worst}, native's own "
        f"{own[worst]:.3g}, the largest value {peak[worst]:.3g}, allowed {allowed[worst]:.3g}"
    )


def _compare_finiteness(
    call: Comparison, native: torch.Tensor, ours: torch.Tensor, truth: torch.Tensor
) -> torch.Tensor:
    """Return where ours is finite exactly as native's is, or as the truth is.

    The order of additions decides whether an infinity or a NaN comes out. In rows whose partial
    sums may overflow it also decides whether there is one at all, so these rows always pass.
    """
    finite = torch.isfinite(ours)
    rounded = torch.isfinite(truth.to(ours.dtype))
    peak = _find_peaks(truth, torch.isfinite(truth))
    overflows = peak * call.n_fft > torch.finfo(ours.dtype).max
    return (finite == torch.isfinite(native)) | (finite == rounded) | overflows[:, None]


def _widen(tensor: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    values = tensor.detach().to(device)
    return values.to(widen_dtype(values.dtype))


def widen_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of double precision, real or complex as it was."""
    return torch.promote_types(dtype, torch.float64)


def _measure_rounding(
    call: Comparison,
    tensor: torch.Tensor,
    window: torch.Tensor | None,
    truth: torch.Tensor,
    finite: torch.Tensor,
) -> torch.Tensor:
    """Measure how far each row moves when the values of the input are rounded once more."""
    noise = torch.Generator().manual_seed(0)
    moved = truth.new_zeros(len(truth), dtype=torch.float64)
    for _ in range(ROUNDING_TRIALS):
        share = torch.rand(tensor.shape, generator=noise, dtype=torch.float64) - 0.5
        eps = torch.finfo(call.tensor.dtype).eps
        rounded = tensor * (1 + eps * share.to(tensor.device))
        there = call.rows(call.recompute(rounded, window))
        moved = torch.maximum(moved, _find_peaks(there - truth, finite & torch.isfinite(there)))
    return moved
