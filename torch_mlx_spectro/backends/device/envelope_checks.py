"""Whether torch would refuse the envelope of an istft, asked of the kernel once for each window.

The kernel that computes an istft also finds out whether the envelope vanishes. The host waits for
its verdict, as native does in every call; on CUDA the verdict may come while the kernel still runs.
If the envelope does not vanish, that is kept by the window's identity and version. These do not
show every change of a window. But a stale verdict costs no more than a missing exception, since the
window's values are read anew in every call.
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

#: The sizes of a call, and the end it leaves out: :attr:`.IstftParams.geometry`.
Geometry = tuple[tuple[int, ...], int]
#: For a window whose envelope is fine: by a call's sizes, the shortest end that was left out.
Sizes = dict[tuple[int, ...], int]
#: Windows that are kept, and the sizes kept for each.
MAX_WINDOWS = 256
MAX_CALLS_OF_A_WINDOW = 64


def read_flag(flag: torch.Tensor, device: torch.device) -> int:
    """Return the verdict in a flag; reading it waits for all launches that were given the flag."""
    verdict = int(flag.item())
    if verdict == Verdict.VANISHES:
        flag.zero_()  # the other verdicts need no reset: they are as good as 0
    return verdict


class EnvelopeChecks:
    """The windows of one kind of device whose envelopes do not vanish.

    Args:
        make_flag: returns an int32 of 0 that a device's kernels can write.
        wait_for_verdict: waits for the verdict of the last launch on a device's current stream,
            which was given the flag; leaves the flag ready for the next launch.
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
        #: All flags, never freed: after an interruption a kernel may still write to one in use.
        self._flags: list[torch.Tensor] = []
        register_cache(self.forget)

    def is_fine(self, call: Geometry, window: torch.Tensor) -> bool:
        """Whether an earlier call has found that the envelope does not vanish."""
        entry = self._fine.get(id(window))
        if entry is None or entry[0]() is not window:
            return False  # so are inference tensors, which have no version
        sizes, tail = call
        return entry[1] == window._version and entry[2].get(sizes, tail + 1) <= tail

    def take_flag(self, device: torch.device) -> torch.Tensor:
        """Take a flag that no other call is using."""
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
        """Wait for the verdict of the kernel that was given the flag, and keep it.

        Raises:
            UnresolvedArguments: the envelope vanishes, so torch raises.
        """
        sizes = self._find_fine_sizes(window)  # before waiting, while the kernel runs
        verdict = self._wait_for_verdict(flag, device)
        self._free[device].append(flag)
        if verdict == Verdict.VANISHES:
            raise UnresolvedArguments(VANISHES)
        _note(call, sizes)

    def check(self, params: IstftParams, window: Optional) -> None:
        """Check an envelope on the host by the window's values, and keep the verdict.

        Raises:
            UnresolvedArguments: the envelope vanishes, so torch raises.
        """
        call = params.geometry
        if window is None or not self.is_fine(call, window):
            check_envelope(params, window)
            if window is not None:
                _note(call, self._find_fine_sizes(window))

    def _find_fine_sizes(self, window: torch.Tensor) -> Sizes:
        """Find the sizes for which this version of a window is fine; the caller adds to them."""
        if window.is_inference():
            return {}  # inference tensors have no version
        name, fine = id(window), self._fine
        entry = fine.get(name)
        if entry is None or entry[0]() is not window or entry[1] != window._version:
            if len(fine) >= MAX_WINDOWS:
                fine = self._fine = {}

            def forget(_: Any) -> None:
                fine.pop(name, None)

            # Without a lock, which the thread whose garbage is collected might hold itself. A
            # dictionary changes in one step of the interpreter.
            entry = fine[name] = (weakref.ref(window, forget), window._version, {})
        return entry[2]

    def forget(self) -> None:
        """Forget every window, so that each is checked anew."""
        self._fine = {}


def _note(call: Geometry, fine: Sizes) -> None:
    sizes, tail = call
    if len(fine) >= MAX_CALLS_OF_A_WINDOW:
        fine.clear()
    fine[sizes] = min(tail, fine.get(sizes, tail))
