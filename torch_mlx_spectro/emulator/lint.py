"""Find what Metal refuses and clang's C++ for OpenCL mode accepts.

This works on tokens, so it recognises scopes (namespace, class, function) by what stands before a
brace, and declarations by how they begin and whether they have parentheses.
"""

from __future__ import annotations

import re

from .tokens import Token, find_closing, text_of
from .words import SPACES, reject

_STANDARD_INCLUDE = re.compile(r"^[ \t]*#[ \t]*include[ \t]*<(?:metal|simd)[\w/.]*>", re.MULTILINE)
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")

_NO_VARIABLE = {
    *("typedef", "using", "static_assert", "friend", "namespace", "return", "struct", "class"),
    *("union", "enum", "extern", "case", "else", "goto"),
}
_NOT_PARAMETERS = {"__attribute__", "alignas", "decltype", "noexcept", "static_assert"}


def without_standard_includes(text: str) -> str:
    """Replace includes of Metal's own headers, which the prelude stands for, by blank lines."""
    return _STANDARD_INCLUDE.sub("", text)


def check(tokens: list[Token], name: str) -> None:
    """Check everything that kernel ``name`` is compiled with.

    Raises:
        Rejected: Metal's compiler would refuse it.
    """
    _Walk(tokens, name).run()


def _without_template(statement: list[Token]) -> list[Token]:
    """The statement without ``template <...>`` before it."""
    while statement and statement[0].text == "template":
        if len(statement) < 2 or statement[1].text != "<":
            return statement[1:]
        depth, index = 0, 1
        while index < len(statement):
            text = statement[index].text
            if text == "(":
                index = find_closing(statement, index)
            depth += (text == "<") - (text == ">")
            if depth == 0:
                break
            index += 1
        statement = statement[index + 1 :]
    return statement


def _top_level(statement: list[Token]) -> list[str]:
    """Texts outside of brackets; an opening bracket stands for all of it."""
    texts: list[str] = []
    index = 0
    while index < len(statement):
        text = statement[index].text
        texts.append(text)
        if text in {"(", "[", "{", "[["}:
            index = find_closing(statement, index)
        index += 1
    return texts


def _is_function(texts: list[str]) -> bool:
    if "operator" in texts:
        return True
    before = texts[: texts.index("=")] if "=" in texts else texts
    return any(
        text == "(" and index > 0 and before[index - 1] not in _NOT_PARAMETERS
        for index, text in enumerate(before)
    )


