"""Tokens of preprocessed text, each with the line that it has in MLX's text."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .errors import Rejected

_TOKEN = re.compile(
    r"""(?P<lead>(?:[ \t\n]|^\#[^\n]*$)*)
    (?P<text>
      "(?:\\.|[^"\\])*"                               # string
      |'(?:\\.|[^'\\])*'                              # character
      |\.?\d(?:[eEpP][+-]|[\w.])*                     # number
      |[A-Za-z_]\w*
      |\[\[|\]\]|::|->|<<=|<=>|\+\+|--|&&|\|\||[-+*/%&|^=!<>]=|\.\.\.
      |.
    )""",
    re.VERBOSE | re.MULTILINE,
)
_MARKER = re.compile(r'^#(?: |line )(?P<line>\d+)(?: "[^"\n]*".*)?$', re.MULTILINE)
_PAIRS = {"(": ")", "[": "]", "{": "}", "[[": "]]", "<": ">"}


@dataclass(frozen=True)
class Token:
    """``lead`` is the space and the directives before ``text``; ``line`` counts from 1."""

    text: str
    lead: str
    line: int


def tokenize(preprocessed: str) -> list[Token]:
    """Split what ``clang -E`` gave."""
    tokens: list[Token] = []
    line = 1
    for match in _TOKEN.finditer(preprocessed):
        for piece in match["lead"].splitlines(keepends=True):
            marker = _MARKER.match(piece)
            if marker:
                line = int(marker["line"]) - 1
            line += piece.endswith("\n")
        text = match["text"]
        if text == "]]" and not _closes_attribute(tokens):
            tokens += [Token("]", match["lead"], line), Token("]", "", line)]
        else:
            tokens.append(Token(text, match["lead"], line))
    return tokens


def _closes_attribute(tokens: list[Token]) -> bool:
    """Whether ``]]`` here ends an attribute, and not two subscripts."""
    depth = 0
    for token in reversed(tokens[-40:]):
        if token.text == "[[" and depth <= 0:
            return True
        depth += (token.text == "]") - (token.text == "[")
        if depth < 0:
            return False
    return False


def find(tokens: list[Token], text: str, start: int) -> int:
    """Index of the first such token from ``start`` on.

    Raises:
        Rejected: there is none.
    """
    for index in range(start, len(tokens)):
        if tokens[index].text == text:
            return index
    raise Rejected(f"line {tokens[start].line}: expected {text!r} after this")


def find_closing(tokens: list[Token], start: int) -> int:
    """Index of what closes the bracket at ``start``.

    Raises:
        Rejected: nothing does.
    """
    opening = tokens[start].text
    end = _PAIRS[opening]
    depth = 0
    for index in range(start, len(tokens)):
        text = tokens[index].text
        depth += (text == opening) - (text == end)
        if depth == 0:
            return index
    raise Rejected(f"line {tokens[start].line}: {opening!r} is never closed")


def join(tokens: list[Token]) -> str:
    """The tokens as text."""
    return "".join(token.lead + token.text for token in tokens)


def text_of(tokens: list[Token]) -> str:
    """The tokens on one line, for messages."""
    return re.sub(r"\s+", " ", join(tokens)).strip()
