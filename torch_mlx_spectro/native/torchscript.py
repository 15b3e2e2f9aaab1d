"""TorchScript: code that calls ``torch.stft`` must script while patched as it does without us.

The script compiler recognises torch's functions by identity, so ours are registered with it. stft
is registered as torch's own scripted function: as the operator ``aten::stft`` it would lose the
centring that its Python wrapper does. istft is registered as the operator that it is. Both
registries are private to torch. Where a version lacks them, scripting code that calls
``torch.stft`` needs ``unpatch()`` first.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch

from . import private_state as torch_state

Pairs = tuple[tuple[Callable[..., Any], Callable[..., Any]], ...]


@lru_cache(maxsize=1)
def install(pairs: Pairs) -> bool:
    """Register our functions with the script compiler, once; False where torch offers no way.

    Args:
        pairs: (torch's own, ours) for stft and istft.
    """
    (original_stft, our_stft), (_, our_istft) = pairs
    if torch_state.register_builtin is None or torch_state.keep_scripted is None:
        return False
    with warnings.catch_warnings():
        # torch.jit.script is deprecated; the program that never scripts shall not hear of it.
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(original_stft)
    torch_state.keep_scripted(our_stft, scripted)
    torch_state.register_builtin(our_istft, "aten::istft")
    return True