class _Walk:
    """Goes through the text once, knowing in which scope it is."""

    def __init__(self, tokens: list[Token], name: str) -> None:
        self.tokens = tokens
        self.name = name
        #: Kinds of the scopes around: namespace, class, kernel, function.
        self.scopes = ["namespace"]

    def run(self) -> None:
        index = start = 0
        while index < len(self.tokens):
            text = self.tokens[index].text
            if text in {"(", "[", "[["}:
                index = find_closing(self.tokens, index)
            elif text == "{":
                kind = self.kind_of(self.tokens[start:index])
                if kind is None:
                    index = find_closing(self.tokens, index)
                else:
                    self.scopes.append(kind)
                    start = index + 1
            elif text == "}":
                if len(self.scopes) > 1:
                    self.scopes.pop()
                start = index + 1
            elif text == ";" or self.is_label(start, index):
                if text == ";":
                    self.statement(_without_template(self.tokens[start:index]))
                start = index + 1
            index += 1

    def is_label(self, start: int, index: int) -> bool:
        words = {"public", "private", "protected", "case", "default"}
        return self.tokens[index].text == ":" and self.tokens[start].text in words

    def kind_of(self, head: list[Token]) -> str | None:
        """What a brace after ``head`` opens; None for values and enumerators."""
        head = _without_template(head)
        texts = _top_level(head)
        if self.scopes[-1] in {"kernel", "function"}:
            if not texts or texts[-1] in {"(", "else", "do"}:
                # A block goes on with its function.
                return self.scopes[-1]
            return "class" if texts[0] in {"struct", "class", "union"} else None
        if "enum" in texts:
            return None
        if "namespace" in texts or texts[:1] == ["extern"]:
            return "namespace"
        if _is_function(texts):
            self.parameters(head)
            previous = [token.text for token in head]
            return "kernel" if {self.name, "kernel"} & set(previous) else "function"
        if {"struct", "class", "union"} & set(texts) and "=" not in texts:
            return "class"
        return None

    def statement(self, statement: list[Token]) -> None:
        texts = _top_level(statement)
        if not texts:
            return
        scope = self.scopes[-1]
        if scope in {"kernel", "function"}:
            self.local(statement, texts)
        elif texts[0] in {"typedef", "using"}:
            if texts[-1] in {"*", "&"} or (texts[0] == "typedef" and "*" in texts):
                self.needs_space(statement)
        elif _NO_VARIABLE.isdisjoint(texts):
            if _is_function(texts):
                self.parameters(statement)
            elif scope == "namespace" or "static" in texts:
                self.outside(statement[0], texts)
            elif _declares_pointer(statement):
                self.needs_space(statement)

    def outside(self, first: Token, texts: list[str]) -> None:
        """A variable of a namespace, or a static member."""
        if "threadgroup" in texts:
            raise reject(first, "a threadgroup variable must be declared in a kernel function")
        if "constant" not in texts:
            raise reject(first, "a variable outside of functions must be `constant`")

    def local(self, statement: list[Token], texts: list[str]) -> None:
        if "static" in texts and "constant" not in texts:
            raise reject(statement[0], "a static variable must be `constant`")
        if not _NO_VARIABLE.isdisjoint(texts[:1]):
            return
        pointer = "*" in texts or "&" in texts
        if texts[0] == "threadgroup" and not pointer and self.scopes[-1] != "kernel":
            raise reject(
                statement[0], "a threadgroup variable must be declared in a kernel function"
            )
        if pointer and _declares_pointer(statement):
            self.needs_space(statement)

    def needs_space(self, declared: list[Token]) -> None:
        """Refuse pointers and references that name no address space."""
        if SPACES.isdisjoint(token.text for token in declared):
            raise reject(
                declared[0], f"a pointer or reference needs an address space: {text_of(declared)}"
            )

    def parameters(self, head: list[Token]) -> None:
        """See that every pointer and reference among a function's parameters has a space."""
        index = 0
        while index < len(head):
            text = head[index].text
            before = head[index - 1].text if index else ""
            if text == "[[" or (text == "(" and before in _NOT_PARAMETERS):
                index = find_closing(head, index)
            elif text == "(":
                end = find_closing(head, index)
                if before != "operator":
                    if index > 1 and head[index - 2].text in {"*", "&"}:  # of the result
                        self.needs_space(head[: index - 1])
                    _check_parameters(head[index + 1 : end])
                    return
                index = end
            index += 1


def _check_parameters(tokens: list[Token]) -> None:
    start = depth = 0
    for index, token in enumerate([*tokens, Token(",", "", 0)]):
        depth += (token.text in {"(", "[", "<", "{"}) - (token.text in {")", "]", ">", "}"})
        if token.text != "," or depth > 0:
            continue
        parameter = tokens[start:index]
        start = index + 1
        texts = [part.text for part in parameter]
        if "=" in texts:
            texts = texts[: texts.index("=")]
        if {"*", "&", "&&"} & set(texts) and SPACES.isdisjoint(texts):
            raise reject(
                parameter[0], f"a pointer or reference needs an address space: {text_of(parameter)}"
            )


def _declares_pointer(statement: list[Token]) -> bool:
    """Whether it begins as ``const Type<...>* name`` does, with no more than that before ``=``."""
    texts = [token.text for token in statement if token.text not in {"const", "constexpr"}]
    if not texts or texts[0] == "auto" or not _IDENTIFIER.fullmatch(texts[0]):
        return False
    index = 1
    while index < len(texts) and (texts[index] == "::" or texts[index] == "<"):
        if texts[index] == "<":
            while index < len(texts) and texts[index] != ">":
                index += 1
            index += 1
        else:
            index += 2
    stars = index
    while index < len(texts) and texts[index] in {"*", "&"}:
        index += 1
    if index == stars or index >= len(texts) or not _IDENTIFIER.fullmatch(texts[index]):
        return False
    return index + 1 == len(texts) or texts[index + 1] in {"=", "[", ","}
