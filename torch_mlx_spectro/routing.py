"""Which backend computes a call, with every reason.

``native``, ``mlx``, ``mps`` and ``cuda`` are asked for by name; ``auto``, the default, asks
whichever is faster of native and the one for the tensor's device. That depends on machine and size,
so it is measured: the first few calls are native's and the next few the other's, each computed
once, and the faster one keeps the signature. Small calls on the CPU are native's from the start,
unmeasured: there the crossing alone costs more than native's whole computation.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch

from . import runtime, torch_state
from .environment import check_backend, check_verify, settings, verify_setting

if TYPE_CHECKING:
    from .params import IstftParams, StftParams

#: Device types of the tensors that each backend computes.
DEVICES = {"native": (), "mlx": ("cpu", "mps"), "mps": ("mps",), "cuda": ("cuda",)}

#: Samples in all frames below which ``auto`` does not consider MLX on the CPU: native needs less
#: than about 3 ms for them, and MLX was never measured faster there.
AUTO_FRAMED_SAMPLES = 1 << 22

#: Timed calls of each backend before ``auto`` decides; the first one of MLX warms up.
TRIALS = 3
#: MLX has to be this much faster to be chosen, so that noise cannot make ``auto`` a loss.
ADVANTAGE = 0.9
MAX_SIGNATURES = 256
MAX_SHAPES = 4096


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
    from . import mps_backend

    return mps_backend.unavailable_reason()


def _cuda_reason() -> str | None:
    from . import cuda_backend

    return cuda_backend.unavailable_reason()


def accelerator_of(choice: Choice, device_type: str) -> str:
    """The backend that competes with native for a tensor: the one asked for, or its device's."""
    if choice.backend != "auto":
        return choice.backend
    return "cuda" if device_type in DEVICES["cuda"] else "mlx"


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


class Timer(Protocol):
    """Times a call on a device's own clock."""

    def begin(self) -> None: ...

    def end(self) -> None: ...

    def seconds(self) -> float | None:
        """How long it took; None while the device has not finished."""


class Trials:
    """Times native and an accelerator against each other, call by call, and remembers who won.

    Native goes first, so that a program of few calls never pays for loading and warming up the
    other; a signature on which that is slower costs it TRIALS such calls at most. A device's call
    is timed by the device: its time is known later, and nobody waits for it.

    Args:
        clock: returns seconds; a test passes its own.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._times: OrderedDict[Any, dict[str, list[float]]] = OrderedDict()
        #: Calls whose device has yet to say how long they took.
        self._running: list[tuple[Any, str, Timer]] = []

    def pick(self, signature: Any, accelerator: str = "mlx") -> tuple[str, bool]:
        """The backend for a call of this signature, and whether the call is to be timed."""
        with self._lock:
            self._collect()
            times = self._times.get(signature)
            if times is None:
                times = {}
            else:
                self._times.move_to_end(signature)
            native, other = times.get("native", []), times.get(accelerator, [])
            if native and len(other) > 1 and min(other[1:]) > 2 * min(native):
                return "native", False  # hopeless: do not time it again
            waiting = [name for running, name, _ in self._running if running == signature]
            if len(native) + waiting.count("native") < TRIALS:
                return "native", True
            if len(other) + waiting.count(accelerator) < TRIALS:
                return accelerator, True
            if waiting:
                return accelerator, False
            return (accelerator if min(other[1:]) < ADVANTAGE * min(native) else "native"), False

    def time(self, signature: Any, backend_name: str, call: Callable[[], Any]) -> Any:
        """Run and time a call; a call that raises leaves no time."""
        begin = self._clock()
        result = call()
        took = self._clock() - begin
        with self._lock:
            self._note(signature, backend_name, took)
        return result

    def time_on_device(
        self, signature: Any, backend_name: str, call: Callable[[], Any], timer: Timer
    ) -> Any:
        """Run a call and have its device time it; a call that raises leaves no time."""
        timer.begin()
        result = call()
        timer.end()
        with self._lock:
            self._running.append((signature, backend_name, timer))
            del self._running[:-MAX_SIGNATURES]
        return result

    def is_running(self, signature: Any) -> bool:
        """Whether a time of this signature is not known yet."""
        with self._lock:
            self._collect()
            return any(running == signature for running, _, _ in self._running)

    def _collect(self) -> None:
        """Note the times that are known by now."""
        unknown = []
        for signature, name, timer in self._running:
            took = timer.seconds()
            if took is None:
                unknown.append((signature, name, timer))
            else:
                self._note(signature, name, took)
        self._running = unknown

    def _note(self, signature: Any, backend_name: str, took: float) -> None:
        times = self._times.setdefault(signature, {})
        times.setdefault(backend_name, []).append(took)
        while len(self._times) > MAX_SIGNATURES:
            self._times.popitem(last=False)

    def clear(self) -> None:
        with self._lock:
            self._times.clear()
            self._running.clear()

    def after_fork_in_child(self) -> None:
        """A forked child has a lock that nobody holds."""
        self._lock = threading.Lock()


class Settled:
    """A bounded set of call shapes, read without a lock: a stale answer costs nothing but time."""

    def __init__(self) -> None:
        self._shapes: set[Hashable] = set()
        self._lock = threading.Lock()

    def has(self, shape: Hashable) -> bool:
        """Whether the shape was added; shapes that cannot be hashed never are."""
        try:
            return shape in self._shapes
        except TypeError:
            return False

    def add(self, shape: Hashable) -> None:
        """Remember a shape; when there are too many, forget all and begin again."""
        with self._lock:
            if len(self._shapes) >= MAX_SHAPES:
                self._shapes = set()
            with suppress(TypeError):
                self._shapes.add(shape)

    def after_fork_in_child(self) -> None:
        """A forked child has a lock that nobody holds."""
        self._lock = threading.Lock()


class Signature(NamedTuple):
    """What a timing holds for. Sizes count to a quarter octave."""

    device: str
    kind: str
    n_fft: int
    hop_length: int
    size: int
    bins_innermost: bool
    flags: tuple[bool, bool, torch.dtype, int, bool]


def signature_of(params: StftParams | IstftParams, tensor: torch.Tensor) -> Signature:
    """The signature of a call; ``tensor`` is its input."""
    framed = params.rows * params.frames * params.n_fft
    octave = framed.bit_length()
    return Signature(
        device=tensor.device.type,
        kind=type(params).__name__,
        n_fft=params.n_fft,
        hop_length=params.hop_length,
        size=round(4 * (octave + framed / (1 << octave))),
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
