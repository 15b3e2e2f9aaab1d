"""What torch is doing around a call: the only module that asks torch's private state.

Tracers and modes want to see ``torch.stft`` itself, so a call under any of them is native's.
Each question has an answer for torch versions that lack the private name (:mod:`.private_names`).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import ModuleType
from typing import Any, TypeVar

import torch
from torch.autograd import forward_ad

from ..store.caches import cached
from .private_names import Found, always

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])

#: What this torch has of the private names; each that is asked in every call is a name here, too.
_found = Found()
#: Private names that this torch lacks, and what follows.
ABSENT: Mapping[str, str] = _found.absent

#: Whether a TorchFunctionMode (``torch.set_default_device`` is one) or the tensor's own class
#: wants to see the call.
overrides = torch.overrides.has_torch_function_unary
#: The stack of function modes of this thread; None in versions that do not let it be changed.
push_mode: Any = _found.push_mode
pop_mode: Any = _found.pop_mode
count_modes: Any = _found.count_modes
#: Within, neither modes nor subclasses are asked.
unasked: Any = _found.unasked
#: Where torch does not show who wants to see a call, each is checked in full, and refused.
_dispatch_modes: Callable[[], int] = always(1) if _found.unseen else _found.dispatch_modes
_tracing_state: Callable[[], Any] = _found.tracing_state
_functorch_level: Callable[[], Any] = _found.functorch_level
#: torch's older vmap holds a tensor's examples.
is_batched: Callable[[torch.Tensor], bool] = _found.is_batched
#: Within, torch's functions compute with what a transform of torch.func wraps, and wrap nothing.
untransformed: Any = _found.untransformed
#: Zeros that have no memory, as autograd makes them for tangents and programs by private names.
is_zerotensor: Callable[[torch.Tensor], bool] = _found.is_zerotensor
#: The same memory, every value read with the other sign.
negative_view: Callable[[torch.Tensor], torch.Tensor] | None = _found.negative_view

#: Index of the current CUDA device; raw handle of a device's current stream; whether that of the
#: current device records a graph instead of computing. Only for tensors that are on one.
cuda_device: Callable[[], int] = _found.cuda_device
cuda_stream: Callable[[int], int] = _found.cuda_stream
is_capturing: Callable[[], bool] = _found.is_capturing

#: Makes a function known to the script compiler as an operator; as what was scripted.
register_builtin: Any = _found.register_builtin
keep_scripted: Any = _found.keep_scripted


def mps_cores() -> int | None:
    """Return the number of the GPU's cores; None where torch does not tell."""
    try:
        return int(torch.backends.mps.get_core_count()) or None
    except (AttributeError, RuntimeError):
        return None


#: Returns an uninitialised tensor on the current CUDA device. This function of torch.compile's
#: programs takes half as long as the public one.
cuda_empty_strided: Callable[..., torch.Tensor] = _found.cuda_empty_strided

#: What a program has for the tensors that autograd saves now; None if nothing.
saved_tensors_hooks: Callable[[bool], Any] = _found.saved_tensors_hooks
#: Modules of torch's own hooks that keep saved tensors unchanged, wherever they keep them.
_KEEPS_SAVED = "torch.autograd.graph"


def recomputes() -> bool:
    """Whether autograd may compute the current call again, as torch.utils.checkpoint does.

    The second computation then has to save the same tensors as the first one.
    """
    hooks = saved_tensors_hooks(False)
    return hooks is not None and getattr(hooks[0], "__module__", "") != _KEEPS_SAVED


#: Makes what records calls of an operator for autograd, of the operator and its formulas.
make_autograd: Callable[[Any, Any], Callable[..., Any]] | None = _found.make_autograd

#: A number of the backward pass that this thread works for; -1 where torch does not tell its end.
backward_pass: Callable[[], int] = always(-1) if _found.engine is None else _found.backward_pass


def after_backward(function: Callable[[], object]) -> None:
    """Call a function when the backward pass that this thread works for has ended."""
    _found.engine.queue_callback(function)


@lru_cache(maxsize=1)
def has_one_cuda_device() -> bool:
    """Whether there is only one device that can be the current one."""
    return torch.cuda.device_count() == 1


#: References to a storage, by its address, those of other threads and of C++ included.
count_references: Callable[[int], int] = _found.count_references

PLAIN_TYPES = (torch.Tensor, torch.nn.Parameter)
DTYPES = (torch.float32, torch.complex64)
HOST = "cpu"


#: The program asks for the same results from run to run.
is_deterministic: Callable[[], bool] = _found.is_deterministic
#: torch.compile or torch.export is reading the program; a constant to it.
is_compiling = torch.compiler.is_compiling
_tracing_context: Callable[[], Any] = _found.tracing_context


def is_traced() -> bool:
    """Whether torch.compile calls this with stand-ins for tensors.

    Up to torch 2.10 (and not in 2.13) only the program's own code is told so by
    :data:`is_compiling`.
    """
    return _tracing_context() is not None


