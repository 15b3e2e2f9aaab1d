"""The route of a call (who computes it, and why), and the kind of calls that a timing holds for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import torch

from ..native import private_state as torch_state
from ..terminal import Shown

if TYPE_CHECKING:  # a program whose calls all go native never resolves one
    from ..core.params import IstftParams, StftParams

#: By function, samples in all frames below which ``auto`` leaves calls on the CPU to native. With
#: one thread of an EPYC the ``cpu`` backend took 1.1x to 1.2x of native's time for an stft of one
#: block, and less from two blocks on; for an istft 1.2x at 16,000, 0.9x at 31,000, 0.67x at 64,000.
LEAST_FRAMED: Mapping[str, int] = MappingProxyType({"stft": 1 << 20, "istft": 3 << 14})


@dataclass(frozen=True, repr=False)
class Route(Shown):
    """Who computes a call, and why.

    Attributes:
        op: ``"stft"`` or ``"istft"``.
        backend: its name; ``"native"`` for torch's own function.
        kernel: what computes it: ``"torch"``, ``"mlx cpu blocks"``, a kernel by name.
        reasons: why it is not accelerated, or how ``auto`` came to its choice.
    """

    op: str
    backend: str
    kernel: str
    reasons: tuple[str, ...] = ()

    def _list_shown(self) -> Mapping[str, object]:
        return asdict(self)


class CallKind(NamedTuple):
    """A class of calls that share a timing: about one size, alike in all that time depends on."""

    device: str
    chip: str
    kind: str
    n_fft: int
    hop_length: int
    size: int
    bins_innermost: bool
    flags: tuple[bool, bool, torch.dtype, int, bool]

    @property
    def is_differentiated(self) -> bool:
        """Whether calls like it are differentiated in their input."""
        return self.flags[-1]

    @property
    def both_ways(self) -> CallKind:
        """The kind for times that include the backward pass."""
        return self._replace(kind=f"{self.kind} and gradient")


def framed_samples(params: StftParams | IstftParams) -> int:
    """Count the samples in all frames of a call."""
    return params.rows * params.frames * params.n_fft


def size_class(params: StftParams | IstftParams) -> int:
    """Return the size of a call, to a quarter octave."""
    framed = framed_samples(params)
    octave = framed.bit_length()
    return round(4 * (octave + framed / (1 << octave)))


def make_kind(params: StftParams | IstftParams, tensor: torch.Tensor) -> CallKind:
    """Make the kind of a call; ``tensor`` is its input."""
    return CallKind(
        device=tensor.device.type,
        chip=torch_state.name_chip(tensor.device),
        kind=type(params).__name__,
        n_fft=params.n_fft,
        hop_length=params.hop_length,
        size=size_class(params),
        bins_innermost=tensor.dim() < 2 or tensor.stride(-2) <= tensor.stride(-1),
        flags=(
            params.onesided,
            params.return_complex,
            tensor.dtype,
            torch.get_num_threads(),
            torch_state.is_differentiated(tensor),
        ),
    )
