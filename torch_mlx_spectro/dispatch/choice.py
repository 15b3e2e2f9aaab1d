"""Which backend computes a call, with every reason.

``native``, ``mlx``, ``mps`` and ``cuda`` are asked for by name; ``auto``, the default, asks
whichever is the fastest of native and the candidates for the tensor's device. That depends on
machine and size, so it is measured (:mod:`.dispatch.autotune`). Small calls on the CPU are native's
from the start, unmeasured: there the crossing alone costs more than native's whole computation.
Where the environment wants nothing measured, a fixed table decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ..mlx import runtime
from ..native import state as torch_state
from ..settings import autotune_settings, check_backend, check_verify, settings, verify_setting

if TYPE_CHECKING:
    from ..core.params import IstftParams, StftParams

#: Device types of the tensors that each backend computes.
DEVICES = {"native": (), "mlx": ("cpu", "mps"), "mps": ("mps",), "cuda": ("cuda",)}

#: Samples in all frames below which ``auto`` does not consider MLX on the CPU: native needs less
#: than about 3 ms for them, and MLX was never measured faster there.
AUTO_FRAMED_SAMPLES = 1 << 22

#: Candidates of ``auto`` by the tensor's device type; where they tie, the first. Any other device
#: is MLX's to refuse.
CANDIDATES = {"mps": ("mps", "mlx"), "cuda": ("cuda",)}
OTHERS = ("mlx",)

#: Samples in all frames from which ``auto`` gives calls on the CPU to MLX where nothing may be
#: measured: on two cores of a Xeon both functions took less time by MLX at 15 million (stft 1.4x,
#: istft 1.4x) and stft took more at 5 million (0.4x to 0.5x).
STATIC_FRAMED_SAMPLES = 3 << 22


@dataclass(frozen=True)
class Choice:
    """What the program asked for: a backend, and whether falling back is an error.

    ``verify``: every that-many-th accelerated call of a route is compared with native; 0: none.
    """

    backend: str
    strict: bool = False
    verify: int = 0


NATIVE = Choice("native")


@dataclass(frozen=True)
class Route:
    """Who computes a call, and why.

    Attributes:
        op: ``"stft"`` or ``"istft"``.
        backend: ``"native"``, ``"mlx"``, ``"mps"`` or ``"cuda"``.
        kernel: what computes it: ``"torch"``, ``"mlx cpu blocks"``, a kernel by name.
        reasons: why it is not accelerated, or how ``auto`` came to its choice.
    """

    op: str
    backend: str
    kernel: str
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Availability:
    """Whether a backend can be used here; ``reason`` tells why not, and is empty otherwise."""

    available: bool
    reason: str = ""


_ambient: ContextVar[Choice | None] = ContextVar("torch_mlx_spectro_backend", default=None)


class _Default:
    """What holds where no ``backend()`` context is active: set by ``patch``."""

    def __init__(self) -> None:
        self.patched: Choice | None = None
        self.environment: Choice | None = None
        self.measures: bool | None = None


_default = _Default()


def current_choice() -> Choice:
    """What holds here: the innermost ``backend()``, else ``patch()``'s, else the environment's."""
    return _ambient.get() or _default.patched or _environment_choice()


def patched_choice() -> Choice:
    """What holds for torch's own names: nothing but native unless ``patch`` is in force."""
    patched = _default.patched
    return NATIVE if patched is None else _ambient.get() or patched


def _environment_choice() -> Choice:
    if _default.environment is None:
        found = settings()
        _default.environment = Choice(found.backend, verify=found.verify)
    return _default.environment


def set_patched_choice(choice: Choice | None) -> Choice | None:
    """Set what ``patch`` asks for; returns what held before."""
    before, _default.patched = _default.patched, choice
    return before


@contextmanager
def backend(name: str, strict: bool = False, verify: int | None = None) -> Iterator[None]:
    """Choose the backend of :func:`stft` and :func:`istft`, and of torch's while patched.

    Applies to this thread or task until the context ends; contexts nest.

    Args:
        name: ``"auto"``, ``"native"``, ``"mlx"``, ``"mps"`` or ``"cuda"``.
        strict: raise :class:`NotAccelerated` instead of falling back to native torch.
        verify: as of ``patch``; None leaves it at what holds outside of this context.

    Raises:
        ValueError: the name is not known, or ``verify`` is not a number of calls.
    """
    checked = check_backend(name, "backend")
    if verify is None:
        outer = _ambient.get() or _default.patched or _default.environment
        every = verify_setting() if outer is None else outer.verify
    else:
        every = check_verify(verify, "verify")
    token = _ambient.set(Choice(checked, strict, every))
    try:
        yield
    finally:
        _ambient.reset(token)


