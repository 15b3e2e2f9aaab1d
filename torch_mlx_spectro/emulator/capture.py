"""Get from MLX itself the text that it would give to Metal's compiler.

``mx.export_function`` with a callback traces a function on any machine, without running it, and
reports the arguments of every primitive. The first two of a custom kernel are its name and text.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import EmulatorError

CACHE_ENTRIES = 256


@dataclass(frozen=True)
class Captured:
    """``shape_infos``: for each input, whether its shape, its strides and its rank are passed."""

    name: str
    text: str
    shape_infos: tuple[tuple[bool, bool, bool], ...]


def array_class(array: Any) -> tuple[str, bool, bool]:
    """Return what MLX's generator asks of an input: dtype, rank 0 or not, few elements or not."""
    return str(array.dtype), array.ndim == 0, array.size < 8


class Capture:
    """Texts of one kernel, by what they depend on.

    Args:
        mx: the module ``mlx.core``.
        kernel: what the real ``mx.fast.metal_kernel`` returned.
    """

    def __init__(self, mx: Any, kernel: Callable[..., Any]) -> None:
        self._mx = mx
        self.kernel = kernel
        self._captured: OrderedDict[Any, Captured] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, inputs: Sequence[Any], call: dict[str, Any]) -> Captured:
        """The text for a call.

        Args:
            inputs: arrays.
            call: the other arguments of the kernel.

        Raises:
            ValueError: as MLX does for wrong arguments.
        """
        template = call.get("template") or []
        key = (
            tuple((name, type(value).__name__, str(value)) for name, value in template),
            tuple(array_class(array) for array in inputs),
            tuple(str(dtype) for dtype in call["output_dtypes"]),
            # These are not in the text, but MLX refuses wrong numbers of them.
            len(call["output_shapes"]),
        )
        with self._lock:
            if call.get("verbose") or key not in self._captured:
                self._captured[key] = self._trace(inputs, call)
            self._captured.move_to_end(key)
            while len(self._captured) > CACHE_ENTRIES:
                self._captured.popitem(last=False)
            return self._captured[key]

    def _trace(self, inputs: Sequence[Any], call: dict[str, Any]) -> Captured:
        seen: list[dict[str, Any]] = []

        def trace(*arrays: Any) -> Any:
            return self.kernel(inputs=list(arrays), **call)

        self._mx.export_function(seen.append, trace, *inputs)
        for fact in seen:
            if fact.get("type") == "primitive" and fact.get("name") == "CustomKernel":
                arguments = fact["arguments"]
                infos = tuple(tuple(bool(flag) for flag in info) for info in arguments[8])
                return Captured(arguments[0], arguments[1], infos)  # type: ignore[arg-type]
        raise EmulatorError("MLX exported no custom kernel")
