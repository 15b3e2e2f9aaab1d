"""What some tests need and not every machine has; a skipped test says what is missing."""

from __future__ import annotations

import pytest

import torch_mlx_spectro as tms
from torch_mlx_spectro import emulator

needs_emulator = pytest.mark.skipif(
    emulator.available() is not None, reason=f"no Metal emulator: {emulator.available()}"
)
needs_mlx = pytest.mark.skipif(
    not tms.available_backends()["mlx"].available,
    reason=f"no MLX: {tms.available_backends()['mlx'].reason}",
)

#: torch's once-only warnings of calls that are tested for something else.
ONCE_ONLY = [
    pytest.mark.filterwarnings("ignore:.*A window was not provided"),
    pytest.mark.filterwarnings("ignore:.*stft with return_complex=False is deprecated"),
    pytest.mark.filterwarnings("ignore:.*The length of signal is shorter than the length"),
]
