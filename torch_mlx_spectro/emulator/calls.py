"""What only the compiled program shows: who calls whom, and which variables can change."""

from __future__ import annotations

import re

from .errors import Rejected

_SYMBOL = r'@(?:"(?P<{0}q>[^"]+)"|(?P<{0}>[\w.$]+))'
_DEFINE = re.compile(r"^define .*?" + _SYMBOL.format("name") + r"\(")
_CALL = re.compile(r"\b(?:call|invoke)\b.*?" + _SYMBOL.format("callee") + r"\(")
_INDIRECT = re.compile(r"\b(?:call|invoke)\b[^(@]*%[\w.]+\(")
_GLOBAL = re.compile(r"^" + _SYMBOL.format("name") + r" = (?P<rest>.*)$")


def check(ir: str, name: str) -> None:
    """Look at LLVM's text of kernel ``name``, before any optimisation.

    Raises:
        Rejected: recursion, a call through a pointer, or a variable that can change.
    """
    calls: dict[str, list[str]] = {}
    current: list[str] = []
    for line in ir.splitlines():
        if match := _DEFINE.match(line):
            current = calls.setdefault(match["nameq"] or match["name"], [])
        elif line.startswith("@"):
            _check_global(line, name)
        elif line.startswith("  "):
            if _INDIRECT.search(line):
                raise Rejected(f"{name}: a call through a pointer, which Metal has not")
            if match := _CALL.search(line):
                current.append(match["calleeq"] or match["callee"])
    _check_recursion(calls, name)


def _check_global(line: str, name: str) -> None:
    match = _GLOBAL.match(line)
    if match is None or re.search(r"\b(?:constant|external)\b", match["rest"].split("{")[0]):
        return
    symbol = match["nameq"] or match["name"]
    if not symbol.startswith("llvm.") and re.search(r"\bglobal\b", match["rest"]):
        raise Rejected(f"{name}: variable {readable(symbol)!r} can change, and outlives functions")


def _check_recursion(calls: dict[str, list[str]], name: str) -> None:
    done: set[str] = set()
    for root in calls:
        path: list[str] = []
        on_path: set[str] = set()
        stack: list[tuple[str, bool]] = [(root, False)]
        while stack:
            function, leaving = stack.pop()
            if leaving:
                path.pop()
                on_path.discard(function)
                done.add(function)
                continue
            if function in on_path:
                cycle = [*path[path.index(function) :], function]
                shown = " -> ".join(readable(symbol) for symbol in cycle)
                raise Rejected(f"{name}: recursion, which Metal has not: {shown}")
            if function in done or function not in calls:
                continue
            path.append(function)
            on_path.add(function)
            stack.append((function, True))
            stack += [(callee, False) for callee in calls[function]]


def readable(symbol: str) -> str:
    """The names in a mangled symbol, as in ``spectro::product``; the symbol if there are none."""
    if not symbol.startswith("_Z"):
        return symbol
    names: list[str] = []
    position = 2
    while position < len(symbol):
        match = re.compile(r"\d+").match(symbol, position)
        if match:
            position = match.end() + int(match[0])
            names.append(symbol[match.end() : position])
        elif symbol[position] in "NKL" and not names:
            position += 1
        else:
            break
    return "::".join(names) or symbol
