"""Translate Metal text, MLX's or another, to text for clang, line by line.

The text is preprocessed before, so tokens are what Metal's compiler would see. Three things are
rewritten: arrays declared ``threadgroup`` in the kernel become references to memory that the
runtime places; ``float2(a, b)`` becomes ``mtl_make<float2>(a, b)``; and the explicit instantiation
at the end becomes a function through which the runtime calls the kernel.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .errors import Rejected
from .tokens import Token, find, find_closing, join, text_of, tokenize
from .words import VECTOR

_INSTANTIATION = re.compile(
    r"^template \[\[host_name\(\"[^\"]*\"\)\]\] \[\[kernel\]\] decltype\((?P<target>.*)\) .*;$",
    re.MULTILINE,
)
_BUFFER = re.compile(
    r"\s*(?P<type>[^*&\[]+?)(?P<reference>[*&]) (?P<name>\w+) \[\[buffer\((?P<index>\d+)\)\]\]"
)
_ATTRIBUTE = re.compile(r"\s*(?P<type>uint3?) (?P<name>\w+) \[\[(?P=name)\]\]")

_UINT3 = {
    "dispatch_threads_per_threadgroup": "group_nominal",
    "grid_size": "grid",
    "thread_position_in_grid": "",
    "thread_position_in_threadgroup": "in_group",
    "threadgroup_position_in_grid": "group_in_grid",
    "threadgroups_per_grid": "groups",
    "threads_per_grid": "grid",
    "threads_per_threadgroup": "group",
}
_UINT = {
    "dispatch_quadgroups_per_threadgroup": (
        "(t->group_nominal[0] * t->group_nominal[1] * t->group_nominal[2] + 3) / 4"
    ),
    "dispatch_simdgroups_per_threadgroup": "t->simds_nominal",
    "quadgroup_index_in_threadgroup": "t->index / 4",
    "quadgroups_per_threadgroup": "(t->group[0] * t->group[1] * t->group[2] + 3) / 4",
    "simdgroup_index_in_threadgroup": "t->simd",
    "simdgroups_per_threadgroup": "t->simds",
    "thread_execution_width": "32u",
    "thread_index_in_quadgroup": "t->index % 4",
    "thread_index_in_simdgroup": "t->lane",
    "thread_index_in_threadgroup": "t->index",
    "threads_per_simdgroup": "32u",
}


@dataclass(frozen=True)
class Parameter:
    """A buffer of the kernel: ``type`` such as ``const device float``, ``reference`` * or &."""

    type: str
    reference: str
    name: str


@dataclass(frozen=True)
class Attribute:
    """Where a thread is, or how many there are: Metal's name for it, ``uint``, uint2 or uint3."""

    name: str
    type: str


@dataclass(frozen=True)
class Signature:
    """What a text declares: the kernel, what to call, its parameters in order.

    Attributes:
        buffer_indices: index of the buffer of each parameter that is one, in their order.
    """

    name: str
    target: str
    parameters: tuple[Parameter | Attribute, ...]
    buffer_indices: tuple[int, ...]

    @property
    def buffers(self) -> tuple[Parameter, ...]:
        return tuple(one for one in self.parameters if isinstance(one, Parameter))


def signature(text: str, name: str) -> Signature:
    """Read the kernel's declaration from MLX's text.

    Raises:
        Rejected: it does not have the form that MLX writes.
    """
    start = text.rfind(f"[[kernel]] void {name}(\n")
    end = text.find(") {\n", start)
    if start < 0 or end < 0:
        raise Rejected(f"{name}: no declaration of the kernel in MLX's text")
    parameters: list[Parameter | Attribute] = []
    indices: list[int] = []
    for line in text[text.index("\n", start) + 1 : end].split(",\n"):
        if match := _BUFFER.fullmatch(line):
            parameters.append(Parameter(match["type"], match["reference"], match["name"]))
            indices.append(int(match["index"]))
        elif match := _ATTRIBUTE.fullmatch(line):
            parameters.append(Attribute(match["name"], match["type"]))
        else:
            raise Rejected(f"{name}: parameter not understood: {line.strip()}")
    instantiations = list(_INSTANTIATION.finditer(text))
    target = instantiations[-1]["target"] if instantiations else name
    return Signature(name, target, tuple(parameters), tuple(indices))


def without_instantiation(text: str) -> str:
    """Return the text with a blank line for the instantiation, which clang cannot parse."""
    return _INSTANTIATION.sub("", text)


def entry(of: Signature, function: str = "mtl_entry") -> str:
    """Write the function that the runtime calls; it spreads its two arguments over the kernel's."""
    arguments = []
    indices = iter(of.buffer_indices)
    for parameter in of.parameters:
        if isinstance(parameter, Attribute):
            arguments.append(_attribute(parameter))
            continue
        # By way of an integer: clang converts no generic pointer to one of constant memory.
        pointer = f"({parameter.type}*)(ulong)a[{next(indices)}]"
        arguments.append(pointer if parameter.reference == "*" else f"*{pointer}")
    return (
        '\n# 1 "entry"\n'
        '#pragma clang attribute push (__attribute__((no_sanitize("thread"))), '
        "apply_to=function)\n"
        'extern "C" __attribute__((visibility("default")))\n'
        f"void {function}(void* const* a, const mtl_thread* t) {{\n"
        f"  {of.target}({', '.join(arguments)});\n"
        "}\n"
        "#pragma clang attribute pop\n"
    )


def is_attribute(name: str) -> bool:
    """Whether Metal has an attribute of this name."""
    return name in _UINT3 or name in _UINT or name == "grid_origin"


