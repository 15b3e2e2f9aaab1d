"""``Stats``: counters as they were at one moment, and as people and programs read them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, NamedTuple

from ..terminal import Rows, show_seconds, write_html, write_text

#: Folders in which installed packages are.
_INSTALLED = ("site-packages", "dist-packages")


class Estimate(NamedTuple):
    """What calls took, estimated: as often what one of their kind takes.

    ``auto`` has measured what a call of a kind takes, by native torch and by other backends. Calls
    of other kinds are not among these, nor are those that were timed to measure it.

    Attributes:
        calls: how many.
        seconds: what they took by whoever computed them.
        saved: what native torch would have taken longer.
    """

    calls: int
    seconds: float
    saved: float


@dataclass(frozen=True, repr=False)
class Stats:
    """A snapshot of the counters.

    Attributes:
        accelerated: calls computed by an accelerated backend.
        native: calls answered by native torch, by fallback or by choice of routing.
        calls: (op, backend) to count; op is ``"stft"`` or ``"istft"``, and backend may be
            ``"refused"``.
        fallbacks: reason to count, for calls that were to be accelerated and could not be.
        choices: reason to count, for calls that were native torch's by choice: the program's, or
            that of ``auto``.
        sites: ``file:line`` of the caller to ``{"accelerated": n, "native": n}``, and
            ``"refused"`` where there are such.
        verified: results and gradients of accelerated calls that were compared with native torch's.
        mismatches: those of them that were wrong; calls with wrong results are among the fallbacks.
        refused: calls for which strict mode raised :class:`NotAccelerated`.
        estimated: (op, backend) to an estimate of seconds, for calls of kinds that ``auto`` has
            measured. It is a sum over all threads and processes: where they compute at the same
            time, less time than that has passed. A call that is differentiated counts with its
            backward pass if that was measured.
        left: names in loaded modules, as ``module.name``, that still are torch's own functions
            although torch is patched (:func:`patch`).
    """

    accelerated: int
    native: int
    calls: Mapping[tuple[str, str], int]
    fallbacks: Mapping[str, int]
    sites: Mapping[str, Mapping[str, int]]
    verified: int = 0
    mismatches: int = 0
    refused: int = 0
    choices: Mapping[str, int] = field(default_factory=dict)
    estimated: Mapping[tuple[str, str], Estimate] = field(default_factory=dict)
    left: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The snapshot in JSON's types; keys of ``calls`` read ``"stft/mlx"``."""
        return {
            "accelerated": self.accelerated,
            "native": self.native,
            "calls": {f"{op}/{backend}": n for (op, backend), n in self.calls.items()},
            "fallbacks": dict(self.fallbacks),
            "choices": dict(self.choices),
            "sites": {site: dict(counts) for site, counts in self.sites.items()},
            "verified": self.verified,
            "mismatches": self.mismatches,
            "refused": self.refused,
            "estimated": {
                f"{op}/{backend}": estimate._asdict()
                for (op, backend), estimate in self.estimated.items()
            },
            "left": list(self.left),
        }

    def __str__(self) -> str:
        return write_text(self.list_lines(), self.list_tables())

    def __repr__(self) -> str:
        lines = [self._count_calls()]
        for op in sorted({op for op, _ in self.calls}):
            by = sorted(((count, by) for (one, by), count in self.calls.items() if one == op))
            told = ", ".join(f"{count} {backend}" for count, backend in reversed(by))
            lines.append(f"torch.{op}: {told}")
        lines += self._list_estimates()
        whys = len(self.fallbacks) + len(self.choices)
        if whys or self.left:
            reasons = f"{whys} reason{'' if whys == 1 else 's'}" if whys else ""
            names = "the names left to torch" if self.left else ""
            lines.append(f"print() it for {' and '.join(filter(None, (reasons, names)))}")
        return "<Stats: " + "\n  ".join(lines) + ">"

    def _repr_html_(self) -> str:
        return write_html(self.list_lines(), self.list_tables())

    def list_lines(self) -> list[str]:
        """What is said before the tables."""
        lines = [f"torch_mlx_spectro: {self._count_calls()}"]
        if self.verified:
            lines.append(
                f"{self.verified} of them verified against native torch, {self.mismatches} wrong"
            )
        lines += [f"{line} (calls of kinds that auto timed)" for line in self._list_estimates()]
        if self.left:
            names = ", ".join(self.left)
            lines.append(f"left to torch (patch() replaces the names stft and istft): {names}")
        if not self.calls:
            lines.append("Neither torch.stft nor torch.istft was called while patched.")
        return lines

    def list_tables(self) -> list[Rows]:
        """Who computed how much, why not another, and for which lines of the program."""
        return [*self._list_tables()] if self.calls else []

    def _count_calls(self) -> str:
        refused = f", {self.refused} refused" if self.refused else ""
        return f"{self.accelerated} calls accelerated, {self.native} native{refused}"

    def _list_estimates(self) -> list[str]:
        """Say how much time was saved, in all, and of how many calls that is known."""
        if not self.estimated:
            return []
        calls, seconds, saved = map(sum, zip(*self.estimated.values(), strict=True))
        answered = self.accelerated + self.native
        saving = "saved" if saved >= 0 else "lost"
        return [
            f"estimated for {calls} of {answered} calls: {show_seconds(seconds)} spent, "
            f"{show_seconds(abs(saved))} {saving}"
        ]

    def _list_tables(self) -> Iterator[Rows]:
        pairs = sorted(self.calls.items())
        timed = ("est. spent", "est. saved") if self.estimated else ()
        rows = [
            (f"torch.{op}", by, str(count), *self._show_estimate((op, by))[: len(timed)])
            for (op, by), count in pairs
        ]
        yield Rows(("operation", "backend"), ("calls", *timed), rows)
        for title, counts in (
            ("why a call was not accelerated", self.fallbacks),
            ("why a call was left to torch by choice", self.choices),
        ):
            if counts:
                ordered = sorted(counts, key=lambda reason: (-counts[reason], reason))
                yield Rows((title,), ("calls",), [(why, str(counts[why])) for why in ordered])
        columns = ("accelerated", "native", *(("refused",) if self.refused else ()))
        folder = _find_folder()
        yield Rows(
            ("called from",),
            columns,
            [
                (shorten(site, folder), *(str(numbers.get(column, 0)) for column in columns))
                for site, numbers in sorted(self.sites.items())
            ],
        )

    def _show_estimate(self, key: tuple[str, str]) -> tuple[str, str]:
        estimate = self.estimated.get(key)
        if estimate is None:
            return ("", "")
        return show_seconds(estimate.seconds), show_seconds(estimate.saved)


def shorten(site: str, folder: PurePath | None) -> str:
    """Shorten a ``file:line``: what is installed to its package, the program's to its folder.

    A cell of a notebook has a file with a name that nobody knows; its number is shown instead.

    Args:
        folder: the working directory; None if there is none.
    """
    name, colon, line = site.rpartition(":")
    if cell := _name_cell(name):
        return f"{cell}, line {line}"
    path = PurePath(name)
    at = [index for index, part in enumerate(path.parts) if part in _INSTALLED]
    if at and path.parts[at[-1] + 1 :]:
        return str(PurePath(*path.parts[at[-1] + 1 :])) + colon + line
    if folder is not None and path.is_relative_to(folder):
        return str(path.relative_to(folder)) + colon + line
    return site


def _name_cell(file: str) -> str | None:
    """Name a cell of this IPython session as its tracebacks do; None for any other file."""
    ipython = sys.modules.get("IPython")
    session = None if ipython is None else ipython.get_ipython()
    if session is None:
        return None
    found = session.compile.format_code_name(file)
    return None if found is None else " ".join(found)


def _find_folder() -> PurePath | None:
    try:
        return PurePath(os.getcwd())
    except OSError:  # it was deleted
        return None
