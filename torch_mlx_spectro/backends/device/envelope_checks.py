"""Whether torch refuses the envelope of an istft: asked of the kernel once for a window.

The kernel that computes an istft tells whether the envelope vanishes. The host waits for that, as
native waits for the same answer in every call; on CUDA it may be told while the kernel runs. That a
window's envelope does not vanish is kept by the window's identity and version. Neither tells of
every change, but all that a stale answer costs is an exception: values are read anew in every call.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch

from ...core.params import IstftParams
from ...errors import UnresolvedArguments
from ...kernels.arguments import Verdict
from ...store.caches import register_cache
from ..base import Optional
from ..envelope import VANISHES, check_envelope

#: Of a call, as :attr:`.IstftParams.geometry`.
Geometry = tuple[tuple[int, ...], int]
#: Of a window: the shortest end left out, by the other sizes of calls.
Sizes = dict[tuple[int, ...], int]
#: Windows that are known, and calls of each.
MAX_WINDOWS = 256
MAX_CALLS_OF_A_WINDOW = 64


def read_flag(flag: torch.Tensor, device: torch.device) -> int:
    """What was told when all that has the flag has run, for which reading it waits."""
    verdict = int(flag.item())
    if verdict == Verdict.VANISHES:
        flag.zero_()  # what a launch leaves that found nothing is as good as 0
    return verdict


class EnvelopeChecks:
    """The windows of one kind of device.

    Args:
        make_flag: returns an int32 of 0 that a device's kernels can write.
        hear: waits for what is told by the last launch on a device's current stream, which has the
            flag, and leaves the flag to the next.
    """

    def __init__(
        self,
        make_flag: Callable[[torch.device], torch.Tensor],
        hear: Callable[[torch.Tensor, torch.device], int] = read_flag,
    ) -> None:
        self._make_flag, self._hear = make_flag, hear
        #: By identity: the window, its version, and how it is known.
        self._fine: dict[int, tuple[weakref.ref[torch.Tensor], int, Sizes]] = {}
        self._free: dict[torch.device, list[torch.Tensor]] = {}
        #: All flags, for good: after an interruption a kernel may still write one that is not free.
        self._flags: list[torch.Tensor] = []
        register_cache(self.forget)

    def is_fine(self, call: Geometry, window: torch.Tensor) -> bool:
        """Whether the envelope is known not to vanish."""
        known = self._fine.get(id(window))
        if known is None or known[0]() is not window or window.is_inference():
            return False
        sizes, tail = call
        return known[1] == window._version and known[2].get(sizes, tail + 1) <= tail

    def take_flag(self, device: torch.device) -> torch.Tensor:
        """A flag that no other call has."""
        try:
            return self._free.setdefault(device, []).pop()
        except IndexError:
            with torch.inference_mode(False):
                flag = self._make_flag(device)
            self._flags.append(flag)
            return flag

    def settle(
        self, call: Geometry, window: torch.Tensor, flag: torch.Tensor, device: torch.device
    ) -> None:
        """Wait until the kernel that has the flag has told, and keep its verdict.

        Raises:
            UnresolvedArguments: the envelope vanishes, for which torch raises.
        """
        known = self._known_sizes(window)  # while the kernel runs: waiting is all else
        verdict = self._hear(flag, device)
        self._free[device].append(flag)
        if verdict == Verdict.VANISHES:
            raise UnresolvedArguments(VANISHES)
        _note(call, known)

    def check(self, params: IstftParams, window: Optional) -> None:
        """Find out by the window's values, where no kernel is asked.

        Raises:
            UnresolvedArguments: as :meth:`settle`.
        """
        call = params.geometry
        if window is None or not self.is_fine(call, window):
            check_envelope(params, window)
            if window is not None:
                _note(call, self._known_sizes(window))

    def _known_sizes(self, window: torch.Tensor) -> Sizes:
        """The sizes by which a window, as it is now, is known not to vanish; may be added to."""
        if window.is_inference():
            return {}  # it counts no versions
        name, fine = id(window), self._fine
        known = fine.get(name)
        if known is None or known[0]() is not window or known[1] != window._version:
            if len(fine) >= MAX_WINDOWS:
                fine = self._fine = {}

            def forget(_: Any) -> None:
                fine.pop(name, None)

            # Dictionaries change in one step of the interpreter; a lock could be held by the very
            # thread whose garbage is being collected.
            known = fine[name] = (weakref.ref(window, forget), window._version, {})
        return known[2]

    def forget(self) -> None:
        """Let every window be asked about anew."""
        self._fine = {}


def _note(call: Geometry, known: Sizes) -> None:
    sizes, tail = call
    if len(known) >= MAX_CALLS_OF_A_WINDOW:
        known.clear()
    known[sizes] = min(tail, known.get(sizes, tail))
