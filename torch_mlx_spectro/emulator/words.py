"""Find, token by token, what Metal refuses or reads otherwise, and both of clang's passes accept.

``lint.py`` looks at scopes and declarations; nothing here needs to know where it stands. Numbers
are sections of the Metal Shading Language Specification 4.
"""

from __future__ import annotations

import re

from .errors import Rejected
from .tokens import Token, find_closing, text_of

SPACES = frozenset({"thread", "device", "threadgroup", "constant", "threadgroup_imageblock"})
VECTOR = re.compile(r"(?:bool|float|half|char|uchar|short|ushort|int|uint|long|ulong)[234]")

_BANNED = {
    "goto": "Metal has no goto (1.5.4)",
    "throw": "Metal has no exceptions (1.5.4)",
    "try": "Metal has no exceptions (1.5.4)",
    "catch": "Metal has no exceptions (1.5.4)",
    "new": "Metal has no new (1.5.4)",
    "delete": "Metal has no delete (1.5.4)",
    "dynamic_cast": "Metal has no run-time type information (1.5.4)",
    "typeid": "Metal has no run-time type information (1.5.4)",
    "virtual": "Metal has no virtual functions (1.5.4)",
    "thread_local": "Metal has no thread_local (1.5.4)",
    "register": "Metal has no register variables (1.5.4)",
    "noexcept": "Metal has no noexcept (1.5.4)",
    "double": "Metal has no double (2.1)",
    "asm": "Metal has no inline assembly",
    "fragment": "'fragment' is a word of Metal's own (5.1)",
    "vertex": "'vertex' is a word of Metal's own (5.1)",
    "sampler": "'sampler' is a type of Metal's (2.10)",
    "bfloat": "'bfloat' is a type of Metal's (2.1), which is not emulated",
}
#: Components of vectors in OpenCL and in clang, which Metal does not have (2.2.1).
_FOREIGN_COMPONENTS = re.compile(r"hi|lo|even|odd|s[0-9a-fA-F]+")
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")
_NUMBER = re.compile(r"\.?\d")
_CASTS = frozenset({"static_cast", "reinterpret_cast", "const_cast"})
#: After these an opening bracket begins a value, so that it is no subscript.
_BEFORE_VALUES = frozenset({"return", "case", "else", "do"})


def check_ascii(text: str) -> None:
    """Refuse other characters, in comments, too: MLX and torch hand the text on as ASCII.

    Raises:
        Rejected: naming the line.
    """
    for number, line in enumerate(text.split("\n"), 1):
        if not line.isascii():
            found = next(character for character in line if not character.isascii())
            raise Rejected(
                f"line {number}: {found!r} is not ASCII, of which MLX and torch make no string"
            )


def check(tokens: list[Token]) -> None:
    """Check all tokens of the preprocessed text.

    Raises:
        Rejected: Metal's compiler would refuse one, or take it for something else.
    """
    names = _declared_names(tokens)
    for index, token in enumerate(tokens):
        text = token.text
        before = tokens[index - 1].text if index else ""
        if text in _BANNED and not (text == "delete" and before == "="):  # a deleted function
            raise reject(token, _BANNED[text])
        if text == "long" and before == "long":
            raise reject(token, "Metal has no long long (2.1)")
        if text == "main" and index + 1 < len(tokens) and tokens[index + 1].text == "(":
            raise reject(token, "no function of Metal may be called main (1.5.4)")
        if before in (".", "->") and _FOREIGN_COMPONENTS.fullmatch(text) and text not in names:
            raise reject(token, f"Metal's vectors have no component {text!r} (2.2.1)")
        if text == "[" and _begins_lambda(before):
            raise reject(token, "lambda expressions need Metal 3.2 (1.5.4); MLX runs on 3.1, too")
        if text == "(":
            _check_cast(tokens, index)
        if text in _CASTS and tokens[index + 1].text == "<":
            end = find_closing(tokens, index + 1)
            _check_pointer_type(tokens[index + 2 : end])


def reject(token: Token, what: str) -> Rejected:
    """Make the exception that names a token's line."""
    return Rejected(f"line {token.line}: {what}")


def _declared_names(tokens: list[Token]) -> set[str]:
    """Return the words that are used otherwise than as a component, and so may be members."""
    return {
        token.text
        for index, token in enumerate(tokens)
        if _FOREIGN_COMPONENTS.fullmatch(token.text)
        and (index == 0 or tokens[index - 1].text not in (".", "->"))
    }


def _begins_lambda(before: str) -> bool:
    if before in _BEFORE_VALUES:
        return True
    subscripted = (
        _IDENTIFIER.fullmatch(before) or _NUMBER.match(before) or before in ("]", ")", '"', "&")
    )
    return not subscripted


def _check_cast(tokens: list[Token], opening: int) -> None:
    """Look at ``(type*)value`` and ``(float2)(a, b)``, if one begins at an opening bracket."""
    last = find_closing(tokens, opening)
    inside = tokens[opening + 1 : last]
    if not inside or last + 1 >= len(tokens):
        return
    after = tokens[last + 1].text
    if inside[-1].text in ("*", "&") and (_IDENTIFIER.fullmatch(after) or after in ("(", "&")):
        _check_pointer_type(inside)
    is_vector = VECTOR.fullmatch(inside[-1].text) or (
        inside[0].text == "vec" and inside[-1].text == ">"
    )
    if is_vector and after == "(" and _has_comma(tokens, last + 1):
        raise reject(
            inside[0],
            f"({text_of(inside)})(a, b) is a comma expression in Metal, and means b alone; "
            f"write {text_of(inside)}(a, b) (2.2.2)",
        )


def _check_pointer_type(inside: list[Token]) -> None:
    """Refuse a pointer or reference type without an address space (4)."""
    texts = [token.text for token in inside]
    if texts and texts[-1] in ("*", "&") and SPACES.isdisjoint(texts):
        first = texts[0] if texts[0] != "const" else texts[1]
        if _IDENTIFIER.fullmatch(first):
            raise reject(
                inside[0], f"a pointer or reference needs an address space: {text_of(inside)} (4)"
            )


def _has_comma(tokens: list[Token], opening: int) -> bool:
    """Whether a comma stands between the brackets at ``opening``, in none within them."""
    end = find_closing(tokens, opening)
    index = opening + 1
    while index < end:
        if tokens[index].text in ("(", "[", "{"):
            index = find_closing(tokens, index)
        elif tokens[index].text == ",":
            return True
        index += 1
    return False
