"""Read the text of ``torch.mps.compile_shader``: which kernels it has, and what each is passed."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .errors import Rejected
from .tokens import Token, find_closing, join, text_of
from .translate import Attribute, Parameter, Signature, is_attribute

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_KERNEL = re.compile(r"\bkernel\b(?:\s*\]\])?\s+void\s+(?P<name>\w+)\s*\(")
_QUALIFIERS = re.compile(r"\b(?:const|constant|device|threadgroup|thread)\b")


@dataclass(frozen=True)
class Buffer:
    """A buffer that a kernel declares.

    Attributes:
        index: that it is bound at.
        type: of an element, as the text has it: ``float``.
        space: its address space.
        is_const: the kernel promises not to write it.
        is_reference: one element is passed, by reference.
    """

    index: int
    name: str
    type: str
    space: str
    is_const: bool
    is_reference: bool = False


def kernels_of(text: str) -> list[str]:
    """Names of the kernels in a text."""
    return [match["name"] for match in _KERNEL.finditer(_COMMENT.sub(" ", text))]


def signature(tokens: list[Token], name: str) -> tuple[Signature, list[Buffer]]:
    """Read a kernel's declaration.

    Args:
        tokens: of the preprocessed text.

    Raises:
        Rejected: there is none, or it has something that the emulator does not understand.
    """
    opening = _find_opening(tokens, name)
    parameters: list[Parameter | Attribute] = []
    buffers: list[Buffer] = []
    for part in _parts(tokens[opening + 1 : find_closing(tokens, opening)]):
        parameter, index = _parameter(part, name)
        parameters.append(parameter)
        if isinstance(parameter, Parameter):
            if index is None:  # the next free one, as Metal counts
                index = 1 + max((buffer.index for buffer in buffers), default=-1)
            buffers.append(_buffer(parameter, index))
    indices = tuple(buffer.index for buffer in buffers)
    if len(set(indices)) < len(indices):
        raise Rejected(f"{name}: two buffers have one index")
    return Signature(name, name, tuple(parameters), indices), buffers


def _is_opening(tokens: list[Token], index: int) -> bool:
    """Whether the parameters of a kernel begin at ``index``."""
    return (
        index >= 3
        and tokens[index].text == "("
        and tokens[index - 2].text == "void"
        and "kernel" in {token.text for token in tokens[max(0, index - 5) : index - 2]}
    )


def _find_opening(tokens: list[Token], name: str) -> int:
    for index in range(len(tokens)):
        if _is_opening(tokens, index) and tokens[index - 1].text == name:
            return index
    raise Rejected(f"{name}: no kernel of that name in the text")


def without_others(tokens: list[Token], name: str) -> list[Token]:
    """Return the text without the bodies of other kernels; all lines stay where they were."""
    kept: list[Token] = []
    index = 0
    while index < len(tokens):
        kept.append(tokens[index])
        if _is_opening(tokens, index) and tokens[index - 1].text != name:
            end = find_closing(tokens, index)
            body = end + 1
            last = find_closing(tokens, body) if tokens[body].text == "{" else end
            breaks = "\n" * sum(token.lead.count("\n") for token in tokens[body + 1 : last])
            kept += tokens[index + 1 : body + 1]
            if last > end:
                kept.append(Token(tokens[last].text, breaks + tokens[last].lead, tokens[last].line))
            index = last
        index += 1
    return kept


def _parts(tokens: list[Token]) -> list[list[Token]]:
    """Parameters, between commas that are in no bracket."""
    parts: list[list[Token]] = [[]]
    depth = 0
    for token in tokens:
        depth += (token.text in {"(", "[", "[[", "<"}) - (token.text in {")", "]", "]]", ">"})
        if token.text == "," and depth == 0:
            parts.append([])
        else:
            parts[-1].append(token)
    return [part for part in parts if part]


def _parameter(part: list[Token], name: str) -> tuple[Parameter | Attribute, int | None]:
    texts = [token.text for token in part]
    end = texts.index("[[") if "[[" in texts else len(texts)
    attribute = texts[end + 1 : -1]
    declared = texts[:end]
    if len(declared) >= 3 and declared[-2] in ("*", "&"):
        index = int(attribute[2]) if attribute[:1] == ["buffer"] else None
        if attribute and index is None:
            raise Rejected(f"{name}: parameter not understood: {text_of(part)}")
        return Parameter(join(part[: end - 2]).strip(), declared[-2], declared[-1]), index
    is_understood = len(attribute) == 1 and is_attribute(attribute[0])
    if is_understood and len(declared) == 2 and declared[0] in ("uint", "uint2", "uint3"):
        return Attribute(attribute[0], declared[0]), None
    raise Rejected(f"{name}: parameter not understood: {text_of(part)}")


def _buffer(parameter: Parameter, index: int) -> Buffer:
    words = parameter.type.split()
    space = next((word for word in words if word in ("device", "constant")), "")
    if not space:
        raise Rejected(f"{parameter.name}: a buffer lies in device or constant memory")
    return Buffer(
        index=index,
        name=parameter.name,
        type=" ".join(_QUALIFIERS.sub(" ", parameter.type).split()),
        space=space,
        is_const="const" in words or space == "constant",
        is_reference=parameter.reference == "&",
    )
