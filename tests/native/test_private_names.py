"""Every private name of torch's that this package uses, removed: what is computed stays right."""

from __future__ import annotations

import ast
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_process import python
from torch._dynamo import trace_rules

import torch_mlx_spectro as tms
from torch_mlx_spectro.functional import patched_istft
from torch_mlx_spectro.native import private_names

if not hasattr(os, "fork"):
    pytest.skip("a child is forked for every name", allow_module_level=True)

#: Without these nobody can tell who wants to see a call: it stays native's, and says why.
NEEDED = (
    "_C._len_torch_dispatch_stack",
    "_C._functorch.peek_interpreter_stack",
    "_C._functorch.get_interpreter_stack",
    "_C._functorch.TransformType.Functionalize",
    "_C._functorch.is_legacy_batchedtensor",
    "_C._vmapmode_increment_nesting",
    "_C._vmapmode_decrement_nesting",
    "_remove_batch_dim",
    "_add_batch_dim",
    "autograd.forward_ad._current_level",
    "Tensor._is_zerotensor",
)
#: Without these something else is lost, which doctor tells.
TOLD = {
    "overrides._push_mode": "asked about are native torch's",
    "overrides._pop_mode": "asked about are native torch's",
    "_C._len_torch_function_stack": "asked about are native torch's",
    "_C._functorch.TransformType.Vmap": "other strides",
    "_C._functorch.is_batchedtensor": "other strides",
    "_C._autograd._top_saved_tensors_default_hooks": "are not measured",
    "autograd.Variable._execution_engine": "gradients are not verified",
    "_C._current_graph_task_id": "gradients are not verified",
    "_guards.TracingContext.try_get": "on torch 2.10",
    "_C._storage_Use_Count": "is not kept",
    "jit._builtins._register_builtin": "needs unpatch",
    "jit._state._set_jit_function_cache": "needs unpatch",
}
#: These have a public stand-in that takes longer. Names of CUDA's are not in torch's CPU builds.
REPLACED = (
    "_C._get_tracing_state",
    "_C._functorch.is_functorch_wrapped_tensor",
    "_C._DisableFuncTorch",
    "_C.DisableTorchFunction",
    "_neg_view",
    "_C._cuda_getDevice",
    "_C._cuda_getCurrentRawStream",
    "_C._cuda_isCurrentStreamCapturing",
    "_C._dynamo.guards._empty_strided_cuda",
    "_C._get_deterministic_algorithms",
    "_library.autograd.make_autograd_impl",
    "compiler.is_exporting",
)

