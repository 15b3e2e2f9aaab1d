"""What is compared: calls as values, what they draw from, and the sets of them.

Each module imports only what is above it here: ``faults``, ``signals``, ``uses``; ``case``;
``choices``; ``making``; ``grid``; ``draws`` and ``models``.
"""

from stft_parity.cases.case import PARAMETERS, Case, Tensors, Unmakeable, widen

__all__ = ["PARAMETERS", "Case", "Tensors", "Unmakeable", "widen"]
