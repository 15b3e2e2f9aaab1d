"""What MLX would hand to Metal's compiler, from MLX itself: exporting a function generates it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

#: Where MLX's CustomKernel keeps them among its exported arguments.
_NAME, _TEXT, _SHAPE_INFOS = 0, 1, 8


@dataclass(frozen=True)
class Captured:
    """Generated source.

    Attributes:
        name: of the kernel function.
        text: the source, without MLX's own prelude.
        shape_infos: of each input: whether its shape, strides and ndim are passed after it.
    """

    name: str
    text: str
    shape_infos: tuple[tuple[bool, bool, bool], ...]


def capture(mx: Any, kernel: Any, inputs: Sequence[Any], call: dict[str, Any]) -> Captured:
    """The source of a call of ``kernel``, an object made by MLX's own ``mx.fast.metal_kernel``.

    Args:
        inputs: MLX arrays.
        call: the call's other arguments.

    Raises:
        RuntimeError: this MLX does not export custom kernels.
    """
    found: list[Sequence[Any]] = []

    def traced(*arrays: Any) -> Any:
        return kernel(inputs=list(arrays), **{**call, "stream": mx.gpu, "verbose": False})

    def seen(entry: dict[str, Any]) -> None:
        if entry.get("type") == "primitive" and entry.get("name") == "CustomKernel":
            found.append(entry["arguments"])

    mx.export_function(seen, traced, *inputs)
    if len(found) != 1:
        raise RuntimeError(f"MLX exported {len(found)} custom kernels where one was called")
    arguments = found[0]
    infos = tuple((bool(a), bool(b), bool(c)) for a, b, c in arguments[_SHAPE_INFOS])
    return Captured(str(arguments[_NAME]), str(arguments[_TEXT]), infos)
