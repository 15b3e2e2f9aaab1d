"""Every kind of text that our kernels have, read as Metal's compiler would; nothing runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from needs import needs_emulator

from torch_mlx_spectro import emulator
from torch_mlx_spectro.emulator.execute import Call
from torch_mlx_spectro.emulator.reading import Request, judge_request
from torch_mlx_spectro.kernels.arguments import HEADERS, INPUTS
from torch_mlx_spectro.kernels.launches import Launch
from torch_mlx_spectro.kernels.texts.mps import write_text
from torch_mlx_spectro.kernels.variants import list_variants
from torch_mlx_spectro.mlx.launcher import MetalKernels

pytestmark = needs_emulator

mx = pytest.importorskip("mlx.core")

#: Tests of these texts, which processes may share.
PARTS = 4
#: Kernels that are read together: headers are nine tenths of each text.
TOGETHER = 20
#: Of each kernel, of those that MLX generates one by one.
MLX_TEXTS = 8


def texts_of(launches: list[Launch]) -> list[str]:
    """Texts of these launches, each with as many of one kernel as are read together."""
    texts: list[str] = []
    for kernel in HEADERS:
        mine = [launch for launch in launches if launch.kernel == kernel]
        for start in range(0, len(mine), TOGETHER):
            functions = []
            for index, launch in enumerate(mine[start : start + TOGETHER]):
                head, word, function = write_text(kernel, launch.template).partition("[[kernel]]")
                functions.append(word + function.replace(f"{kernel}(", f"{kernel}_{index}(", 1))
            texts.append(head + "\n".join(functions))
    return texts


def test_there_are_hundreds_of_every_kernel() -> None:
    assert len(list_variants()) >= 300
    assert {launch.kernel for launch in list_variants().values()} == set(HEADERS)


@pytest.mark.parametrize("kernel", HEADERS)
def test_torch_is_handed_a_text_that_metal_takes(kernel: str) -> None:
    launch = next(one for one in list_variants().values() if one.kernel == kernel)
    assert emulator.judge(write_text(kernel, launch.template)) == (f"spectro_{kernel}",)


@pytest.mark.parametrize("part", range(PARTS))
def test_metal_takes_every_kernel(part: int) -> None:
    launches = list(list_variants().values())[part::PARTS]
    read = sum(len(emulator.judge(text)) for text in texts_of(launches))
    assert read == len(launches)


@pytest.mark.parametrize("kernel", ["analysis", "synthesis", "synthesis_walk"])
def test_one_wrong_kernel_of_many_is_found(kernel: str) -> None:
    launches = [one for one in list_variants().values() if one.kernel == kernel][:3]
    (text,) = texts_of(launches)
    assert text.count("constexpr int POINTS") == 3
    before, _, after = text.rpartition("constexpr int POINTS")
    with pytest.raises(emulator.Rejected, match="POINTS"):
        emulator.judge(f"{before}const device int POINTS{after}")


class Judging(emulator.Machine):
    """Reads what MLX generates, and runs nothing."""

    read = 0

    def run(self, call: Call) -> list[Any]:
        judge_request(Request(call.captured.text, call.captured.name, checked=False))
        self.read += 1
        return [
            mx.zeros(shape, dtype)
            for shape, dtype in zip(call.output_shapes, call.output_dtypes, strict=True)
        ]


def arguments_of(launch: Launch) -> list[Any]:
    """Arrays of the types that MLX's text depends on."""
    template = dict(launch.template)
    kinds = {
        "signal": mx.complex64 if template.get("COMPLEX_SIGNAL") else mx.float32,
        "window": mx.complex64 if template.get("COMPLEX_WINDOW") else mx.float32,
        "parameters": mx.int64,
    }
    return [
        1.0 if name == "edge" else mx.zeros((2, 8, 8), kinds.get(name, mx.complex64))
        for name in INPUTS[launch.kernel]
    ]


@pytest.mark.parametrize("kernel", HEADERS)
def test_mlx_generates_texts_that_metal_takes(tmp_path: Path, kernel: str) -> None:
    """Of contiguous windows, since MLX's launcher makes no others; constants are its templates."""
    machine = Judging(cache_dir=tmp_path)
    kernels = MetalKernels(mx, machine.metal_kernel)
    found = [one for one in list_variants().values() if dict(one.template).get("WINDOW", 1) == 1]
    launches = [one for one in found if one.kernel == kernel]
    launches = launches[:: -(-len(launches) // MLX_TEXTS)]
    for launch in launches:
        kernels._launch(launch, arguments_of(launch), None)
    assert machine.read == len(launches) >= 5