def _attribute(attribute: Attribute) -> str:
    name = attribute.name
    if name in _UINT:
        return f"uint({_UINT[name]})"
    if name == "grid_origin":
        parts = ["0u"] * 3
    elif name == "thread_position_in_grid":
        parts = [
            f"t->group_in_grid[{d}] * t->group_nominal[{d}] + t->in_group[{d}]" for d in (0, 1, 2)
        ]
    else:
        parts = [f"t->{_UINT3[name]}[{d}]" for d in (0, 1, 2)]
    if attribute.type == "uint":
        return f"uint({parts[0]})"
    return f"({attribute.type})({', '.join(parts[: int(attribute.type[-1])])})"


def body_of(tokens: list[Token], name: str) -> tuple[int, int]:
    """Indices of the braces of the kernel's body.

    Raises:
        Rejected: there is none.
    """
    for index in range(len(tokens) - 2, 0, -1):
        if tokens[index].text == name and tokens[index - 1].text == "void":
            parameters_end = find_closing(tokens, find(tokens, "(", index))
            return parameters_end + 1, find_closing(tokens, parameters_end + 1)
    raise Rejected(f"{name}: no kernel of that name in the preprocessed text")


def rewrite(tokens: list[Token], *names: str) -> str:
    """Rewrite text with these kernels for clang; each line stays where it was."""
    pieces = [token.lead + token.text for token in tokens]
    arrays = 0
    for name in names:
        arrays = _rewrite_arrays(tokens, pieces, body_of(tokens, name), arrays)
    for index in range(len(tokens)):
        _vector_constructor(tokens, index, pieces)
    return "".join(pieces)


def _rewrite_arrays(
    tokens: list[Token], pieces: list[str], body: tuple[int, int], arrays: int
) -> int:
    """Rewrite the threadgroup variables of a kernel; returns how many there are up to its end."""
    opening, end = body
    for index in range(opening + 1, end):
        if tokens[index].text == "threadgroup" and tokens[index - 1].text in {";", "{", "}"}:
            last = find(tokens, ";", index)
            replaced, arrays = _array_declaration(tokens[index : last + 1], arrays)
            if replaced is not None:
                pieces[index] = tokens[index].lead + replaced
                for other in range(index + 1, last + 1):
                    # Line breaks stay, so that the lines after it keep their numbers.
                    pieces[other] = "\n" * tokens[other].lead.count("\n")
    return arrays


def _vector_constructor(tokens: list[Token], index: int, pieces: list[str]) -> None:
    """Spell ``float2(...)`` or ``vec<T, 2>(...)`` for clang, if one begins at ``index``."""
    last = index
    if tokens[index].text == "vec" and index + 1 < len(tokens) and tokens[index + 1].text == "<":
        last = find_closing(tokens, index + 1)
    elif not VECTOR.fullmatch(tokens[index].text):
        return
    if last + 2 >= len(tokens) or (index and tokens[index - 1].text in {"operator", "mtl_make"}):
        return
    after = tokens[last + 1]
    # A declarator, as in float2 (&v)[4], has a space; float2() is clang's as well.
    if after.text != "(" or after.lead or tokens[last + 2].text in {"&", "*", ")"}:
        return
    if pieces[index].strip() != tokens[index].text:
        return  # part of an array's declaration, and replaced already
    made = f"mtl_make<{tokens[index].text}"
    if tokens[index].text.startswith("bool"):
        made = f"mtl_make_bool<{tokens[index].text[-1]}"
    pieces[index] = tokens[index].lead + made
    pieces[last] += ">"


def _array_declaration(tokens: list[Token], count: int) -> tuple[str | None, int]:
    """References to memory of the runtime for a declaration of threadgroup variables.

    Returns:
        The text, or None where ``tokens`` declare a pointer or reference; and how many
        threadgroup variables there are now.
    """
    declared: list[int] = []
    depth = 0
    for index, token in enumerate(tokens[1:-1], 1):
        if depth == 0 and token.text in {"*", "&"}:
            return None, count
        if depth == 0 and token.text == "=":
            raise Rejected(f"line {token.line}: a threadgroup variable cannot be initialised")
        depth += (token.text in {"(", "[", "<"}) - (token.text in {")", "]", ">"})
        ends = tokens[index + 1].text in {"[", ",", ";"}
        if depth == 0 and ends and re.fullmatch(r"[A-Za-z_]\w*", token.text):
            declared.append(index)
    alias = list(tokens[1:-1])
    for index in declared:
        token = tokens[index]
        alias[index - 1] = Token(f"mtl_type_{token.text}", token.lead, token.line)
    text = f"typedef {join(alias)};"
    for index in declared:
        name = tokens[index].text
        text += (
            f" threadgroup mtl_type_{name}& {name} = *(threadgroup mtl_type_{name}*)"
            f"mtl_threadgroup_array({count}, sizeof(mtl_type_{name}), alignof(mtl_type_{name}), "
            f"{tokens[index].line});"
        )
        count += 1
    return text.replace("\n", " "), count


def array_names(tokens: list[Token], name: str) -> tuple[str, ...]:
    """Names of the kernel's threadgroup variables, in the order in which the runtime counts."""
    opening, end = body_of(tokens, name)
    found: list[str] = []
    for index in range(opening + 1, end):
        if tokens[index].text == "threadgroup" and tokens[index - 1].text in {";", "{", "}"}:
            statement = tokens[index : find(tokens, ";", index) + 1]
            text, _ = _array_declaration(statement, 0)
            if text is not None:
                found += re.findall(r"threadgroup mtl_type_(\w+)&", text)
    return tuple(found)


__all__ = [
    "Attribute",
    "Parameter",
    "Signature",
    "array_names",
    "body_of",
    "entry",
    "is_attribute",
    "rewrite",
    "signature",
    "text_of",
    "tokenize",
    "without_instantiation",
]