PROGRAM = """\
import json, os, sys, traceback
import torch
from torch.autograd import forward_ad
import numpy, torch.utils.dlpack

signal = torch.arange(400.0).sin().reshape(2, 200)
signal = torch._neg_view(signal)
window = torch.hann_window(16) + 0.1

def transform(x):
    return torch.stft(x, 16, 4, window=window, return_complex=True)

def energy(x):
    return torch.istft(transform(x) * (1 + transform(x).abs()), 16, 4, window=window).square()

def gradients():
    leaf = signal.clone().requires_grad_()
    cotangents = torch.eye(4).unsqueeze(-1).expand(4, 4, 100).reshape(4, 2, 200)
    result = energy(leaf)
    (one,) = torch.autograd.grad(result.sum(), leaf, retain_graph=True)
    (many,) = torch.autograd.grad(result, leaf, cotangents, is_grads_batched=True)
    return one, many

def forward_mode():
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(energy(forward_ad.make_dual(signal, signal.cos()))).tangent

def found():
    return [transform(signal), energy(signal), *gradients(), forward_mode(),
            torch.func.vmap(energy)(signal.unsqueeze(1)), torch.func.grad(
                lambda x: energy(x).sum())(signal)]

expected = found()

class Removed:
    def __init__(self, path):
        *parents, self.name = path.split(".")
        self.owner = torch
        for parent in parents:
            self.owner = getattr(self.owner, parent)
        self.was = getattr(self.owner, self.name, None)
    def __enter__(self):
        try:
            if self.was is not None:
                delattr(self.owner, self.name)
        except (AttributeError, TypeError):
            setattr(self.owner, self.name, None)
    def __exit__(self, *_):
        # torch itself goes on needing it.
        if self.was is not None:
            setattr(self.owner, self.name, self.was)

def examine(path):
    with Removed(path):
        import torch_mlx_spectro as tms
        from torch_mlx_spectro import patching
        from torch_mlx_spectro.autograd import derivatives
        from torch_mlx_spectro.backends.mlx import bridge
        from torch_mlx_spectro.native import private_state as torch_state
    tms.patch("mlx", verify=1)
    for actual, right in zip(found(), expected, strict=True):
        torch.testing.assert_close(actual, right, rtol=1e-4, atol=1e-4)
        assert actual.stride() == right.stride()
    stats = tms.stats()
    reasons = tms.explain(torch.stft, signal, 16, window=window, return_complex=True).reasons
    tms.patch("mlx", strict=True)
    try:
        transform(signal)
        refused = ""
    except tms.NotAccelerated as error:
        refused = str(error)
    return {"accelerated": stats.accelerated, "native": stats.native, "reasons": list(reasons),
            "fallbacks": list(stats.fallbacks), "refused": refused, "absent": torch_state.ABSENT}

results = {}
for path in sys.argv[1:]:
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            answer = examine(path)
        except BaseException:
            answer = {"error": traceback.format_exc()}
        os.write(writer, json.dumps(answer).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        text = stream.read()
    os.waitpid(child, 0)
    results[path] = json.loads(text) if text else {"error": "the process died"}
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def removed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a process without one of the names finds."""
    names = [*NEEDED, *TOLD, *REPLACED]
    alone = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # threads do not survive a fork
    folder = tmp_path_factory.mktemp("removed")
    ended = python("-c", PROGRAM, *names, cwd=folder, variables=alone)
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def result_without(name: str, removed: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = removed[name]
    assert "error" not in found, found["error"]
    return found


@pytest.mark.parametrize("name", NEEDED)
def test_calls_are_natives_and_say_why(name: str, removed: dict[str, Any]) -> None:
    found = result_without(name, removed)
    assert found["accelerated"] == 0
    assert found["native"] > 0
    for told in (found["refused"], *found["reasons"], *found["fallbacks"]):
        assert f"this torch has no torch.{name}, which tells wh" in told
    assert found["absent"] == {f"torch.{name}": "every call is native torch's"}


@pytest.mark.parametrize("name", TOLD)
def test_calls_are_accelerated_and_doctor_tells_the_rest(
    name: str, removed: dict[str, Any]
) -> None:
    found = result_without(name, removed)
    assert found["accelerated"] > 0
    assert (found["native"], found["refused"]) == (0, "")
    assert list(found["absent"]) == [f"torch.{name}"]
    assert TOLD[name] in found["absent"][f"torch.{name}"]


@pytest.mark.parametrize("name", REPLACED)
def test_calls_are_accelerated_by_what_is_public(name: str, removed: dict[str, Any]) -> None:
    found = result_without(name, removed)
    assert found["accelerated"] > 0
    assert (found["native"], found["refused"], found["absent"]) == (0, "", {})


def test_every_private_name_is_here() -> None:
    """And no other module has a private name of torch's: state is asked by private_state alone."""
    assert {name.path for name in private_names.NAMES.values()} == {*NEEDED, *TOLD, *REPLACED}
    package = Path(private_names.__file__).parents[1]
    rest = re.compile(r"\btorch(\.\w+)*\._(?!_)\w+")  # as code; the compiler's rules are a text
    for path in package.rglob("*.py"):
        code = "\n".join(ast.unparse(node) for node in ast.parse(path.read_text()).body)
        used = {match[0] for match in rest.finditer(_without_texts(code))}
        assert not used, path


def _without_texts(code: str) -> str:
    """Code without its strings, docstrings among them."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = ""
    return ast.unparse(tree)


def test_the_compilers_rules_are_told_of_both_and_not_read_again() -> None:
    """Reading thousands of names again took most of the time of a patch. stft is in no rule."""
    rules = trace_rules.get_torch_obj_rule_map()
    original, expected = torch.istft, rules[torch.istft]
    with tms.patch("mlx"):
        assert trace_rules.get_torch_obj_rule_map() is rules
        assert rules[original] is rules[patched_istft] is expected
    assert trace_rules.get_torch_obj_rule_map() is rules
    assert rules[original] is rules[patched_istft] is expected


@pytest.mark.parametrize("within", [True, False])
def test_rules_read_anew_know_both_after_a_patch(within: bool) -> None:
    """As by a program that compiles for the first time under a patch, or before one."""
    trace_rules.clear_lru_cache()
    with tms.patch("mlx"):
        if within:
            trace_rules.clear_lru_cache()
    rules = trace_rules.get_torch_obj_rule_map()
    assert rules[torch.istft] is rules[patched_istft]


def test_compilers_rules_that_cannot_be_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(trace_rules, "get_torch_obj_rule_map")
    with tms.patch("mlx", strict=True):
        torch.stft(torch.ones(64), 16, window=torch.ones(16), return_complex=True)
