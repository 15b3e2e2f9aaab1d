"""The ledger of comparisons with native: which routes are trusted, and which were wrong.

Kernels, compilers and drivers may be wrong on hardware that was never tested. So kernels are
trusted only after a comparison. Under ``auto`` the first accelerated call of each case is computed
natively, too, and the outcome is stored, so that later processes need not compare again. A program
may have every Nth call of a route compared as well.

Native computes a route that was wrong from then on: in this process whoever asks, in later ones
under ``auto``. A later process that asks for the backend by name gets it, so that a report can be
reproduced.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch

from ..calls.kind import size_class
from ..native import private_state as torch_state
from ..store.fork import after_fork
from ..store.verdicts import Store

if TYPE_CHECKING:
    from ..calls.kind import Route
    from ..core.params import IstftParams, StftParams

#: Sections of the store: text of a case to True; text of a case of any size to what was wrong.
VERIFIED = "verified"
QUARANTINED = "quarantined"
#: Cases held in memory; beyond, all are looked up anew.
MAX_CASES = 4096
#: Routes whose calls are counted apart; the calls of further ones are counted together.
MAX_ROUTES = 4096
#: Most wrong routes of a process. Beyond that none of ours is trusted.
MAX_QUARANTINED = 64
#: Inconclusive comparisons (of silence, say) after which a process compares a case no more.
MAX_INCONCLUSIVE = 8

ALL_QUARANTINED = (
    f"verification: {MAX_QUARANTINED} routes have given wrong results in this process; "
    "nothing is accelerated any more"
)


class Case(NamedTuple):
    """What one comparison vouches for: a way of computing at about one size, on one chip.

    Attributes:
        size: as of :func:`.size_class`; None where calls of any size are meant.
    """

    op: str
    backend: str
    kernel: str
    device: str
    n_fft: int
    hop_length: int
    dtype: torch.dtype
    window: torch.dtype | None
    contiguous: bool
    bins_innermost: bool
    flags: tuple[bool | str, ...]
    size: int | None
    chip: str

    def __str__(self) -> str:
        """The text that the store keeps it by."""
        sizes = () if self.size is None else (self.size,)
        return "|".join(map(str, (*self[:-2], *sizes, self.chip)))

    def without_size(self) -> Case:
        """The same at any size: what is counted together, and what is wrong together."""
        return self._replace(size=None)

    def with_gradient(self, name: str, differentiated: tuple[str, ...]) -> Case:
        """The case of a call's gradient in one of its arguments.

        Args:
            differentiated: all of them that are: together they may be made in another way.
        """
        what = f"gradient of {self.op} in {name}"
        if len(differentiated) > 1:
            what += f", of {' and '.join(differentiated)}"
        return self._replace(op=what)


def make_case(
    route: Route,
    params: StftParams | IstftParams,
    tensor: torch.Tensor,
    window: torch.Tensor | None,
) -> Case:
    """The case of a decided call; ``tensor`` is its input."""
    return Case(
        op=route.op,
        backend=route.backend,
        kernel=route.kernel,
        device=tensor.device.type,
        n_fft=params.n_fft,
        hop_length=params.hop_length,
        dtype=tensor.dtype,
        window=None if window is None else window.dtype,
        contiguous=tensor.is_contiguous(),
        bins_innermost=tensor.dim() < 2 or tensor.stride(-2) <= tensor.stride(-1),
        flags=(
            params.onesided,
            params.return_complex,
            params.batched,
            params.scale != 1,
            getattr(params, "pad_mode", "") if getattr(params, "padded", False) else "",
        ),
        size=size_class(params),
        chip=torch_state.name_chip(tensor.device),
    )


class Ledger:
    """What this process and earlier ones have compared.

    Args:
        store: returns where verdicts are kept.

    Attributes:
        epoch: grows whenever a route is found wrong, and when the ledger is cleared. What was
            decided holds for the epoch that was read before deciding began. Read without a lock.
    """

    def __init__(self, store: Callable[[], Store]) -> None:
        self.epoch = 0
        self._store = store
        self._lock = threading.Lock()
        self._steps: dict[tuple[int, Case | None], Callable[[], int]] = {}
        #: Comparisons that proved nothing; of a trusted case MAX_INCONCLUSIVE, or more.
        self._compared: dict[Case, int] = {}
        #: Reasons by the text of a case of any size: of this process, and of earlier ones.
        self._wrong: dict[str, str] = {}
        self._wrong_before: dict[str, str] | None = None
        after_fork(self.after_fork_in_child)

    def may_refuse(self, *, asked_by_name: bool) -> bool:
        """Whether any call is refused. It needs no case, so it is asked first."""
        return bool(self._wrong) or not (asked_by_name or not self._read_wrong_before())

    def explain_refusal(self, case: Case, *, asked_by_name: bool) -> str | None:
        """Explain why native has to compute calls of a case; None if it need not.

        Args:
            asked_by_name: the program wants this backend, and ``auto`` did not choose it; then what
                was wrong in earlier processes is computed.
        """
        if len(self._wrong) >= MAX_QUARANTINED:
            return ALL_QUARANTINED
        text = str(case.without_size())
        before = {} if asked_by_name else self._read_wrong_before()
        return self._wrong.get(text) or before.get(text)

    def record_wrong(self, case: Case, what: str) -> bool:
        """Let native compute calls like a wrong one from now on, of any size.

        Returns:
            Whether this is new; later processes read it from the store.
        """
        text = str(case.without_size())
        reason = (
            f"verification: {case.backend} ({case.kernel}) was wrong for {case.op} of n_fft "
            f"{case.n_fft}, hop {case.hop_length}, {case.dtype}: {what}"
        )
        with self._lock:
            if text in self._wrong or len(self._wrong) >= MAX_QUARANTINED:
                return False
            self._wrong[text] = reason
            self.epoch += 1
        self._store().put(QUARANTINED, text, reason)
        return True

    def count_call(self, case: Case, every: int) -> bool:
        """Count a call of a route; return whether it is the Nth, 2Nth, ... for ``every`` N.

        Calls are counted by route. Otherwise, if a program alternates between two routes, only the
        calls of one of them might be compared.
        """
        key = case.without_size()
        step = self._steps.get((every, key)) or self._make_step(every, key)
        return step() % every == 0

    def needs_comparison(self, case: Case) -> bool:
        """Whether no call of this case was compared yet, here or in an earlier process."""
        if self._compared.get(case, 0) >= MAX_INCONCLUSIVE:
            return False
        if self._store().get(VERIFIED, str(case)) is not True:
            return True
        self._add_comparisons(case, MAX_INCONCLUSIVE)
        return False

    def note_comparison(self, case: Case, *, conclusive: bool) -> bool:
        """Note a comparison in which nothing was wrong.

        Args:
            conclusive: a wrong result would have shown.

        Returns:
            Whether the case is trusted now.
        """
        total = self._add_comparisons(case, MAX_INCONCLUSIVE if conclusive else 1)
        if conclusive:
            self._store().put(VERIFIED, str(case), True)
        return total >= MAX_INCONCLUSIVE

    def clear(self) -> None:
        """Forget what is in memory."""
        with self._lock:
            for held in (self._steps, self._compared, self._wrong):
                held.clear()
            self._wrong_before = None
            self.epoch += 1

    def after_fork_in_child(self) -> None:
        """Make a new lock. What the parent found holds in its child, too."""
        self._lock = threading.Lock()

    def _make_step(self, every: int, key: Case) -> Callable[[], int]:
        counted = key if len(self._steps) < MAX_ROUTES else None
        # A step of itertools.count is one for all threads, and so is setdefault.
        return self._steps.setdefault((every, counted), itertools.count(1).__next__)

    def _read_wrong_before(self) -> dict[str, str]:
        """Read what was wrong in earlier processes, and in what way."""
        if self._wrong_before is None:
            kept = self._store().sections().get(QUARANTINED, {})
            self._wrong_before = {
                text: f"{why} (in an earlier process)" for text, why in kept.items()
            }
        return self._wrong_before

    def _add_comparisons(self, case: Case, count: int) -> int:
        with self._lock:
            if len(self._compared) >= MAX_CASES:
                self._compared.clear()
            total = self._compared[case] = self._compared.get(case, 0) + count
        return total