def available_backends() -> dict[str, Availability]:
    """Every backend by name, with the reason why it cannot be used here."""
    mlx, mps, cuda = runtime.unavailable_reason(), _mps_reason(), _cuda_reason()
    return {
        "native": Availability(True),
        "mlx": Availability(mlx is None, mlx or ""),
        "mps": Availability(mps is None, mps or ""),
        "cuda": Availability(cuda is None, cuda or ""),
    }


def devices_of(accelerator: str) -> tuple[str, ...]:
    """Device types whose tensors a backend computes here: emulated Metal computes the host's."""
    devices = DEVICES[accelerator]
    if accelerator == "mps" and torch_state.mps_is_emulated():
        return (*devices, torch_state.HOST)
    return devices


def _mps_reason() -> str | None:
    from ..backends.mps import backend as mps_backend

    return mps_backend.unavailable_reason()


def _cuda_reason() -> str | None:
    from ..backends.cuda import backend as cuda_backend

    return cuda_backend.unavailable_reason()


def candidates_of(choice: Choice, device_type: str) -> tuple[str, ...]:
    """The backends that compete with native for a tensor: the one asked for, or its device's."""
    if choice.backend != "auto":
        return (choice.backend,)
    return CANDIDATES.get(device_type, OTHERS)


def measures() -> bool:
    """Whether the environment lets ``auto`` time calls."""
    if _default.measures is None:
        _default.measures = autotune_settings().measure
    return _default.measures


def static_choice(candidates: tuple[str, ...], device_type: str, framed: int) -> str:
    """What ``auto`` takes where nothing may be measured: always the same.

    Args:
        candidates: that can compute the call, as far as is known.
        framed: samples in all frames.
    """
    if device_type == torch_state.HOST and framed < STATIC_FRAMED_SAMPLES:
        return "native"
    return candidates[0]


def unsupported_reasons(tensors: tuple[tuple[str, Any], ...], accelerator: str) -> tuple[str, ...]:
    """Every reason why a backend cannot compute with these arguments; None stands for no tensor.

    Does not load the backend: whether it is here is :func:`missing_reason`'s question.
    """
    reasons, devices = torch_state.ambient_reasons(), devices_of(accelerator)
    for name, tensor in tensors:
        if tensor is not None:
            reasons += torch_state.tensor_reasons(name, tensor, devices)
    return tuple(dict.fromkeys(reasons))


def missing_reason(device_type: str, accelerator: str) -> str | None:
    """Why a backend is not here for tensors of this device type; loads it on first use."""
    if accelerator == "cuda":
        return _cuda_reason()
    if accelerator == "mps":
        return _mps_reason()
    reason = runtime.unavailable_reason()
    if reason is None and device_type == "mps" and not runtime.has_gpu():
        return "this MLX has no GPU to take MPS tensors to"
    return reason


class Signature(NamedTuple):
    """What a timing holds for."""

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
    def both_ways(self) -> Signature:
        """What a timing holds for that includes the way from the cotangent to the gradient."""
        return self._replace(kind=f"{self.kind} and gradient")


def framed_samples(params: StftParams | IstftParams) -> int:
    """Samples in all frames of a call."""
    return params.rows * params.frames * params.n_fft


def size_class(params: StftParams | IstftParams) -> int:
    """The size of a call, to a quarter octave."""
    framed = framed_samples(params)
    octave = framed.bit_length()
    return round(4 * (octave + framed / (1 << octave)))


def signature_of(params: StftParams | IstftParams, tensor: torch.Tensor) -> Signature:
    """The signature of a call; ``tensor`` is its input."""
    return Signature(
        device=tensor.device.type,
        chip=torch_state.chip_of(tensor.device),
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


def check_choice(name: str, strict: bool, verify: int | None = None) -> Choice:
    """A choice by ``patch``'s arguments; ``"auto"`` and None leave it to the environment, if any.

    Raises:
        ValueError: the name or the number, or the environment's, is not one.
    """
    checked = check_backend(name, "backend")
    every = verify_setting() if verify is None else check_verify(verify, "verify")
    return Choice(settings().backend if checked == "auto" else checked, strict, every)
