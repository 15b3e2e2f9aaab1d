"""Write the text of a kernel for MLX, which writes the function around it; put headers in line.

Compilers are given one text, so ``#include "name.h"`` is replaced by the header, each once.
Comments are left out: MLX hashes the whole text in every call.
"""

from __future__ import annotations

import re

from ...store.caches import cached
from ...store.sources import source
from ..arguments import CHECKING_KERNELS, HEADERS, INPUTS, VANISHING
from ..launches import Template

_INCLUDE = re.compile(r'^#include "(?P<name>[\w.]+)"\n', re.MULTILINE)
_PRAGMA = re.compile(r"^#pragma once\n", re.MULTILINE)
#: A comment, blanks at the end of a line, and lines of which nothing is left. The files have no
#: other comments than these, and no strings.
_COMMENT = re.compile(r"[ \t]*(?://.*)?$", re.MULTILINE)
_EMPTY = re.compile(r"^\n", re.MULTILINE)

#: MLX writes ``[[kernel]]`` before the function, and offers no place for another attribute. So the
#: word is redefined in front of it, and means itself again from the body on. MLX's own kernels have
#: their attributes in the same list. Without this one the compiler may take so many registers that
#: the GPU refuses the group.
_BOUNDS = "#define kernel kernel, max_total_threads_per_threadgroup({threads})\n"
_END_OF_BOUNDS = "#undef kernel\n"
#: The threads of a group, by the names that the kernel is compiled for, in whole SIMD groups.
_GROUP = "(FRAMES * THREADS + 31) / 32 * 32"


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
        parts.append(strip_comments(_PRAGMA.sub("", _INCLUDE.sub("", text))))

    for name in names:
        add(name)
    return "".join(parts)


def strip_comments(text: str) -> str:
    """Return the text of a header or a body without comments and empty lines."""
    return _EMPTY.sub("", _COMMENT.sub("", text))


def write_constants(template: Template) -> str:
    """Write the constants that a kernel is compiled for; they come before its body."""
    return "".join(
        f"  constexpr {'bool' if isinstance(value, bool) else 'int'} {name} = {int(value)};\n"
        for name, value in template
    )


def body(kernel: str) -> str:
    """Write a kernel's body for MLX, without a verdict: the host has checked the envelope."""
    bounded = _END_OF_BOUNDS if has_groups(kernel) else ""
    unasked = f"device atomic_uint* {VANISHING} = 0;\n" if kernel in CHECKING_KERNELS else ""
    return bounded + unasked + strip_comments(source(f"{kernel}.metal"))


def write_header(kernel: str) -> str:
    """Write what comes before the function that MLX generates."""
    bounds = _BOUNDS.format(threads=_GROUP) if has_groups(kernel) else ""
    return header(*HEADERS[kernel]) + bounds


def has_groups(kernel: str) -> bool:
    """Whether a kernel's threads cooperate, so that its groups have the size it is compiled for."""
    return "table" in INPUTS[kernel]
