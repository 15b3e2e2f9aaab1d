"""What torch is doing around a call: the only module that asks torch's private state.

Transforms, tracers and modes want to see ``torch.stft`` itself, so a call under any of them is
native's. Each question has an answer for torch versions that lack the private name.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import forward_ad

_C: Any = torch._C


def _always(value: Any) -> Any:
    return lambda: value


#: Whether a TorchFunctionMode (``torch.set_default_device`` is one) or the tensor's own class
#: wants to see the call.
overrides = torch.overrides.has_torch_function_unary
_dispatch_modes = getattr(_C, "_len_torch_dispatch_stack", _always(0))
_tracing_state = getattr(_C, "_get_tracing_state", _always(None))
_functorch_level = getattr(getattr(_C, "_functorch", None), "peek_interpreter_stack", _always(None))

PLAIN_TYPES = (torch.Tensor, torch.nn.Parameter)
DTYPES = (torch.float32, torch.complex64)
HOST = "cpu"


#: torch.compile or torch.export is reading the program; a constant to it.
is_compiling = torch.compiler.is_compiling


GRADIENTS = "gradients are not accelerated"


def first_reason(tensor: torch.Tensor) -> str | None:
    """A reason against accelerating a call with this plain input, found in a microsecond.

    Calls that train, and calls of other dtypes, go native so often that they do not wait for all
    the reasons.
    """
    if tensor.requires_grad and torch.is_grad_enabled():
        return GRADIENTS
    if tensor.dtype not in DTYPES:
        return _dtype_reason("input", tensor.dtype)
    if _dispatch_modes() or _functorch_level() is not None or _tracing_state() is not None:
        return ambient_reasons()[0]
    return None


def _dtype_reason(name: str, dtype: torch.dtype) -> str:
    return f"dtype {dtype} of {name} is not accelerated"


def ambient_reasons() -> list[str]:
    """Reasons in torch's state, whatever the arguments are."""
    reasons = []
    if _dispatch_modes():
        reasons.append("a TorchDispatchMode is active")
    if _functorch_level() is not None:
        reasons.append("a torch.func transform is active")
    if _tracing_state() is not None:
        reasons.append("torch.jit.trace is recording")
    if getattr(forward_ad, "_current_level", -1) >= 0:
        reasons.append("forward-mode derivatives are not accelerated")
    return reasons


def tensor_reasons(name: str, tensor: Any, devices: tuple[str, ...]) -> list[str]:
    """Reasons that lie in one argument.

    Args:
        name: of the argument.
        tensor: what was passed for it.
        devices: device types that the backend computes on.
    """
    if type(tensor) not in PLAIN_TYPES:
        return [f"{name} is a {type(tensor).__name__}, not a plain tensor"]
    reasons = []
    if tensor.dtype not in DTYPES:
        reasons.append(_dtype_reason(name, tensor.dtype))
    if tensor.layout is not torch.strided:
        reasons.append(f"layout {tensor.layout} of {name} is not accelerated")
    if tensor.device.type not in devices:
        reasons.append(f"device {tensor.device.type} of {name} is not accelerated")
    if tensor.requires_grad and torch.is_grad_enabled():
        reasons.append(GRADIENTS)
    return reasons


def autocast_reasons(device_type: str) -> list[str]:
    """Autocast changes dtypes by rules of its own."""
    try:
        active = torch.is_autocast_enabled(device_type)
    except RuntimeError:
        return []  # a device type without autocast
    return ["autocast is active"] if active else []
