"""Write the text of a kernel for MLX, which writes the function around it; put headers in line.

Compilers are given one text, so ``#include "name.h"`` is replaced by the header, each once.
"""

from __future__ import annotations

import re

from ...store.caches import cached
from ...store.sources import source
from ..arguments import CHECKING_KERNELS, VANISHING
from ..launches import Template

_INCLUDE = re.compile(r'^#include "(?P<name>[\w.]+)"\n', re.MULTILINE)
_PRAGMA = re.compile(r"^#pragma once\n", re.MULTILINE)


@cached(16)
def header(*names: str) -> str:
    """Write headers and everything that they include, each once, in an order that compiles."""
    done: list[str] = []
    parts: list[str] = []

    def add(name: str) -> None:
        if name in done:
            return
        done.append(name)
        text = source(name)
        for included in _INCLUDE.finditer(text):
            add(included["name"])
        parts.append(_PRAGMA.sub("", _INCLUDE.sub("", text)))

    for name in names:
        add(name)
    return "\n".join(parts)


def write_constants(template: Template) -> str:
    """Write the constants that a kernel is compiled for; they come before its body."""
    return "".join(
        f"  constexpr {'bool' if isinstance(value, bool) else 'int'} {name} = {int(value)};\n"
        for name, value in template
    )


def body(kernel: str) -> str:
    """Write a kernel's body for MLX, without a verdict: the host has checked the envelope."""
    unasked = f"device atomic_uint* {VANISHING} = 0;\n" if kernel in CHECKING_KERNELS else ""
    return unasked + source(f"{kernel}.metal")
