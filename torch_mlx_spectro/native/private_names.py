"""torch's private names that this package uses: where each is, and what follows without it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple

import torch


def always(value: Any) -> Any:
    """Return a function that returns a value, whatever it is given."""
    return lambda *given: value


class Name(NamedTuple):
    """A private name of torch's.

    Attributes:
        path: below ``torch``.
        otherwise: stands for it where this torch lacks it.
        unseen: what this package then cannot tell, so that all calls are native's.
        follows: what the absence leads to otherwise, if more than time is lost.
    """

    path: str
    otherwise: Any = None
    unseen: str = ""
    follows: str = ""


_ASKED = "calls that modes or subclasses are asked about are native torch's"
_FUNCTIONALIZED = "whether torch.func.functionalize is active"
_STRIDES = "results of vmap have other strides than native torch's"
_OLDER_VMAP = "which gradients torch's older vmap batches"
_UNSCRIPTED = "torch.jit.script of code that calls torch.stft needs unpatch() first"
_UNVERIFIED = "gradients are not verified"
_jit: Any = torch.jit

#: By the name that this package has for it (:mod:`.private_state` says what it is).
NAMES: Mapping[str, Name] = MappingProxyType(
    {
        "push_mode": Name("overrides._push_mode", follows=_ASKED),
        "pop_mode": Name("overrides._pop_mode", follows=_ASKED),
        "count_modes": Name("_C._len_torch_function_stack", follows=_ASKED),
        "unasked": Name("_C.DisableTorchFunction", contextlib.nullcontext),
        "dispatch_modes": Name(
            "_C._len_torch_dispatch_stack", always(1), "whether a TorchDispatchMode is active"
        ),
        "tracing_state": Name("_C._get_tracing_state", lambda: _jit.is_tracing() or None),
        "functorch_level": Name(
            "_C._functorch.peek_interpreter_stack", always(1), "whether torch.func is transforming"
        ),
        "functorch_stack": Name(
            "_C._functorch.get_interpreter_stack", always(None), _FUNCTIONALIZED
        ),
        "functionalize": Name("_C._functorch.TransformType.Functionalize", unseen=_FUNCTIONALIZED),
        "vmap": Name("_C._functorch.TransformType.Vmap", follows=_STRIDES),
        "has_examples": Name("_C._functorch.is_batchedtensor", always(False), follows=_STRIDES),
        "is_batched": Name("_C._functorch.is_legacy_batchedtensor", always(False), _OLDER_VMAP),
        "enter_vmap": Name("_C._vmapmode_increment_nesting", unseen=_OLDER_VMAP),
        "leave_vmap": Name("_C._vmapmode_decrement_nesting", unseen=_OLDER_VMAP),
        "without_examples": Name("_remove_batch_dim", unseen=_OLDER_VMAP),
        "with_examples": Name("_add_batch_dim", unseen=_OLDER_VMAP),
        "is_wrapped": Name("_C._functorch.is_functorch_wrapped_tensor", always(True)),
        "untransformed": Name("_C._DisableFuncTorch", contextlib.nullcontext),
        "forward_level": Name(
            "autograd.forward_ad._current_level", unseen="whether forward mode is active"
        ),
        "is_zerotensor": Name(
            "Tensor._is_zerotensor", always(False), "which tensors have no memory"
        ),
        "negative_view": Name("_neg_view"),
        "cuda_device": Name("_C._cuda_getDevice", torch.cuda.current_device),
        "cuda_stream": Name(
            "_C._cuda_getCurrentRawStream",
            lambda device: torch.cuda.current_stream(device).cuda_stream,
        ),
        "is_capturing": Name(
            "_C._cuda_isCurrentStreamCapturing", torch.cuda.is_current_stream_capturing
        ),
        "cuda_empty_strided": Name(
            "_C._dynamo.guards._empty_strided_cuda",
            lambda shape, strides, dtype: torch.empty_strided(
                shape, strides, dtype=dtype, device="cuda"
            ),
        ),
        "register_builtin": Name("jit._builtins._register_builtin", follows=_UNSCRIPTED),
        "keep_scripted": Name("jit._state._set_jit_function_cache", follows=_UNSCRIPTED),
        "saved_tensors_hooks": Name(
            "_C._autograd._top_saved_tensors_default_hooks",
            always((None, None)),
            follows="differentiated calls of auto are not measured",
        ),
        "engine": Name("autograd.Variable._execution_engine", follows=_UNVERIFIED),
        "backward_pass": Name("_C._current_graph_task_id", always(-1), follows=_UNVERIFIED),
        "count_references": Name(
            "_C._storage_Use_Count",
            always(0),
            follows="memory of large results is not kept on CPUs",
        ),
        "is_deterministic": Name(
            "_C._get_deterministic_algorithms", torch.are_deterministic_algorithms_enabled
        ),
        "tracing_context": Name(
            "_guards.TracingContext.try_get",
            always(None),
            follows="on torch 2.10 patched programs that torch.compile reads are native torch's",
        ),
        "make_autograd": Name("_library.autograd.make_autograd_impl"),
        "is_exporting": Name("compiler.is_exporting", always(False)),  # public, in newer ones
    }
)


class Found(SimpleNamespace):
    """What this torch has of the private names, or what stands for it: an attribute for each.

    Attributes:
        absent: private names that this torch lacks, and what follows.
        unseen: reasons that hold for every call: it cannot be seen who wants to see a call.
    """

    def __init__(self) -> None:
        self.absent: dict[str, str] = {}
        self.unseen: list[str] = []
        for ours, name in NAMES.items():
            setattr(self, ours, self._find(*name))

    def _find(self, path: str, otherwise: Any, unseen: str, follows: str) -> Any:
        found: Any = torch
        for part in path.split("."):
            found = getattr(found, part, None)
        if found is not None:
            return found
        if unseen or follows:
            self.absent[f"torch.{path}"] = follows or "every call is native torch's"
        if unseen:
            self.unseen.append(f"this torch has no torch.{path}, which tells {unseen}")
        return otherwise
