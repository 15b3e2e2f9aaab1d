"""The emulator judges pieces of Metal as it is known that Apple's compiler does."""

from __future__ import annotations

from pathlib import Path

import pytest
from metal_snippets import MEANING, REFUSED, TAKEN, Snippet
from needs import needs_emulator
from test_emulator import mx, run

from torch_mlx_spectro import emulator

pytestmark = needs_emulator

COUNT = 8
KERNEL = """
[[kernel]] void tested(const device float* x [[buffer(0)]], constant float* few [[buffer(1)]],
                       device float* y [[buffer(2)]], uint3 i [[thread_position_in_grid]]) {{
{source}
}}
"""


def text_of(snippet: Snippet) -> str:
    return f"#include <metal_stdlib>\nusing namespace metal;\n{snippet.header}" + KERNEL.format(
        source=snippet.source
    )


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("metal_snippets")


def test_there_are_many() -> None:
    assert len(REFUSED) >= 60
    assert len({**REFUSED, **TAKEN, **MEANING}) == len(REFUSED) + len(TAKEN) + len(MEANING)
    assert all(one.known for one in (*REFUSED.values(), *TAKEN.values(), *MEANING.values()))


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    snippet = REFUSED[name]
    with pytest.raises(emulator.Rejected, match=snippet.said):
        emulator.judge(text_of(snippet))


@pytest.mark.parametrize("name", [*TAKEN, *MEANING])
def test_taken(folder: Path, name: str) -> None:
    """As a shader, and with what it computes by MLX's way."""
    snippet = (TAKEN | MEANING)[name]
    assert emulator.judge(text_of(snippet)) == ("tested",)
    machine = emulator.Machine(cache_dir=folder, orders=("ascending",), contract=True,
                               denormals="flush")  # fmt: skip
    inputs = {"x": mx.arange(1.0, 1.0 + COUNT), "few": mx.array([1.0, 2.0])}
    (y,) = run(
        machine,
        snippet.source,
        inputs,
        outputs={"y": ((COUNT,), mx.float32)},
        grid=(1, 1, 1),
        threadgroup=(1, 1, 1),
        header=snippet.header,
        init_value=-99.0,
    )
    assert y[: len(snippet.y)].tolist() == list(snippet.y)