#: torch.export is reading it.
is_exporting: Callable[[], bool] = _found.is_exporting


def as_plain(value: Any) -> Any:
    """Return a tensor of a subclass as a plain tensor of the same memory, which autograd follows.

    Used only where no mode or subclass is asked, as within ``super().__torch_function__``: there
    torch's operators take it for a plain tensor, too. A tensor whose memory is elsewhere
    (``__torch_dispatch__``) stays what it is.
    """
    if type(value) in PLAIN_TYPES or not isinstance(value, torch.Tensor) or overrides(value):
        return value
    if type(value).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        return value
    return value.as_subclass(torch.Tensor)


def is_captured(tensor: torch.Tensor) -> bool:
    """Whether work on this tensor is now recorded into a CUDA graph and not computed."""
    return tensor.is_cuda and is_capturing()


def is_recorded() -> bool:
    """Whether torch.jit.trace records what a program does."""
    return _tracing_state() is not None


def is_intercepted() -> bool:
    """Whether something in torch's state wants to see what a call does, or its derivatives."""
    return (
        _dispatch_modes() != 0
        or _tracing_state() is not None
        or _functorch_level() is not None
        or forward_ad._current_level >= 0  # as of is_forward_mode
    )


def is_watched(tensor: torch.Tensor) -> bool:
    """Whether something wants to see which operations of torch's compute with this tensor.

    A tracer or a compiler records them, a mode or the tensor's own class is asked about each, and
    functionalize changes them. A fake tensor has no memory to compute with.
    """
    return (
        is_compiling()  # first, since a compiler cannot read the others
        or _dispatch_modes() != 0
        or _tracing_state() is not None
        or type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__
        or (_functorch_level() is not None and is_functionalized())
    )


def is_functionalized() -> bool:
    """Whether torch.func.functionalize is active; torch has no rule there for custom functions."""
    return _found.functionalize in [level.key() for level in _found.functorch_stack() or ()]


def show_compiler(pairs: tuple[tuple[Any, Any], ...]) -> None:
    """Have torch.compile take both functions of each pair for torch's own.

    It recognises functions by identity, as they were when it first looked. A program may still hold
    the function that patching has replaced.
    """
    rules = sys.modules.get("torch._dynamo.trace_rules")
    look_up = getattr(rules, "get_torch_obj_rule_map", None)
    if look_up is None:
        return
    found = look_up()
    for pair in pairs:
        rule = next((found[function] for function in pair if function in found), None)
        if rule is not None:
            found.update(dict.fromkeys(pair, rule))


def mark_constant(function: AnyFunction) -> AnyFunction:
    """Mark a function that torch.compile is to call while it compiles, and not to compile.

    ``torch.compiler.assume_constant_result`` sets the same mark. But first it imports all of the
    compiler, for which a program that compiles nothing would wait longer than for torch.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


#: Our part of the tag in the keys under which torch.compile keeps programs on disk.
_OUR_TAG = re.compile(r"(?: \+ )?torch_mlx_spectro \S+ for [a-z,]+$")

#: Why compiled programs use native where torch's cache on disk cannot tell them from native's.
UNTAGGED = "this torch has no torch.compiler.config.cache_key_tag to tell compiled programs apart"


def tag_compiled(tell: Callable[[], str] | None) -> None:
    """Add what ``tell`` returns to the keys of torch.compile's cache on disk; None ends it.

    That cache names patched functions as it names native's. The tag is one of the program's own
    settings, so the module of settings answers with both parts, in every thread: what the program
    has set, or sets meanwhile, is neither overwritten nor hidden.

    Args:
        tell: called when a program is compiled, in the thread that compiles it; ``""`` adds
            nothing.
    """
    config: Any = getattr(torch.compiler, "config", None)
    # torch's modules of settings look names up by a method; setting one asks for a declaration.
    if not (hasattr(config, "cache_key_tag") and hasattr(type(config), "__getattr__")):
        return
    kind = type(config)
    if issubclass(kind, _TaggedConfig):
        kind = kind.__bases__[1]
    if tell is not None:
        kind = type(kind.__name__, (_TaggedConfig, kind), {"tell": staticmethod(tell)})
    ModuleType.__setattr__(config, "__class__", kind)


def tags_compiled() -> bool:
    """Whether :func:`tag_compiled` is in force."""
    return isinstance(getattr(torch.compiler, "config", None), _TaggedConfig)


class _TaggedConfig:
    """Comes before the class of torch.compile's settings while programs are tagged."""

    tell: Callable[[], str]

    @property
    def cache_key_tag(self) -> str:
        own: str = super().__getattr__("cache_key_tag")  # type: ignore[misc]
        return " + ".join(filter(None, (own, self.tell())))

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "cache_key_tag" and isinstance(value, str):
            # A program that sets back what it has read would keep our part for ever.
            value = _OUR_TAG.sub("", value)
        super().__setattr__(name, value)


