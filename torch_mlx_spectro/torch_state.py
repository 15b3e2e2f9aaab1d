"""What torch is doing around a call: the only module that asks torch's private state.

Tracers and modes want to see ``torch.stft`` itself, so a call under any of them is native's.
Each question has an answer for torch versions that lack the private name.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
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
_functorch: Any = getattr(_C, "_functorch", None)
_functorch_level = getattr(_functorch, "peek_interpreter_stack", _always(None))
_functorch_stack = getattr(_functorch, "get_interpreter_stack", _always(None))
_FUNCTIONALIZE = getattr(getattr(_functorch, "TransformType", None), "Functionalize", None)
#: torch's older vmap holds a tensor's examples.
is_batched: Callable[[torch.Tensor], bool] = getattr(
    _functorch, "is_legacy_batchedtensor", lambda tensor: False
)
_is_wrapped = getattr(_functorch, "is_functorch_wrapped_tensor", lambda tensor: True)

#: Index of the current CUDA device; raw handle of a device's current stream; whether that of the
#: current device records a graph instead of computing. Only for tensors that are on one.
cuda_device: Callable[[], int] = getattr(_C, "_cuda_getDevice", torch.cuda.current_device)
cuda_stream: Callable[[int], int] = getattr(
    _C,
    "_cuda_getCurrentRawStream",
    lambda device: torch.cuda.current_stream(device).cuda_stream,
)
is_capturing: Callable[[], bool] = getattr(
    _C, "_cuda_isCurrentStreamCapturing", torch.cuda.is_current_stream_capturing
)


def mps_cores() -> int | None:
    """Cores of the GPU; None where torch does not tell."""
    try:
        return int(torch.backends.mps.get_core_count()) or None
    except (AttributeError, RuntimeError):
        return None


#: A tensor on the current CUDA device, uninitialised, of a shape, strides and dtype. What
#: torch.compile's programs call takes half as long as what is public.
cuda_empty_strided: Callable[..., torch.Tensor] = getattr(
    getattr(getattr(_C, "_dynamo", None), "guards", None),
    "_empty_strided_cuda",
    lambda shape, strides, dtype: torch.empty_strided(shape, strides, dtype=dtype, device="cuda"),
)

_saved_tensors_hooks = getattr(
    getattr(_C, "_autograd", None), "_top_saved_tensors_default_hooks", _always(None)
)
#: Where torch's own hooks are that keep what is saved, wherever they keep it.
_KEEPS_SAVED = "torch.autograd.graph"


def recomputes() -> bool:
    """Whether what autograd saves now may be computed again, as torch.utils.checkpoint does.

    Then the second computation has to save what the first one did.
    """
    hooks = _saved_tensors_hooks(False)
    return hooks is not None and getattr(hooks[0], "__module__", "") != _KEEPS_SAVED


#: A number of the backward pass that this thread works for.
backward_pass: Callable[[], int] = getattr(_C, "_current_graph_task_id", _always(-1))


def after_backward(function: Callable[[], None]) -> None:
    """Call a function when the backward pass that this thread works for has ended."""
    engine: Any = torch.autograd.Variable._execution_engine
    engine.queue_callback(function)


@lru_cache(maxsize=1)
def has_one_cuda_device() -> bool:
    """Whether no device but one can be the current one."""
    return torch.cuda.device_count() == 1


PLAIN_TYPES = (torch.Tensor, torch.nn.Parameter)
DTYPES = (torch.float32, torch.complex64)
HOST = "cpu"


#: The program asks for the same results from run to run.
is_deterministic: Callable[[], bool] = getattr(
    _C, "_get_deterministic_algorithms", torch.are_deterministic_algorithms_enabled
)
#: torch.compile or torch.export is reading the program; a constant to it.
is_compiling = torch.compiler.is_compiling
#: torch.export is reading it.
is_exporting: Callable[[], bool] = getattr(torch.compiler, "is_exporting", _always(False))


def first_reason(tensor: torch.Tensor) -> str | None:
    """A reason against accelerating a call with this plain input, found in a microsecond.

    Calls of other dtypes go native so often that they do not wait for all the reasons.
    """
    if tensor.dtype not in DTYPES:
        return _dtype_reason("input", tensor.dtype)
    if _dispatch_modes() or _tracing_state() is not None or _functorch_level() is not None:
        return next(iter(ambient_reasons()), None)
    return None


def is_intercepted() -> bool:
    """Whether something in torch's state wants to see what a call does, or its derivatives."""
    return (
        _dispatch_modes() > 0
        or _tracing_state() is not None
        or _functorch_level() is not None
        or is_forward_mode()
    )


