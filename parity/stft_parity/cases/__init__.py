"""What is compared: calls as values, what they draw from, and the sets of them.

Each module imports only what is above it here: ``faults``, ``signals``, ``uses``; ``case``;
``choices``; ``making``; ``grid``; ``draws`` and ``models``.
"""

from stft_parity.cases.case import (
    PARAMETERS,
    Case,
    Tensors,
    Unmakeable,
    istft_case,
    stft_case,
    widen,
)

__all__ = ["PARAMETERS", "Case", "Tensors", "Unmakeable", "istft_case", "stft_case", "widen"]
