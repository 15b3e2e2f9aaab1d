"""What editors are told: torch's parameters, the backends' names, and a file with all of it."""

from __future__ import annotations

import ast
import inspect
import typing
from pathlib import Path

import pytest

import torch_mlx_spectro as tms
from torch_mlx_spectro import functional
from torch_mlx_spectro.backends import registry

USES = Path(__file__).with_name("public_names.py")


@pytest.mark.parametrize("name", ["stft", "istft"])
def test_declared_parameters_are_torchs(name: str) -> None:
    """The declaration for type checkers is written out: it has to be what ``inspect`` shows."""
    tree = ast.parse(Path(functional.__file__).read_text(encoding="utf-8"))
    (declared,) = (
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == name
    )
    names = [argument.arg for argument in declared.args.args]
    defaults = [ast.literal_eval(default) for default in declared.args.defaults]
    shown = inspect.signature(getattr(tms, name)).parameters
    assert names == list(shown)
    required = len(names) - len(defaults)
    empty = inspect.Parameter.empty
    assert [one.default for one in shown.values()] == [empty] * required + defaults


def test_declared_backends_are_those_there_are() -> None:
    assert typing.get_args(registry.BackendName) == ("auto", *registry.names())
    for function in (tms.patch, tms.backend):
        first, *_ = inspect.signature(function).parameters.values()
        assert first.annotation == "BackendName"


def test_the_file_that_is_type_checked_uses_every_public_name() -> None:
    tree = ast.parse(USES.read_text(encoding="utf-8"))
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "tms"
    }
    assert set(tms.__all__) <= used
