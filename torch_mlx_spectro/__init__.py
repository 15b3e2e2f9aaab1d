"""torch.stft and torch.istft, computed by MLX; and the same transforms for MLX's own arrays.

Names are loaded when they are first asked for (PEP 562): the torch functions with torch, those for
MLX arrays without it.
"""

from .version import __version__ as __version__

TYPE_CHECKING = False  # as type checkers know it: importing typing takes longer than all of this

__all__ = [
    "MFCC",
    "Availability",
    "CenterPadMode",
    "CenterTailPad",
    "GriffinLim",
    "ISTFTBackendPolicy",
    "MelSpectrogram",
    "NotAccelerated",
    "Patch",
    "Route",
    "STFTOutputLayout",
    "SpectralTransform",
    "Spectrogram",
    "Stats",
    "WindowLike",
    "as_mlx_spectro",
    "available_backends",
    "backend",
    "clear_caches",
    "explain",
    "get_cache_debug_stats",
    "get_transform_mlx",
    "is_patched",
    "istft",
    "load_ipython_extension",
    "make_window",
    "patch",
    "reset_cache_debug_stats",
    "reset_stats",
    "resolve_fft_params",
    "set_result_memory",
    "spec_mlx_device_key",
    "stats",
    "stft",
    "unpatch",
]

if TYPE_CHECKING:
    from .backends.cpu.memory import set_result_memory
    from .calls.kind import Route
    from .dispatch.choice import Availability, available_backends, backend, is_patched
    from .dispatch.snapshot import Stats
    from .errors import NotAccelerated
    from .functional import explain, istft, reset_stats, stats, stft
    from .magic import load_ipython_extension
    from .mlx_api.arguments import (
        CenterPadMode,
        CenterTailPad,
        ISTFTBackendPolicy,
        STFTOutputLayout,
    )
    from .mlx_api.caches import get_cache_debug_stats, reset_cache_debug_stats
    from .mlx_api.features import MFCC, GriffinLim, MelSpectrogram, Spectrogram
    from .mlx_api.predecessor import as_mlx_spectro
    from .mlx_api.transform import (
        SpectralTransform,
        get_transform_mlx,
        resolve_fft_params,
        spec_mlx_device_key,
    )
    from .mlx_api.windows import WindowLike, make_window
    from .patching import Patch, patch, unpatch
    from .store.caches import clear_caches
else:
    _HOMES = {
        "backends.cpu.memory": ("set_result_memory",),
        "calls.kind": ("Route",),
        "errors": ("NotAccelerated",),
        "mlx_api.features": ("GriffinLim", "MFCC", "MelSpectrogram", "Spectrogram"),
        "functional": ("explain", "istft", "reset_stats", "stats", "stft"),
        "mlx_api.arguments": (
            "CenterPadMode",
            "CenterTailPad",
            "ISTFTBackendPolicy",
            "STFTOutputLayout",
        ),
        "mlx_api.predecessor": ("as_mlx_spectro",),
        "magic": ("load_ipython_extension",),
        "mlx_api.caches": ("get_cache_debug_stats", "reset_cache_debug_stats"),
        "patching": ("Patch", "patch", "unpatch"),
        "dispatch.choice": ("Availability", "available_backends", "backend", "is_patched"),
        "dispatch.snapshot": ("Stats",),
        "mlx_api.transform": (
            "SpectralTransform",
            "get_transform_mlx",
            "resolve_fft_params",
            "spec_mlx_device_key",
        ),
        "mlx_api.windows": ("WindowLike", "make_window"),
        "store.caches": ("clear_caches",),
    }
    _HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

    def __getattr__(name):
        home = _HOME_OF.get(name)
        if home is None:
            import sys

            # Told the name and the module, Python suggests a similar name below the traceback.
            message, here = f"module {__name__!r} has no attribute {name!r}", sys.modules[__name__]
            raise AttributeError(message, name=name, obj=here)
        from importlib import import_module

        value = globals()[name] = getattr(import_module(f".{home}", __name__), name)
        return value

    def __dir__():
        return sorted({*globals(), *__all__} - {"TYPE_CHECKING"})
