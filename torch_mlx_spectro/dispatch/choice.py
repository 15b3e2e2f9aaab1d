"""What the program asks for, and who is asked then.

A backend is asked for by name; ``auto``, the default, asks whichever is the fastest of native and
the candidates for the tensor's device. That depends on machine and size, so it is measured
(:mod:`.dispatch.autotune`). Small calls on the CPU are native's from the start, unmeasured. Where
the environment wants nothing measured, the first of the candidates computes all others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch

from ..backends import registry
from ..backends.registry import BackendName
from ..native import private_state as torch_state
from ..settings import (
    BACKEND_VARIABLE,
    Settings,
    autotune_settings,
    check_verify,
    settings,
    verify_setting,
)


@dataclass(frozen=True)
class Choice:
    """What the program asked for: a backend, and whether a fallback is an error.

    ``verify``: every that-many-th accelerated call of a route is compared with native; 0: none.
    """

    backend: str
    strict: bool = False
    verify: int = 0


NATIVE = Choice(registry.NATIVE)


@dataclass(frozen=True)
class Availability:
    """Whether a backend can be used here.

    Attributes:
        available: whether it can.
        reason: why not; ``""`` if it can.
    """

    available: bool
    reason: str = ""


_ambient: ContextVar[Choice | None] = ContextVar("torch_mlx_spectro_backend", default=None)


class _Default:
    """The choice where no ``backend()`` context is active, set by ``patch``."""

    def __init__(self) -> None:
        self.patched: Choice | None = None
        self.environment: Choice | None = None
        self.measures: bool | None = None


_default = _Default()


def current_choice() -> Choice:
    """Return the choice here: of the innermost ``backend()``, ``patch()`` or the environment."""
    return _ambient.get() or _default.patched or _environment_choice()


def patched_choice() -> Choice:
    """Return the choice for torch's own names: native, unless ``patch`` is in force."""
    patched = _default.patched
    return NATIVE if patched is None else _ambient.get() or patched


def is_patched() -> bool:
    """Return whether a :func:`patch` is in force in this process."""
    return _default.patched is not None


def _environment_choice() -> Choice:
    if _default.environment is None:
        found = environment_settings()
        _default.environment = Choice(found.backend, verify=found.verify)
    return _default.environment


def environment_settings() -> Settings:
    """Read what the environment asks for.

    Raises:
        ValueError: a variable has an unknown value.
    """
    found = settings()
    registry.check_name(found.backend, BACKEND_VARIABLE)
    return found


def set_patched_choice(choice: Choice | None) -> Choice | None:
    """Set what ``patch`` asks for, and return what held before."""
    before, _default.patched = _default.patched, choice
    return before


@contextmanager
def backend(name: BackendName, strict: bool = False, verify: int | None = None) -> Iterator[None]:
    """Choose the backend of :func:`stft` and :func:`istft`, and of torch's while patched.

    Applies to this thread or task until the context ends; contexts nest.

    Args:
        name: ``"auto"``, or one of :func:`available_backends`.
        strict: raise :class:`NotAccelerated` instead of falling back to native torch.
        verify: as of ``patch``; None leaves it at what holds outside of this context.

    Raises:
        ValueError: the name is not known, ``strict`` is neither True nor False, or ``verify`` is
            not a number of calls.
    """
    checked = registry.check_name(name, "backend")
    _check_strict(strict)
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
    """Return every backend by name, and whether it can be used here.

    Returns:
        ``"native"``, ``"cpu"``, ``"mlx"``, ``"mps"`` and ``"cuda"``, each with its
        :class:`Availability`. Libraries such as MLX are loaded to find out.
    """
    found = {registry.NATIVE: Availability(True)}
    for spec in registry.specs():
        reason = registry.load(spec.name).explain_absence()
        found[spec.name] = Availability(reason is None, reason or "")
    return found


def list_devices(name: str) -> tuple[str, ...]:
    """List the device types that a backend accelerates; emulated Metal computes the host's."""
    if name == registry.NATIVE:
        return ()
    spec = registry.find(name)
    kinds = spec.device_types
    if spec.has_metal_kernels and torch_state.HOST not in kinds and torch_state.mps_is_emulated():
        return (*kinds, torch_state.HOST)
    return kinds


def find_candidates(choice: Choice, device_type: str) -> tuple[str, ...]:
    """Find the backends that compete with native: the one asked for, or those of the device."""
    if choice.backend != "auto":
        return (choice.backend,)
    return registry.list_candidates(device_type)


def measures() -> bool:
    """Whether the environment lets ``auto`` time calls."""
    if _default.measures is None:
        _default.measures = autotune_settings().measure
    return _default.measures


def unsupported_reasons(tensors: tuple[tuple[str, Any], ...], accelerator: str) -> tuple[str, ...]:
    """List every reason why a backend cannot compute with these arguments; None is no tensor.

    The backend is not loaded: whether it is here, :func:`missing_reason` answers.
    """
    reasons, devices = torch_state.ambient_reasons(), list_devices(accelerator)
    dtypes: tuple[Any, ...] = torch_state.DTYPES
    if registry.find(accelerator).takes_doubles:
        dtypes += (torch.float64, torch.complex128)
    for name, tensor in tensors:
        if tensor is not None:
            reasons += torch_state.tensor_reasons(name, tensor, devices, dtypes)
    return tuple(dict.fromkeys(reasons))


def missing_reason(device_type: str, name: str) -> str | None:
    """Explain why a backend is not here for tensors of this device type; loads it on first use."""
    return registry.load(name).explain_absence(device_type)


def _check_strict(strict: bool) -> None:
    """Refuse ``"no"``, which is true, and whatever else is no bool."""
    if strict not in (True, False):
        raise ValueError(f"strict must be True or False; got {strict!r}")


def check_choice(name: str, strict: bool, verify: int | None = None) -> Choice:
    """A choice by ``patch``'s arguments; ``"auto"`` and None leave it to the environment, if any.

    Raises:
        ValueError: the name or the number, or the environment's, is not one; or ``strict`` is
            neither True nor False.
    """
    checked = registry.check_name(name, "backend")
    _check_strict(strict)
    every = verify_setting() if verify is None else check_verify(verify, "verify")
    return Choice(environment_settings().backend if checked == "auto" else checked, strict, every)
