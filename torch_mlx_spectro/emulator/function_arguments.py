"""Functions as template arguments, which Metal takes, spelt as C++ for OpenCL takes them.

There a parameter ``float (*f)(float)`` matches no function, because pointers have address spaces
and functions have none. ``auto f`` matches: calls are resolved when the template is instantiated.
"""

from __future__ import annotations

import re
from dataclasses import replace

from .tokens import Token, find_closing

_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")


def deduce_function_parameters(tokens: list[Token]) -> list[Token]:
    """Return the tokens with ``auto`` for the types of template parameters that are functions."""
    types = _function_types(tokens)
    changed = list(tokens)
    for index in range(len(tokens) - 1):
        if tokens[index].text == "template" and tokens[index + 1].text == "<":
            for start, end in _parameters(tokens, index + 1):
                _deduce(changed, start, end, types)
    return changed


def _function_types(tokens: list[Token]) -> set[str]:
    """Names declared by ``typedef R (*Name)(...)`` and ``using Name = R (*)(...)``."""
    names = set()
    for index, token in enumerate(tokens):
        if token.text not in ("typedef", "using"):
            continue
        end = index
        while end < len(tokens) and tokens[end].text != ";":
            end += 1
        declarator = _declarator(tokens, index, end)
        if declarator is not None:
            place = declarator + 2 if token.text == "typedef" else index + 1
            names.add(tokens[place].text)
    return names


def _declarator(tokens: list[Token], start: int, end: int) -> int | None:
    """Index of the bracket of ``(*name)(`` or ``(&name)(``, or None."""
    for index in range(start, end - 2):
        if tokens[index].text == "(" and tokens[index + 1].text in ("*", "&"):
            after = find_closing(tokens, index) + 1
            if after < end and tokens[after].text == "(":
                return index
    return None


def _parameters(tokens: list[Token], opening: int) -> list[tuple[int, int]]:
    """Where each parameter of a template begins and ends; its ``>`` closes no bracket within."""
    found: list[tuple[int, int]] = []
    start = index = opening + 1
    while index < len(tokens):
        text = tokens[index].text
        if text in ("(", "[", "{", "<"):
            index = find_closing(tokens, index)
        elif text in (",", ">"):
            found.append((start, index))
            start = index + 1
            if text == ">":
                break
        index += 1
    return found


def _deduce(tokens: list[Token], start: int, end: int, types: set[str]) -> None:
    declarator = _declarator(tokens, start, end)
    if declarator is not None and _IDENTIFIER.fullmatch(tokens[declarator + 2].text):
        name = tokens[declarator + 2]
        closing = find_closing(tokens, find_closing(tokens, declarator) + 1)
        breaks = "\n" * sum(token.lead.count("\n") for token in tokens[start + 1 : closing + 1])
        tokens[start] = replace(tokens[start], text="auto")
        for index in range(start + 1, closing + 1):
            tokens[index] = replace(tokens[index], text="", lead="")
        tokens[start + 1] = replace(name, lead=" ")
        tokens[closing] = replace(tokens[closing], lead=breaks)
    elif tokens[start].text in types and _IDENTIFIER.fullmatch(tokens[start + 1].text):
        tokens[start] = replace(tokens[start], text="auto")
