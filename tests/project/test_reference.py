"""The reference has every public name; docstrings have arguments, shapes, units and errors."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkout import ROOT

import torch_mlx_spectro as tms

PAGES = sorted((ROOT / "docs" / "reference").glob("*.md"))
PACKAGE = ROOT / "torch_mlx_spectro"
#: Public names whose arguments or results are signals and spectra.
WITH_SHAPES = (
    "stft", "istft", "make_window", "Spectrogram", "MelSpectrogram", "MFCC", "GriffinLim",
    "SpectralTransform.stft", "SpectralTransform.istft", "SpectralTransform.differentiable_stft",
    "SpectralTransform.differentiable_istft", "SpectralTransform.get_compiled_stft",
    "SpectralTransform.compiled_pair", "SpectralTransform.compiled_pair_nd",
    "SpectralTransform.stft_stream", "SpectralTransform.istft_stream",
    "SpectralTransform.stft_of_chunks", "SpectralTransform.istft_of_chunks", "GriffinLim.__call__",
)  # fmt: skip
#: Whose results hold lengths, times or memory.
WITH_UNITS = {
    "set_result_memory": "bytes",
    "resolve_fft_params": "samples",
    "Stats": "seconds",
    "stats": "seconds",
    "MelSpectrogram": "Hz",
    "SpectralTransform.hop_length": "Samples",
}
SHAPE = re.compile(r"\[[*.\w]+(?:, [\w /+*.-]+)*\]|\((?:samples|batch|bins|length)[\w, ]*\)")

Node = ast.FunctionDef | ast.ClassDef


def _parse(home: str) -> ast.Module:
    path = PACKAGE.joinpath(*home.split("."))
    return ast.parse(path.with_suffix(".py").read_text(encoding="utf-8"))


def _find_documented() -> Iterator[tuple[str, Node]]:
    """Find functions, classes and their public methods, by name."""
    # One function lies below the module that gives it to the package.
    homes = {**tms._HOMES, "mlx_api.arguments": ("resolve_fft_params",)}
    for home, names in homes.items():
        found = {
            node.name: node
            for node in reversed(list(ast.walk(_parse(home))))
            if isinstance(node, Node)
        }
        for name in names:
            if name not in found:
                continue  # an alias of a type
            yield name, found[name]
            if isinstance(found[name], ast.ClassDef):
                for method in _list_methods(found[name]):
                    yield f"{name}.{method.name}", method
    core = next(node for node in _parse("mlx_api.core").body if isinstance(node, ast.ClassDef))
    for method in _list_methods(core):
        yield f"SpectralTransform.{method.name}", method


def _list_methods(node: ast.ClassDef) -> Iterator[ast.FunctionDef]:
    for method in node.body:
        if not isinstance(method, ast.FunctionDef):
            continue
        is_setter = any(ast.unparse(each).endswith(".setter") for each in method.decorator_list)
        if not is_setter and (method.name == "__call__" or not method.name.startswith("_")):
            yield method


DOCUMENTED = dict(_find_documented())


def _read(name: str) -> str:
    text = ast.get_docstring(DOCUMENTED[name])
    assert text, f"{name} has no docstring"
    return text


def _list_arguments(node: Node) -> list[str]:
    if isinstance(node, ast.ClassDef):
        inits = [each for each in node.body if getattr(each, "name", "") == "__init__"]
        return _list_arguments(inits[0]) if inits else []
    given = node.args
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    return [each.arg for each in every if each and each.arg not in ("self", "op", "choice")]


def test_the_pages_have_every_public_name_once():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    found = re.findall(r"^::: torch_mlx_spectro\.(\w+)$", text, re.MULTILINE)
    assert sorted(found) == sorted(tms.__all__)


@pytest.mark.parametrize("name", [name for name in DOCUMENTED if not name.endswith(".window")])
def test_every_argument_is_described(name: str):
    text, node = _read(name), DOCUMENTED[name]
    arguments = _list_arguments(node)
    if name in ("Patch", "NotAccelerated") or name.endswith(".__call__"):
        return  # programs do not make them; their classes say what they take
    if isinstance(node, ast.FunctionDef) and len(arguments) == 1 and f"``{arguments[0]}``" in text:
        return
    if name.endswith(("stft_compiled", "istft_compiled", "prewarm_kernels", "prewarm_compiled")):
        assert ":meth:" in text  # they take what another method takes
        return
    missing = [each for each in arguments if not re.search(rf"^ +{each}: \S", text, re.MULTILINE)]
    assert missing == []


@pytest.mark.parametrize("name", WITH_SHAPES)
def test_shapes_are_told(name: str):
    assert SHAPE.search(_read(name)), _read(name)


@pytest.mark.parametrize("name", WITH_UNITS)
def test_units_are_told(name: str):
    assert WITH_UNITS[name] in _read(name)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_every_exception_that_is_raised_is_described(name: str):
    text, node = _read(name), DOCUMENTED[name]
    if isinstance(node, ast.ClassDef):
        inits = [each for each in node.body if getattr(each, "name", "") == "__init__"]
        node = inits[0] if inits else ast.Pass()
    raised = {
        each.exc.func.id
        for each in ast.walk(node)
        if isinstance(each, ast.Raise)
        and isinstance(each.exc, ast.Call)
        and isinstance(each.exc.func, ast.Name)
    }
    assert [one for one in raised if not re.search(rf"^ +{one}: ", text, re.MULTILINE)] == []


@pytest.mark.parametrize(
    "name", [name for name, node in DOCUMENTED.items() if isinstance(node, ast.ClassDef)]
)
def test_every_field_is_described(name: str):
    node = DOCUMENTED[name]
    if not any("dataclass" in ast.unparse(each) for each in node.decorator_list):
        return
    fields = [each.target.id for each in node.body if isinstance(each, ast.AnnAssign)]
    text = _read(name)
    assert [one for one in fields if not re.search(rf"^ +{one}: ", text, re.MULTILINE)] == []


def test_every_environment_variable_has_a_row():
    settings = (PACKAGE / "settings.py").read_text(encoding="utf-8")
    names = set(re.findall(r'"((?:TORCH_MLX_SPECTRO|SPEC_MLX|MLX_OLA)_\w+)"', settings))
    page = Path(ROOT / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
    assert len(names) >= 10
    assert [name for name in names if f"| `{name}` |" not in page] == []
