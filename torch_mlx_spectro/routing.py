"""Which backend computes a call, with every reason.

``native`` and ``mlx`` are asked for by name; ``auto``, the default, asks whichever is faster. On
CPU tensors that depends on machine and size, so it is measured: calls that are large enough take
turns between native and MLX until both have been timed, each call computed once, and the faster
one keeps the signature. Small calls are native's from the start, unmeasured: there the crossing
alone costs more than native's whole computation.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch

from . import runtime, torch_state
from .environment import check_backend, settings
from .params import IstftParams, StftParams

#: MLX computes tensors on these devices.
MLX_DEVICES = ("cpu", "mps")

#: Samples in all frames below which ``auto`` does not consider MLX on the CPU: native needs less
#: than about 3 ms for them, and MLX was never measured faster there.
AUTO_FRAMED_SAMPLES = 1 << 22

#: Timed calls of each backend before ``auto`` decides; the first one of MLX warms up.
TRIALS = 3
#: MLX has to be this much faster to be chosen, so that noise cannot make ``auto`` a loss.
ADVANTAGE = 0.9
MAX_SIGNATURES = 256


@dataclass(frozen=True)
class Choice:
    """What the program asked for: a backend, and whether falling back is an error."""

    backend: str
    strict: bool = False


NATIVE = Choice("native")


@dataclass(frozen=True)
class Route:
    """Who computes a call, and why.

    Attributes:
        op: ``"stft"`` or ``"istft"``.
        backend: ``"native"`` or ``"mlx"``.
        kernel: what computes it: ``"torch"``, ``"mlx cpu blocks"`` or ``"mlx gpu operations"``.
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
        _default.environment = Choice(settings().backend)
    return _default.environment


def set_patched_choice(choice: Choice | None) -> Choice | None:
    """Set what ``patch`` asks for; returns what held before."""
    before, _default.patched = _default.patched, choice
    return before


@contextmanager
def backend(name: str, strict: bool = False) -> Iterator[None]:
    """Choose the backend of :func:`stft` and :func:`istft`, and of torch's while patched.

    Applies to this thread or task until the context ends; contexts nest.

    Args:
        name: ``"auto"``, ``"native"`` or ``"mlx"``.
        strict: raise :class:`NotAccelerated` instead of falling back to native torch.

    Raises:
        ValueError: the name is not known.
    """
    token = _ambient.set(Choice(check_backend(name, "backend"), strict))
    try:
        yield
    finally:
        _ambient.reset(token)


def available_backends() -> dict[str, Availability]:
    """Every backend by name, with the reason why it cannot be used here."""
    reason = runtime.unavailable_reason()
    return {
        "native": Availability(True),
        "mlx": Availability(reason is None, reason or ""),
        "mps": Availability(False, "the direct MPS launcher is not in this version"),
        "cuda": Availability(False, "the CUDA kernels are not in this version"),
    }


def unsupported_reasons(tensors: tuple[tuple[str, Any], ...]) -> tuple[str, ...]:
    """Every reason why MLX cannot compute with these arguments; None stands for no tensor."""
    reasons = torch_state.ambient_reasons()
    given = [(name, tensor) for name, tensor in tensors if tensor is not None]
    for name, tensor in given:
        reasons += torch_state.tensor_reasons(name, tensor, MLX_DEVICES)
    if not reasons:
        signal = given[0][1]
        reasons += torch_state.autocast_reasons(signal.device.type)
        if any(tensor.device != signal.device for _, tensor in given):
            reasons.append("the tensors are on different devices")
        if signal.device.type == "mps" and not _mlx_has_gpu():
            reasons.append("this MLX has no GPU to take MPS tensors to")
    missing = runtime.unavailable_reason()
    if missing is not None:
        reasons.append(missing)
    return tuple(dict.fromkeys(reasons))


def _mlx_has_gpu() -> bool:
    if runtime.unavailable_reason() is not None:
        return False
    return bool(runtime.runtime().mx.metal.is_available())


class Trials:
    """Times native and MLX against each other, call by call, and remembers who won.

    Args:
        clock: returns seconds; a test passes its own.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._times: OrderedDict[Any, dict[str, list[float]]] = OrderedDict()

    def pick(self, signature: Any) -> tuple[str, bool]:
        """The backend for a call of this signature, and whether the call is to be timed."""
        with self._lock:
            times = self._times.get(signature)
            if times is None:
                return "native", True
            self._times.move_to_end(signature)
            native, mlx = times["native"], times["mlx"]
            if mlx and len(mlx) > 1 and min(mlx[1:]) > 2 * min(native):
                return "native", False  # hopeless: do not time it again
            if len(native) < TRIALS or len(mlx) < TRIALS:
                return ("mlx" if len(mlx) < len(native) else "native"), True
            return ("mlx" if min(mlx[1:]) < ADVANTAGE * min(native) else "native"), False

    def time(self, signature: Any, backend_name: str, call: Callable[[], Any]) -> Any:
        """Run and time a call; a call that raises leaves no time."""
        begin = self._clock()
        result = call()
        took = self._clock() - begin
        with self._lock:
            times = self._times.setdefault(signature, {"native": [], "mlx": []})
            times[backend_name].append(took)
            while len(self._times) > MAX_SIGNATURES:
                self._times.popitem(last=False)
        return result

    def clear(self) -> None:
        with self._lock:
            self._times.clear()

    def after_fork_in_child(self) -> None:
        """A forked child has a lock that nobody holds."""
        self._lock = threading.Lock()


def signature_of(params: StftParams | IstftParams, tensor: torch.Tensor) -> Any:
    """What a timing holds for: sizes to a quarter octave, and the memory order of the input."""
    framed = params.rows * params.frames * params.n_fft
    size = round(4 * (framed.bit_length() + framed / (1 << framed.bit_length())))
    order = tensor.stride(-1) <= tensor.stride(-2) if tensor.dim() > 1 else True
    kind = type(params).__name__
    flags = (params.onesided, params.return_complex, tensor.dtype, torch.get_num_threads())
    return (kind, params.n_fft, params.hop_length, size, order, flags)


def check_choice(name: str, strict: bool) -> Choice:
    """A choice by ``patch``'s arguments; ``"auto"`` leaves it to the environment's, if any.

    Raises:
        ValueError: the name, or the environment's, is not known.
    """
    checked = check_backend(name, "backend")
    return Choice(settings().backend if checked == "auto" else checked, strict)
