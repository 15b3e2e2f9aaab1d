"""torch.stft and torch.istft, computed by MLX."""

from .errors import NotAccelerated
from .functional import explain, istft, reset_stats, stats, stft
from .patching import Patch, is_patched, patch, unpatch
from .routing import Availability, Route, available_backends, backend
from .statistics import Stats

__version__ = "0.1.0"

__all__ = [
    "Availability",
    "NotAccelerated",
    "Patch",
    "Route",
    "Stats",
    "available_backends",
    "backend",
    "explain",
    "is_patched",
    "istft",
    "patch",
    "reset_stats",
    "stats",
    "stft",
    "unpatch",
]
