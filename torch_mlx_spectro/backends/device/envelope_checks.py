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
#: Windows that are kept, and calls of each.
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
        wait_for_verdict: waits for the verdict of the last launch on a device's current stream,
            which has the flag, and leaves the flag ready for the next launch.
    """

    def __init__(
        self,
        make_flag: Callable[[torch.device], torch.Tensor],
        wait_for_verdict: Callable[[torch.Tensor, torch.device], int] = read_flag,
    ) -> None:
        self._make_flag, self._wait_for_verdict = make_flag, wait_for_verdict
        #: By identity: the window, its version, and the sizes that its envelope is fine for.
        self._fine: dict[int, tuple[weakref.ref[torch.Tensor], int, Sizes]] = {}
        self._free: dict[torch.device, list[torch.Tensor]] = {}
        #: All flags, for good: after an interruption a kernel may still write one that is not free.
        self._flags: list[torch.Tensor] = []
        register_cache(self.forget)

    def is_fine(self, call: Geometry, window: torch.Tensor) -> bool:
        """Whether an earlier call has found that the envelope does not vanish."""
        entry = self._fine.get(id(window))
        if entry is None or entry[0]() is not window or window.is_inference():
            return False
        sizes, tail = call
        return entry[1] == window._version and entry[2].get(sizes, tail + 1) <= tail

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
        sizes = self._find_fine_sizes(window)  # while the kernel runs: waiting is all else
        verdict = self._wait_for_verdict(flag, device)
        self._free[device].append(flag)
        if verdict == Verdict.VANISHES:
            raise UnresolvedArguments(VANISHES)
        _note(call, sizes)

    def check(self, params: IstftParams, window: Optional) -> None:
        """Find out by the window's values, where no kernel is asked.

        Raises:
            UnresolvedArguments: as :meth:`settle`.
        """
        call = params.geometry
        if window is None or not self.is_fine(call, window):
            check_envelope(params, window)
            if window is not None:
                _note(call, self._find_fine_sizes(window))

    def _find_fine_sizes(self, window: torch.Tensor) -> Sizes:
        """The sizes for which a window, as it is now, was found fine; the caller adds to them."""
        if window.is_inference():
            return {}  # it counts no versions
        name, fine = id(window), self._fine
        entry = fine.get(name)
        if entry is None or entry[0]() is not window or entry[1] != window._version:
            if len(fine) >= MAX_WINDOWS:
                fine = self._fine = {}

            def forget(_: Any) -> None:
                fine.pop(name, None)

            # Dictionaries change in one step of the interpreter; a lock could be held by the very
            # thread whose garbage is being collected.
            entry = fine[name] = (weakref.ref(window, forget), window._version, {})
        return entry[2]

    def forget(self) -> None:
        """Let every window be asked about anew."""
        self._fine = {}


def _note(call: Geometry, fine: Sizes) -> None:
    sizes, tail = call
    if len(fine) >= MAX_CALLS_OF_A_WINDOW:
        fine.clear()
    fine[sizes] = min(tail, fine.get(sizes, tail))
