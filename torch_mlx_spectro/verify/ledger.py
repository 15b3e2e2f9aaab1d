"""First use: which ways of computing have given native's results on this machine.

On hardware where nobody has tested them, compilers and drivers included, kernels are believed once
they have been seen to be right. Under ``auto`` the first accelerated call of each case is computed
natively, too; what comes out is kept in the store, so that later processes need not look again.
A way that was wrong is native's from then on: in this process whoever asks (:class:`.Verifier`),
in later ones under ``auto``. Asked for by name it is computed, so that a report can be reproduced.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

from ..store.fork import after_fork
from ..store.verdicts import Store
from .comparison import RouteKey

#: Sections of the store: text of a case to True; text of a way to what was wrong.
VERIFIED = "verified"
QUARANTINED = "quarantined"
#: Cases held in memory; beyond, all are looked up anew.
MAX_CASES = 4096
#: Comparisons that tell nothing (of silence, say) after which a process goes on without one.
MAX_UNTELLING = 8
#: Samples in all frames up to which all of a first call is compared. The comparison takes up to
#: seven times the memory of the result, here 1.8 GiB; a program that wants more may not have it
#: left. Of larger calls parts are compared (:mod:`.verify.excerpt`).
MAX_COMPARED = 1 << 26


class Case(NamedTuple):
    """What one comparison vouches for: a way of computing at about one size, on one chip."""

    key: RouteKey
    size: int
    chip: str

    def __str__(self) -> str:
        return "|".join(map(str, (*self.key, self.size, self.chip)))

    def of_gradient(self, name: str, differentiated: tuple[str, ...]) -> Case:
        """The case of a call's gradient in one of its arguments.

        Args:
            differentiated: all of them that are: together they may be made in another way.
        """
        what = f"gradient of {self.key.op} in {name}"
        if len(differentiated) > 1:
            what += f", of {' and '.join(differentiated)}"
        return self._replace(key=self.key._replace(op=what))

    @property
    def way(self) -> str:
        """The text of what is distrusted where a case is wrong: of any size."""
        return "|".join(map(str, (*self.key, self.chip)))


class Trust:
    """What this process and earlier ones have compared.

    Args:
        store: returns where verdicts are kept.
    """

    def __init__(self, store: Callable[[], Store]) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._trusted: set[Case] = set()
        self._untelling: dict[Case, int] = {}
        self._distrusted: dict[str, str] | None = None
        after_fork(self.after_fork_in_child)

    def is_due(self, case: Case) -> bool:
        """Whether a call of this case has yet to be compared."""
        if case in self._trusted:
            return False
        if self._store().get(VERIFIED, str(case)) is not True:
            return True
        self._add(case)
        return False

    def note(self, case: Case, telling: bool) -> bool:
        """Note a comparison in which nothing was wrong; tells whether the case is trusted now.

        Args:
            telling: a wrong result would have shown.
        """
        if not telling:
            with self._lock:
                seen = self._untelling[case] = self._untelling.get(case, 0) + 1
                if len(self._untelling) > MAX_CASES:
                    self._untelling.clear()
            if seen < MAX_UNTELLING:
                return False
        self._add(case)
        if telling:
            self._store().put(VERIFIED, str(case), True)
        return True

    def distrust(self, case: Case, reason: str) -> None:
        """Keep for later processes that a case was wrong."""
        self._store().put(QUARANTINED, case.way, reason)

    def distrusted(self) -> dict[str, str]:
        """Ways that were wrong in earlier processes, and in what."""
        if self._distrusted is None:
            kept = self._store().sections().get(QUARANTINED, {})
            self._distrusted = {way: f"{why} (in an earlier process)" for way, why in kept.items()}
        return self._distrusted

    def _add(self, case: Case) -> None:
        with self._lock:
            if len(self._trusted) >= MAX_CASES:
                self._trusted.clear()
            self._trusted.add(case)

    def clear(self) -> None:
        """Forget what is in memory."""
        with self._lock:
            self._trusted.clear()
            self._untelling.clear()
            self._distrusted = None

    def after_fork_in_child(self) -> None:
        """A forked child has a lock that nobody holds."""
        self._lock = threading.Lock()
