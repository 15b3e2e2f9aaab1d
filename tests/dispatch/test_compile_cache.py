"""torch.compile's cache on disk: programs of ours and native's are kept under different keys."""

from __future__ import annotations

import contextlib
import importlib
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_process import python
from gradients import torchs_own_warnings

import torch_mlx_spectro as tms
from torch_mlx_spectro.backends import registry
from torch_mlx_spectro.dispatch import choice as routing
from torch_mlx_spectro.mlx import runtime
from torch_mlx_spectro.native import private_state as torch_state

PROGRAM = """\
import json, sys, torch
who, *strict = sys.argv[1:]
if who != "nobody":
    import torch_mlx_spectro as tms
    tms.patch(who, strict=bool(strict))

def by_name(signal):
    return torch.stft(signal, 16, 4, window=torch.ones(16), return_complex=True)

def by_method(signal):
    return signal.stft(16, 4, window=torch.ones(16), return_complex=True)

signal = torch.arange(240.0).sin()
for program in (by_name, by_method):
    torch.compiler.reset()
    torch.compile(program, fullgraph=True)(signal)
from torch._dynamo.utils import counters
found = {"hits": counters["aot_autograd"]["autograd_cache_hit"], "mlx": 0}
if who != "nobody":
    found["mlx"] = tms.stats().calls.get(("stft", "mlx"), 0)
else:
    assert "torch_mlx_spectro" not in sys.modules
print(json.dumps(found))
"""
#: Processes one after the other, and what each finds: programs in the cache, and calls by MLX.
ORDERS = {
    "ours first": [(("mlx", "strict"), 0, 2), (("nobody",), 0, 0), (("mlx", "strict"), 2, 2)],
    # On a CPU auto's programs are native's own, but where calls are large.
    "native's first": [(("nobody",), 0, 0), (("mlx", "strict"), 0, 2), (("auto",), 0, 0)],
}


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_no_process_gets_a_program_of_another_kind(order: Any, tmp_path: Path) -> None:
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        order = [entry for entry in order if entry[0] != ("auto",)]
    kept = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "kept"), "TORCHINDUCTOR_FX_GRAPH_CACHE": "1"}
    for arguments, hits, by_mlx in order:
        finished = python("-c", PROGRAM, *arguments, cwd=tmp_path, variables=kept)
        assert finished.returncode == 0, finished.stderr
        assert json.loads(finished.stdout) == {"hits": hits, "mlx": by_mlx}, arguments


def tag() -> str:
    return str(torch.compiler.config.cache_key_tag)


OURS = f"torch_mlx_spectro {tms.__version__} for cpu"


@pytest.fixture
def users() -> Iterator[Any]:
    """torch's settings, with a tag of the user's."""
    before = tag()
    torch.compiler.config.cache_key_tag = "theirs"
    yield torch.compiler.config
    torch.compiler.config.cache_key_tag = before
    assert tag() == before


def test_a_tag_of_the_users_is_added_to_and_restored(users: Any) -> None:
    kind = type(users)
    with tms.patch("mlx"):
        assert tag() == f"theirs + {OURS}"
        with tms.patch("mlx", strict=True):
            assert tag() == f"theirs + {OURS}"
    assert (tag(), type(users)) == ("theirs", kind)


def test_a_tag_set_meanwhile_is_the_users(users: Any) -> None:
    with tms.patch("mlx"):
        with users.patch(cache_key_tag="for a block"):
            assert tag() == f"for a block + {OURS}"
        assert tag() == f"theirs + {OURS}"
        users.cache_key_tag = tag()  # as a program does that restores what it has read
        assert tag() == f"theirs + {OURS}"
        users.cache_key_tag = "other"
        assert tag() == f"other + {OURS}"
    assert tag() == "other"


def test_every_thread_reads_the_tag() -> None:
    """Settings of torch's may belong to a thread."""
    found = []
    with tms.patch("mlx"):
        thread = threading.Thread(target=lambda: found.append(tag()))
        thread.start()
        thread.join()
    assert found == [OURS]


def test_what_keeps_native_has_no_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "is_present", lambda name: name == "cpu")
    with tms.patch("native"):
        assert tag() == ""
    with tms.patch("auto"):
        assert tag() == f"{OURS}large"
    with tms.patch("auto", strict=True):
        assert tag() == OURS
    with tms.patch("mlx"), tms.backend("native"):
        assert tag() == ""
    with tms.patch("native"), tms.backend("mlx"):
        assert tag() == OURS
    assert runtime.unavailable_reason() is None
    assert runtime.is_resolved()
    monkeypatch.setattr(routing, "missing_reason", lambda device, accelerator: "there is no MLX")
    with tms.patch("mlx"):
        assert tag() == ""
    with tms.patch("mlx", strict=True):
        assert tag() == OURS


LOADS = """\
import sys, torch, torch_mlx_spectro as tms
tms.patch("mlx")
torch.compile(lambda signal: signal + 1, backend="aot_eager")(torch.ones(4))
assert torch.compiler.config.cache_key_tag
assert "mlx.core" not in sys.modules
"""


def test_a_program_without_a_transform_loads_no_mlx(tmp_path: Path) -> None:
    finished = python("-c", LOADS, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr


class Untagged:
    """torch's settings of another version: without a tag."""

    def __init__(self, settings: Any) -> None:
        self._settings = settings

    def __getattr__(self, name: str) -> Any:
        if name == "cache_key_tag":
            raise AttributeError(name)
        return getattr(self._settings, name)


@pytest.mark.parametrize("strict", [False, True])
def test_without_a_tag_patched_programs_keep_native(
    strict: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is first imported meanwhile would keep the stand-in for good, for all later tests.
    with torchs_own_warnings():
        importlib.import_module("torch._inductor.compile_fx")
    monkeypatch.setattr(torch.compiler, "config", Untagged(torch.compiler.config))

    def program(signal: torch.Tensor) -> torch.Tensor:
        return torch.stft(signal, 16, 4, window=torch.ones(16), return_complex=True)

    signal = torch.arange(64.0).sin()
    expected = program(signal)
    torch.compiler.reset()
    refused: Any = pytest.raises(Exception, match="cache_key_tag")
    with tms.patch("mlx", strict=strict):
        tms.reset_stats()
        compiled = torch.compile(program, fullgraph=True, backend="aot_eager")
        with torchs_own_warnings(), refused if strict else contextlib.nullcontext():
            torch.testing.assert_close(compiled(signal), expected)
        assert tms.stats().calls == {}
        assert not torch_state.tags_compiled()
    torch.compiler.reset()
