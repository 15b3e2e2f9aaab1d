"""The names of all backends, and where each is: the only list of them.

Nothing is loaded to answer what is said here: a backend's module is imported when it is asked for
something itself (:func:`load`).
"""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

from ..errors import suggest

if TYPE_CHECKING:
    from .base import Backend

#: In the place of a backend's name: torch's own functions.
NATIVE = "native"
#: What programs ask for, as editors and type checkers know it.
BackendName: TypeAlias = Literal["auto", "native", "cpu", "mlx", "mps", "cuda"]


@dataclass(frozen=True)
class Spec:
    """A backend by name.

    Attributes:
        name: that programs ask for it by.
        device_types: of the tensors that it computes.
        location: its module and the name of the object there, as ``"package.module:OBJECT"``.
        priority: among those of a device; where two are as fast, the higher one is taken.
        in_auto: whether ``auto`` considers it.
        in_auto_on_host: whether it does for tensors of the host.
        takes_doubles: it computes in double precision, too.
        has_metal_kernels: it computes the host's tensors while Metal is emulated.
        loads_library: a large library is imported to find out whether it is here: ``auto`` asks it
            last.
        needs: what a machine needs to have it, for people.
    """

    name: str
    device_types: tuple[str, ...]
    location: str
    priority: int = 0
    in_auto: bool = True
    in_auto_on_host: bool = True
    takes_doubles: bool = False
    has_metal_kernels: bool = False
    loads_library: bool = False
    needs: str = ""


_HOST = "cpu"
_HERE = __name__.rpartition(".")[0]
_specs: dict[str, Spec] = {
    spec.name: spec
    for spec in (
        Spec("cpu", ("cpu",), f"{_HERE}.cpu.backend:CPU", priority=1, takes_doubles=True),
        Spec(
            "mlx",
            ("cpu", "mps"),
            f"{_HERE}.mlx.backend:MLX",
            # MLX's transforms of the host take two to three times as long as MKL's.
            in_auto_on_host=sys.platform == "darwin",
            has_metal_kernels=True,
            loads_library=True,
        ),
        Spec(
            "mps",
            ("mps",),
            f"{_HERE}.mps.backend:MPS",
            priority=1,
            has_metal_kernels=True,
            needs="a Mac with Apple silicon, and torch's build for it",
        ),
        Spec(
            "cuda",
            ("cuda",),
            f"{_HERE}.cuda.backend:CUDA",
            needs="an NVIDIA GPU, a CUDA build of torch, and pip install cuda-core",
        ),
    )
}
_loaded: dict[str, Backend] = {}


def names() -> tuple[str, ...]:
    """The names of all backends, ``"native"`` first."""
    return (NATIVE, *_specs)


def check_name(name: str, source: str) -> BackendName:
    """Return a name if it is ``"auto"`` or a backend's.

    Raises:
        ValueError: naming ``source`` (an argument or a variable) and all backends.
    """
    accepted = ("auto", *names())
    if name not in accepted:
        raise ValueError(
            f"{source} must be one of {', '.join(accepted)}; got {name!r}{suggest(name, accepted)}"
        )
    return cast(BackendName, name)


def specs() -> tuple[Spec, ...]:
    """All backends but native."""
    return tuple(_specs.values())


def find(name: str) -> Spec:
    """The spec of a backend, by its name."""
    return _specs[name]


def device_types() -> tuple[str, ...]:
    """The types of devices that any backend computes for."""
    return tuple(dict.fromkeys(kind for one in _specs.values() for kind in one.device_types))


def is_present(device_type: str) -> bool:
    """Whether torch says that it has a device of this type; a virtual machine may refuse it.

    GitHub documents that its macOS runners do not support MPS; torch.mps.is_available() is true on
    some of them (pytorch/pytorch#125197, actions/runner-images#9918).
    """
    import torch  # only here: names are listed without it

    return bool(getattr(torch, device_type).is_available())


def list_present_devices() -> tuple[str, ...]:
    """The device types that tensors can be made on here, in the order of :func:`device_types`."""
    return tuple(filter(is_present, device_types()))


def load(name: str) -> Backend:
    """A backend itself; its module is imported on first use."""
    found = _loaded.get(name)
    if found is None:
        found = _loaded[name] = pkgutil.resolve_name(_specs[name].location)
    return found


def list_candidates(device_type: str) -> tuple[str, ...]:
    """Those that ``auto`` considers for tensors of a device, best first.

    Of a device that nobody computes for these are the host's, which say so.
    """
    if all(device_type not in one.device_types for one in _specs.values() if one.in_auto):
        device_type = _HOST
    able = [
        one
        for one in _specs.values()
        if one.in_auto
        and device_type in one.device_types
        and (one.in_auto_on_host or device_type != _HOST)
    ]
    return tuple(one.name for one in sorted(able, key=lambda one: -one.priority))


def list_backends(device_type: str) -> tuple[str, ...]:
    """All that compute tensors of a device, in the order of :func:`names`."""
    return tuple(one.name for one in _specs.values() if device_type in one.device_types)


@contextmanager
def register_backend(
    spec: Spec, backend: Backend | None = None, *, replace: bool = False
) -> Iterator[None]:
    """Have one more backend, until the context ends.

    Args:
        backend: itself, where it is not to be loaded from the spec's location.
        replace: it takes the place of the one that has its name.

    Raises:
        ValueError: the name is taken, and nothing is to be replaced; or not taken, and it is.
    """
    if replace and spec.name not in _specs:
        raise ValueError(f"there is no backend {spec.name!r} to replace")
    if not replace and spec.name in ("auto", *names()):
        raise ValueError(f"a backend {spec.name!r} is there already")
    before, loaded = _specs.get(spec.name), _loaded.pop(spec.name, None)
    _specs[spec.name] = spec
    if backend is not None:
        _loaded[spec.name] = backend
    try:
        yield
    finally:
        _loaded.pop(spec.name, None)
        if before is None:
            del _specs[spec.name]
        else:
            _specs[spec.name] = before
        if loaded is not None:
            _loaded[spec.name] = loaded
