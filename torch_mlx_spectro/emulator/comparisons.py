"""Give comparisons of vectors Metal's meaning: vectors of bool, of which true is 1.

In OpenCL they are vectors of integers, of which true is -1 (section 3.1 of Metal's specification;
the logical operators, too). Which operators compare vectors only clang knows: its syntax tree says
where they stand, and there the text is changed to ``mtl_bool(a < b)``. Templates are written once,
so one place may compare vectors in one instance and numbers in another, which the function leaves
alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from .errors import Rejected

_OPERATORS = frozenset({"<", ">", "<=", ">=", "==", "!=", "&&", "||"})
_VECTOR_RESULT = re.compile(r"= sext <\d+ x i1>")
_FUNCTION = "mtl_bool"


def has_vector_comparisons(ir: str) -> bool:
    """Whether LLVM's text compares vectors; the prelude's own functions may, too."""
    return _VECTOR_RESULT.search(ir) is not None


def mark(text: str, tree: str) -> str:
    """Return the text with each comparison of vectors marked.

    Args:
        tree: what clang dumped of it, as JSON; it may be of a text with errors.

    Raises:
        Rejected: a choice by a vector, which Metal has not.
    """
    data = text.encode()
    done = f"{_FUNCTION}(".encode()
    places: set[tuple[int, int]] = set()
    for node in _nodes(json.loads(tree)):
        kind = node.get("kind")
        if kind == "ConditionalOperator" and _is_vector(node["inner"][0]):
            begin, end = _range(node)
            shown = data[begin:end].decode(errors="replace")
            if "?" in shown:
                raise Rejected(f"?: takes no vector in Metal (3.1), use select(): {shown}")
        elif kind == "BinaryOperator" and node["opcode"] in _OPERATORS and _is_vector(node):
            (_, middle), (after, _) = (_range(side) for side in node["inner"])
            if data[middle:after].strip() == node["opcode"].encode():
                places.add(_range(node))
        elif kind == "UnaryOperator" and node["opcode"] == "!" and _is_vector(node):
            begin, end = _range(node)
            if data[begin : begin + 1] == b"!":
                places.add((begin, end))
    left = {(begin, end) for begin, end in places if not data[:begin].endswith(done)}
    return _insert(data, left).decode()


def _nodes(root: Any) -> Iterator[dict[str, Any]]:
    stack = [root]
    while stack:
        node = stack.pop()
        yield node
        stack += (inner for inner in node.get("inner", ()) if "kind" in inner)


def _is_vector(node: dict[str, Any]) -> bool:
    kind = node.get("type", {})
    return "ext_vector_type" in kind.get("desugaredQualType", kind.get("qualType", ""))


def _range(node: dict[str, Any]) -> tuple[int, int]:
    """Bytes of a node in the file that was read."""
    begin, end = node["range"]["begin"], node["range"]["end"]
    begin, end = begin.get("expansionLoc", begin), end.get("expansionLoc", end)
    if "offset" not in begin or "offset" not in end:
        return (0, 0)
    return begin["offset"], end["offset"] + end["tokLen"]


def _insert(data: bytes, places: set[tuple[int, int]]) -> bytes:
    """Put the function's name and brackets around all places, of which some lie in others."""
    # At one position the outermost opens first and closes last.
    opened = sorted(((begin, -end) for begin, end in places), reverse=True)
    closed = sorted(((end, -begin) for begin, end in places), reverse=True)
    marks = [(begin, 1, f"{_FUNCTION}(".encode()) for begin, _ in opened]
    marks += [(end, 0, b")") for end, _ in closed]
    for position, _, mark in sorted(marks, key=lambda one: (one[0], one[1]), reverse=True):
        data = data[:position] + mark + data[position:]
    return data