def show_compiler(pairs: tuple[tuple[Any, Any], ...]) -> None:
    """Have torch.compile take both of each pair for torch's own function, whichever is in place.

    It knows those by identity, by the names that they had when it first looked. A program may
    still hold the one that patching has replaced.
    """
    rules = sys.modules.get("torch._dynamo.trace_rules")
    look_up = getattr(rules, "get_torch_obj_rule_map", None)
    if look_up is None:
        return
    known = look_up()
    for pair in pairs:
        rule = next((known[function] for function in pair if function in known), None)
        if rule is not None:
            known.update(dict.fromkeys(pair, rule))


def is_forward_mode() -> bool:
    """A level of forward-mode derivatives is open; torch.func.jvp opens one, too."""
    return getattr(forward_ad, "_current_level", -1) >= 0


def is_transformed() -> bool:
    """A transform of torch.func or forward mode is running: tensors may be more than they seem."""
    return _functorch_level() is not None or is_forward_mode()


@lru_cache(maxsize=64)
def chip_of(device: torch.device) -> str:
    """The name of a GPU; "" for the host, and where torch does not tell."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    tell: Callable[[], str] = getattr(torch.backends.mps, "get_name", _always(""))
    return tell() if device.type == "mps" else ""


def mps_is_emulated() -> bool:
    """Whether Metal kernels that are compiled for torch's MPS run on the host."""
    compile_shader = getattr(torch.mps, "compile_shader", None)
    return bool(getattr(compile_shader, "emulated", False))


def is_differentiated(*tensors: torch.Tensor | None) -> bool:
    """Whether a call with these has to be known to autograd."""
    recorded = torch.is_grad_enabled() and any(
        tensor is not None and tensor.requires_grad for tensor in tensors
    )
    return recorded or is_transformed()


def is_constant(tensor: torch.Tensor) -> bool:
    """Whether no derivative with respect to this tensor can be asked for."""
    if tensor.requires_grad and torch.is_grad_enabled():
        return False
    if _functorch_level() is not None and _is_wrapped(tensor):
        return False
    unpack: Any = forward_ad.unpack_dual
    return not is_forward_mode() or unpack(tensor).tangent is None


def unbatched(function: Callable[..., Any], *tensors: Any) -> torch.Tensor | None:
    """A function applied for each example of ``torch.autograd.grad(is_grads_batched=True)``.

    That, and ``torch.autograd.functional.jacobian(vectorize=True)``, use torch's older vmap, which
    knows no rules of custom functions.

    Args:
        function: takes the tensors' stacked values, then the dimensions of their examples (0, or
            None for one that all share), and returns the stacked results.

    Returns:
        The result as that vmap wants it; None where no tensor is batched by it.
    """
    batched = [isinstance(tensor, torch.Tensor) and is_batched(tensor) for tensor in tensors]
    if not any(batched):
        return None
    level = _C._vmapmode_increment_nesting() - 1
    _C._vmapmode_decrement_nesting()
    values = [
        torch._remove_batch_dim(tensor, level, 0, 0) if has_examples else tensor
        for tensor, has_examples in zip(tensors, batched, strict=True)
    ]
    dims = [0 if has_examples else None for has_examples in batched]
    result: torch.Tensor = torch._add_batch_dim(function(*values, *dims), 0, level)
    return result


def _dtype_reason(name: str, dtype: torch.dtype) -> str:
    return f"dtype {dtype} of {name} is not accelerated"


def ambient_reasons() -> list[str]:
    """Reasons in torch's state, whatever the arguments are."""
    reasons = []
    if _dispatch_modes():
        reasons.append("a TorchDispatchMode is active")
    if _tracing_state() is not None:
        reasons.append("torch.jit.trace is recording")
    if any(level.key() == _FUNCTIONALIZE for level in _functorch_stack() or ()):
        # torch has no rule for custom functions under it.
        reasons.append("torch.func.functionalize is active")
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
    return reasons
