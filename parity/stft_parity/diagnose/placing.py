"""Where in a result an error sits, for errors that no cause explains."""

from __future__ import annotations

import torch

#: An element is off when its error exceeds this share of the largest error.
OFF = 0.1
#: Indices that are listed one by one.
LISTED = 6


def where(truth: torch.Tensor, actual: torch.Tensor, op: str, *, rows: bool) -> str:
    """One sentence on size and place of the error; the two have the same shape.

    Args:
        truth: the right values.
        actual: the candidate's.
        op: ``"stft"`` for results of bins and frames, ``"istft"`` for samples.
        rows: whether the first dimension is a batch.
    """
    error = (actual - truth).abs()
    error = torch.where(torch.isfinite(error), error, 0.0)
    if not error.any():
        return "no cause that was tried explains it: only values that are not finite differ"
    off = error > OFF * error.max()
    finite = truth[torch.isfinite(truth)]
    peak = float(finite.abs().max()) if finite.numel() else 0.0
    size = f"{error.max():.2e}" + (
        f" ({error.max() / peak:.1e} of the largest value)" if peak else ""
    )
    place = tuple(int(i) for i in torch.unravel_index(error.argmax(), error.shape))
    share = 100 * off.double().mean()
    return (
        f"no cause that was tried explains it: the largest error is {size} at "
        f"{_name_place(place, op)}; {share:.3g}% of the values are off by a tenth of that or more: "
        f"{region(off, op, rows=rows)}"
    )


def unfinite(truth: torch.Tensor, actual: torch.Tensor, op: str, *, rows: bool) -> str:
    """Where one side is finite and the other is not; empty when there is no such place."""
    wanted, ours = torch.isfinite(truth), torch.isfinite(actual)
    if torch.equal(wanted, ours):
        return ""
    more, fewer = int((wanted & ~ours).sum()), int((ours & ~wanted).sum())
    kind = "NaN" if actual[wanted & ~ours].isnan().all() else "NaN or Inf"
    said = []
    if more:
        said.append(f"{kind} in {more} of {truth.numel()} values where the reference is finite")
    if fewer:
        said.append(f"finite values in {fewer} of {truth.numel()} where the reference is not")
    return f"{' and '.join(said)}: {region(wanted != ours, op, rows=rows)}"


def _axes(dims: int, op: str) -> list[str]:
    names = ["bin", "frame"] if op == "stft" else ["sample"]
    return [*["row"] * (dims - len(names)), *names][-dims:] if dims else []


def _name_place(place: tuple[int, ...], op: str) -> str:
    names = _axes(len(place), op)
    return ", ".join(f"{name} {index}" for name, index in zip(names, place, strict=True))


def region(off: torch.Tensor, op: str, *, rows: bool) -> str:
    """Which rows, bins, frames or samples a mask touches."""
    said = []
    for dim, name in enumerate(_axes(off.dim(), op)):
        if name == "row" and not rows:
            continue
        touched = off.movedim(dim, 0).flatten(1).any(-1) if off.dim() > 1 else off
        said.append(_along(touched, name))
    return ", ".join(said)


def _along(touched: torch.Tensor, name: str) -> str:
    """Which indices of one axis are touched, in words."""
    count = touched.numel()
    at = touched.nonzero().flatten()
    first, last = int(at[0]), int(at[-1])
    if at.numel() == count:
        return f"all {count} {name}s" if count > 1 else f"the only {name}"
    if at.numel() == 1:
        edge = {0: " (the first)", count - 1: " (the last)"}.get(first, "")
        return f"{name} {first}{edge} of {count}"
    inner = (~touched).nonzero().flatten()
    if at.numel() == last - first + 1:
        return f"{name}s {first} to {last} of {count}"
    if int(inner[-1]) - int(inner[0]) + 1 == inner.numel():
        front, back = int(inner[0]), count - 1 - int(inner[-1])
        return f"the first {front} and the last {back} of {count} {name}s"
    for step in (2, 3, 4):
        if at.numel() > 2 and torch.equal(at, torch.arange(first, count, step)):
            return f"every {('second', 'third', 'fourth')[step - 2]} {name} from {first} on"
    if at.numel() <= LISTED:
        return f"{name}s {', '.join(map(str, at.tolist()))} of {count}"
    return f"{at.numel()} of {count} {name}s between {first} and {last}"
