"""Read a kernel as strict C++14, which Metal is before Metal 4.

C++ for OpenCL is C++17 and lets pointers of most address spaces become generic ones. So clang reads
the same text once more, as C++14, where Metal's spaces are numbered attributes (dialect.h): no
pointer or reference of one converts to another, and methods are called on the thread's own objects.

clang has no methods of numbered spaces, and so neither assigns nor copies whole structs there as
Metal does. What it says of those is left out; a text that declares methods of address spaces is
judged by the other passes alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

#: Read by clang beside the text of the kernel.
FLAGS = (
    *("-x", "c++", "-std=c++14", "-pedantic-errors", "-fsyntax-only", "-nostdinc"),
    *("-Xclang", "-cl-single-precision-constant", "-fno-lax-vector-conversions"),
    *("-Wno-unknown-attributes", "-Wno-unused-value", "-Wno-unknown-pragmas"),
    *("-Wno-gnu-anonymous-struct", "-Wno-nested-anon-types", "-Wno-gnu-line-marker"),
)

_LOCATED = re.compile(
    r"^[^\s:][^:\n]*:\d+:\d+: (?P<kind>error|note|warning|fatal error): (?P<said>.*)$"
)
_METHOD_OF_A_SPACE = "function type may not be qualified with an address space"
#: What clang says of a struct that is copied from, or assigned in, a numbered space; and the note
#: that says that this is why.
_STRUCTS = (
    (
        "no viable overloaded '='",
        re.compile(r"implicit copy assignment operator\) not viable: .* address space"),
    ),
    (
        "no matching constructor for initialization",
        re.compile(r"implicit copy constructor\) not viable: .* address space"),
    ),
)


@dataclass
class _Said:
    """An error with the lines after it, which quote the text, and its notes."""

    message: str
    lines: list[str]
    notes: list[str]


def list_errors(stderr: str) -> list[str]:
    """List what clang said against a text, without what is not so in Metal; empty: nothing."""
    errors = _split(stderr)
    if any(one.message == _METHOD_OF_A_SPACE for one in errors):
        return []
    return ["\n".join(one.lines) for one in errors if not _is_of_a_struct(one)]


def _split(stderr: str) -> list[_Said]:
    errors: list[_Said] = []
    for line in stderr.splitlines():
        match = _LOCATED.match(line)
        if match is None:
            if errors and not errors[-1].notes:
                errors[-1].lines.append(line)
        elif match["kind"] in ("error", "fatal error"):
            errors.append(_Said(match["said"], [line], []))
        elif match["kind"] == "note" and errors:
            errors[-1].notes.append(match["said"])
    return errors


def _is_of_a_struct(one: _Said) -> bool:
    return any(
        one.message.startswith(message) and any(note.search(said) for said in one.notes)
        for message, note in _STRUCTS
    )
