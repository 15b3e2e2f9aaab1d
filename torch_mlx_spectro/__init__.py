"""torch.stft and torch.istft, computed by MLX; and the same transforms for MLX's own arrays.

Names are loaded when they are first asked for (PEP 562): the torch functions with torch, those for
MLX arrays without it.
"""

TYPE_CHECKING = False  # as type checkers know it: importing typing takes longer than all of this
__version__ = "0.1.0"

__all__ = [
    "MFCC",
    "Availability",
    "GriffinLim",
    "MelSpectrogram",
    "NotAccelerated",
    "Patch",
    "Route",
    "SpectralTransform",
    "Spectrogram",
    "Stats",
    "available_backends",
    "backend",
    "explain",
    "get_cache_debug_stats",
    "get_transform_mlx",
    "is_patched",
    "istft",
    "make_window",
    "patch",
    "reset_cache_debug_stats",
    "reset_stats",
    "resolve_fft_params",
    "spec_mlx_device_key",
    "stats",
    "stft",
    "unpatch",
]

if TYPE_CHECKING:
    from .errors import NotAccelerated
    from .features import MFCC, GriffinLim, MelSpectrogram, Spectrogram
    from .functional import explain, istft, reset_stats, stats, stft
    from .mlx_caches import get_cache_debug_stats, reset_cache_debug_stats
    from .patching import Patch, is_patched, patch, unpatch
    from .routing import Availability, Route, available_backends, backend
    from .statistics import Stats
    from .transform import (
        SpectralTransform,
        get_transform_mlx,
        resolve_fft_params,
        spec_mlx_device_key,
    )
    from .windows import make_window
else:
    _HOMES = {
        "errors": ("NotAccelerated",),
        "features": ("GriffinLim", "MFCC", "MelSpectrogram", "Spectrogram"),
        "functional": ("explain", "istft", "reset_stats", "stats", "stft"),
        "mlx_caches": ("get_cache_debug_stats", "reset_cache_debug_stats"),
        "patching": ("Patch", "is_patched", "patch", "unpatch"),
        "routing": ("Availability", "Route", "available_backends", "backend"),
        "statistics": ("Stats",),
        "transform": (
            "SpectralTransform",
            "get_transform_mlx",
            "resolve_fft_params",
            "spec_mlx_device_key",
        ),
        "windows": ("make_window",),
    }
    _HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

    def __getattr__(name):
        home = _HOME_OF.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = globals()[name] = getattr(import_module(f".{home}", __name__), name)
        return value

    def __dir__():
        return sorted({*globals(), *__all__} - {"TYPE_CHECKING"})
