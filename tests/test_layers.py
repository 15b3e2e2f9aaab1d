"""Imports point down: between folders in the order of docs/architecture.md, and never in a circle.

All imports count, those within functions and for type checkers included, and what the package's two
loaders find by a table of names.
"""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import torch_mlx_spectro
from torch_mlx_spectro.backends import registry

NAME = "torch_mlx_spectro"
PACKAGE = Path(torch_mlx_spectro.__file__).parent

#: What modules of a folder, or a module beside the folders, may import besides their own folder.
LEAVES = {"version", "errors", "interrupts"}
VALUES = {"version", "errors", "settings", "core"}
STORED = VALUES | {"store"}
OF_TORCH = STORED | {"terminal", "native", "calls"}
OF_MLX = STORED | {"kernels", "mlx"}
COMPUTING = OF_TORCH | OF_MLX | {"backends", "autograd"}
DECIDING = COMPUTING | {"verify"}
PUBLIC = DECIDING | {"dispatch", "functional", "patching"}
PROGRAMS = PUBLIC | {"", "mlx_api", "magic", "interrupts", "emulator"}
BELOW: dict[str, set[str]] = {
    **{name: set[str]() for name in LEAVES},
    "terminal": {"errors"},
    "settings": {"errors"},
    "core": {"errors", "settings"},
    "store": VALUES,
    "native": STORED,
    "calls": STORED | {"terminal", "native"},
    "verify": OF_TORCH,
    "kernels": STORED,
    "mlx": STORED | {"kernels"},
    "mlx_api": OF_MLX | {"terminal"},
    "emulator": {"settings", "store"},
    "backends": OF_TORCH | OF_MLX,
    "autograd": OF_TORCH | OF_MLX | {"backends"},
    "dispatch": DECIDING,
    "functional": DECIDING | {"dispatch"},
    "patching": DECIDING | {"dispatch", "functional"},
    "magic": PUBLIC,
    "": PUBLIC | {"mlx_api", "magic"},
    "doctor": PROGRAMS,
    "bench": PROGRAMS | {"doctor"},
    "cli": PROGRAMS | {"doctor", "bench"},
    "__main__": PROGRAMS | {"doctor", "bench", "cli"},
}
WITHOUT_TORCH = ("core", "store", "kernels", "mlx", "mlx_api")
#: By what modules are imported whose names are not written in an import.
LOADERS = ("import_module", "resolve_name", "__import__")


def module_name(path: Path) -> str:
    """A module's name within the package; the package's own is empty."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}


def imports(name: str) -> Iterator[str]:
    """The full names of what a module imports, from wherever that is."""
    package = name if FILES[name].name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = [NAME, *package.split(".")] if package else [NAME]
                kept = parents[: len(parents) - node.level + 1]
                base = ".".join([*kept, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
    yield from by_table(name)


def by_table(name: str) -> Iterator[str]:
    if name == "":
        yield from (f"{NAME}.{home}" for home in torch_mlx_spectro._HOMES)
    if name == "backends.registry":
        yield from (spec.location.partition(":")[0] for spec in registry.specs())


def own(full: str) -> str | None:
    """The module of ours that an imported name is, or is in."""
    if full != NAME and not full.startswith(f"{NAME}."):
        return None
    name = full[len(NAME) + 1 :]
    while name not in FILES:
        name = name.rpartition(".")[0]
    return name


def edges(name: str) -> set[str]:
    """The modules of ours that a module imports."""
    return {found for full in imports(name) if (found := own(full)) is not None} - {name}


def room(name: str) -> str:
    return name.partition(".")[0]


@pytest.mark.parametrize("name", FILES)
def test_imports_point_down(name: str) -> None:
    allowed = BELOW[room(name)] | ({room(name)} if "." in name or name in ROOMS else set())
    assert {target for target in edges(name) if room(target) not in allowed} == set()


ROOMS = {room(name) for name in FILES if "." in name}


def test_every_room_has_its_place_and_what_is_below_it_is_closed() -> None:
    assert {room(name) for name in FILES} == set(BELOW)
    for name, below in BELOW.items():
        assert name not in below
        for other in below if name != "emulator" else ():  # which knows of files alone
            assert BELOW[other] <= below, (name, other)


def test_there_are_no_circles() -> None:
    graphlib.TopologicalSorter({name: edges(name) for name in FILES}).prepare()


@pytest.mark.parametrize("name", [name for name in FILES if room(name) in WITHOUT_TORCH])
def test_what_mlx_programs_use_does_not_know_torch(name: str) -> None:
    assert not [full for full in imports(name) if full.partition(".")[0] == "torch"]


def test_no_module_is_loaded_by_a_text_but_by_the_two_loaders() -> None:
    found = set()
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            called = node.func
            word = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if word in LOADERS and not _is_anothers(node.args[0]):
                found.add(name)
    # The parity command loads what its user names, and the plugin one of two readers of TOML.
    assert found == {"", "backends.registry", "cli.parity_session", "cli.pytest_plugin"}


def _is_anothers(argument: ast.expr) -> bool:
    """Whether a text, as far as it is written, names a module that is not ours."""
    if isinstance(argument, ast.JoinedStr):
        argument = argument.values[0]
    is_text = isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    return is_text and not str(argument.value).startswith((".", NAME))  # type: ignore[attr-defined]


def test_importing_a_module_tells_none_below_it_anything() -> None:
    """No module hands another one of ours a function when it is imported, or changes it."""
    for name, tree in TREES.items():
        ours = set()
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "") == NAME):
                ours |= {alias.asname or alias.name for alias in node.names}
        for node in tree.body:
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                assert _root(node.value.func) not in ours, (name, node.lineno)
            if isinstance(node, ast.Assign):
                changed = [one for one in node.targets if not isinstance(one, ast.Name)]
                assert not [one for one in changed if _root(one) in ours], (name, node.lineno)


def _root(node: ast.expr) -> str:
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Call)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def test_few_modules_lie_beside_the_rooms() -> None:
    beside = [name for name in FILES if "." not in name and FILES[name].name != "__init__.py"]
    assert len(beside) + 1 <= 10


def test_every_room_says_what_it_is_for() -> None:
    for name in FILES:
        if FILES[name].name == "__init__.py":
            assert ast.get_docstring(TREES[name]), name
