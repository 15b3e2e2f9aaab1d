"""References in docstrings become links of the site; ``mkdocs.yml`` names this file."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from textwrap import dedent
from typing import Any

import griffe

PACKAGE = Path(__file__).resolve().parents[1] / "torch_mlx_spectro" / "__init__.py"
ROLE = re.compile(r":(?:class|func|meth|data|mod):`~?\.?([\w.]+)`")
#: A section that the reader of docstrings does not know, and would put into a box.
SHAPE = re.compile(r"^Shape:\n((?:    .*\n?)+)", re.MULTILINE)


def _list_public() -> frozenset[str]:
    """Read ``__all__``, without an import of the package."""
    for statement in ast.parse(PACKAGE.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__":
            return frozenset(ast.literal_eval(statement.value))
    raise LookupError("the package has no __all__")


class Roles(griffe.Extension):
    """Make Markdown of the references in each docstring."""

    def __init__(self) -> None:
        self.public = _list_public()

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite one docstring before it is read."""
        if obj.docstring:
            text = ROLE.sub(lambda role: self._link(obj, role[1]), obj.docstring.value)
            text = SHAPE.sub(lambda shape: f"**Shape:**\n\n{dedent(shape[1])}", text)
            obj.docstring.value = text.replace("``", "`")

    def _link(self, obj: griffe.Object, target: str) -> str:
        if target in self.public:
            return f"[`{target}`][torch_mlx_spectro.{target}]"
        if "." not in target and not target.startswith("_") and obj.parent is not None:
            owner = obj.parent.name
            if owner in self.public and target in obj.parent.members:
                return f"[`{target}`][torch_mlx_spectro.{owner}.{target}]"
        return f"`{target}`"
