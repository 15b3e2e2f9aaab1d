"""mlx-spectro's module name for this package, so that programs written for mlx-spectro run here.

``import mlx_spectro`` then gives the names that both packages have. docs/migrating.md says of every
public name of mlx-spectro 0.9.10 whether it is here, under which name, or why not.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from .arguments import CenterPadMode, CenterTailPad, ISTFTBackendPolicy, STFTOutputLayout
from .caches import get_cache_debug_stats, reset_cache_debug_stats
from .transform import (
    SpectralTransform,
    get_transform_mlx,
    resolve_fft_params,
    spec_mlx_device_key,
)
from .windows import WindowLike, make_window

NAME = "mlx_spectro"
#: The release of mlx-spectro whose names and meanings these are; the rest says that it is not it.
VERSION = "0.9.10+torch.mlx.spectro"
NAMES: dict[str, Any] = {
    "CenterPadMode": CenterPadMode,
    "CenterTailPad": CenterTailPad,
    "ISTFTBackendPolicy": ISTFTBackendPolicy,
    "STFTOutputLayout": STFTOutputLayout,
    "SpectralTransform": SpectralTransform,
    "WindowLike": WindowLike,
    "get_cache_debug_stats": get_cache_debug_stats,
    "get_transform_mlx": get_transform_mlx,
    "make_window": make_window,
    "reset_cache_debug_stats": reset_cache_debug_stats,
    "resolve_fft_params": resolve_fft_params,
    "spec_mlx_device_key": spec_mlx_device_key,
}


class _Module(ModuleType):
    """A module named ``mlx_spectro``; says of every other name that it is not here."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"torch_mlx_spectro stands in for {NAME}, and has no {name!r}: it has "
            f"{', '.join(sorted(NAMES))}; docs/migrating.md says what takes the place of others"
        )


def as_mlx_spectro() -> ModuleType:
    """Make ``import mlx_spectro`` give this package's names, in this process, from now on.

    Call it before anything imports ``mlx_spectro``; again it changes nothing. The module has those
    names of mlx-spectro 0.9.10 that are here with the same meaning: ``SpectralTransform``, what
    makes and describes it, and its types.

    Returns:
        The module, which is ``sys.modules["mlx_spectro"]``.

    Raises:
        RuntimeError: the real mlx-spectro is imported already; what has its names would keep them.
    """
    there = sys.modules.get(NAME)
    if isinstance(there, _Module):
        return there
    if there is not None:
        raise RuntimeError(
            f"{NAME} is imported already, from {getattr(there, '__file__', None)}: "
            "call as_mlx_spectro() before anything imports it"
        )
    module = _Module(NAME, f"torch_mlx_spectro under the name {NAME}")
    # Python names the file where a name cannot be imported from this module.
    module.__spec__ = ModuleSpec(NAME, None, origin=__file__)
    vars(module).update(NAMES, __file__=__file__, __version__=VERSION, __all__=sorted(NAMES))
    sys.modules[NAME] = module
    return module