def is_forward_mode() -> bool:
    """Whether a level of forward-mode derivatives is open; torch.func.jvp opens one, too."""
    return getattr(forward_ad, "_current_level", 0) >= 0


def is_transformed() -> bool:
    """Whether a transform of torch.func or forward mode runs: tensors may be wrapped or dual."""
    return _functorch_level() is not None or is_forward_mode()


def is_vmapped(*tensors: torch.Tensor | None) -> bool:
    """Whether the innermost transform of torch.func is a vmap over examples of one of these."""
    level = _functorch_level()
    if level is None or level.key() != _found.vmap:
        return False
    return any(tensor is not None and _found.has_examples(tensor) for tensor in tensors)


@cached(64)
def name_chip(device: torch.device) -> str:
    """Return the name of a GPU; "" for the host, and where torch does not tell."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    tell: Callable[[], str] = getattr(torch.backends.mps, "get_name", always(""))
    return tell() if device.type == "mps" else ""


def mps_is_emulated() -> bool:
    """Whether Metal kernels that are compiled for torch's MPS run on the host."""
    compile_shader = getattr(torch.mps, "compile_shader", None)
    return bool(getattr(compile_shader, "emulated", False))


def is_grad_enabled() -> bool:
    """Whether autograd records; under inference mode it never does, whatever is enabled."""
    return torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


def requires_gradient(tensor: torch.Tensor) -> bool:
    """Whether native's gradient reaches this input.

    It views its input first, and views of inference tensors do not require gradients.
    """
    return tensor.requires_grad and not tensor.is_inference()


def is_differentiated(tensor: torch.Tensor, window: torch.Tensor | None = None) -> bool:
    """Whether autograd has to record a call with this input and this window."""
    is_trained = window is not None and window.requires_grad
    return (is_grad_enabled() and (is_trained or requires_gradient(tensor))) or is_transformed()


def is_wrapped(tensor: torch.Tensor) -> bool:
    """Whether a transform of torch.func stands between a tensor and its memory."""
    return _functorch_level() is not None and bool(_found.is_wrapped(tensor))


def is_constant(tensor: torch.Tensor) -> bool:
    """Whether no derivative with respect to this tensor can be asked for."""
    if (tensor.requires_grad and torch.is_grad_enabled()) or is_wrapped(tensor):
        return False
    unpack: Any = forward_ad.unpack_dual
    return not is_forward_mode() or unpack(tensor).tangent is None


def apply_by_example(function: Callable[..., Any], *tensors: Any) -> torch.Tensor | None:
    """Apply a function for each example of ``torch.autograd.grad(is_grads_batched=True)``.

    That, and ``torch.autograd.functional.jacobian(vectorize=True)``, use torch's older vmap, which
    does not ask custom functions for their rules.

    Args:
        function: takes the tensors' stacked values, then the dimensions of their examples (0, or
            None for one that all share), and returns the stacked results.

    Returns:
        The result as that vmap wants it; None where no tensor is batched by it.
    """
    batched = [isinstance(tensor, torch.Tensor) and is_batched(tensor) for tensor in tensors]
    if not any(batched):
        return None
    level = _found.enter_vmap() - 1
    _found.leave_vmap()
    values = [
        _found.without_examples(tensor, level, 0, 0) if has_examples else tensor
        for tensor, has_examples in zip(tensors, batched, strict=True)
    ]
    dims = [0 if has_examples else None for has_examples in batched]
    result: torch.Tensor = _found.with_examples(function(*values, *dims), 0, level)
    return result


def ambient_reasons() -> list[str]:
    """List the reasons against a call that lie in torch's state, whatever its arguments are."""
    if _found.unseen:
        return list(_found.unseen)
    reasons = {
        "a TorchDispatchMode is active": _dispatch_modes() > 0,
        "torch.jit.trace is recording": is_recorded(),
        "torch.func.functionalize is active": is_functionalized(),
    }
    return [reason for reason, is_so in reasons.items() if is_so]


def tensor_reasons(
    name: str,
    tensor: Any,
    devices: tuple[str, ...],
    dtypes: tuple[torch.dtype, ...] = DTYPES,
) -> list[str]:
    """Reasons that lie in one argument.

    Args:
        name: of the argument.
        tensor: what was passed for it.
        devices: device types that the backend computes on.
        dtypes: that it takes.
    """
    if type(tensor) not in PLAIN_TYPES:
        return [f"{name} is a {type(tensor).__name__}, not a plain tensor"]
    dtype, layout, device = tensor.dtype, tensor.layout, tensor.device.type
    reasons = {
        f"dtype {dtype} of {name} is not accelerated": dtype not in dtypes,
        f"layout {layout} of {name} is not accelerated": layout is not torch.strided,
        f"device {device} of {name} is not accelerated": device not in devices,
        f"{name} is a tensor of zeros without memory": is_zerotensor(tensor),
    }
    return [reason for reason, is_so in reasons.items() if is_so]
