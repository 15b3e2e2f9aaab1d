"""The kernels' text: complete, each part once, and documented as promised."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from checkout import METAL_SRC as FOLDER

from torch_mlx_spectro.kernels.arguments import HEADERS as HEADERS_OF_KERNELS
from torch_mlx_spectro.kernels.texts.metal import (
    body,
    has_groups,
    header,
    strip_comments,
    write_header,
)
from torch_mlx_spectro.kernels.texts.mps import write_text
from torch_mlx_spectro.kernels.variants import list_variants
from torch_mlx_spectro.store import sources

#: A launch of each kernel.
EXAMPLES = {launch.kernel: launch.template for launch in list_variants().values()}
#: Of all launchers; cuda.h stands in front of them for one.
HEADERS = sorted(path.name for path in FOLDER.glob("*.h") if path.name != "cuda.h")


def test_headers_are_in_line_once_and_after_what_they_include() -> None:
    text = header("framing.h", "element.h", "analysis.h", "synthesis_walk.h")
    assert "#include" not in text
    assert "#pragma once" not in text
    for name in HEADERS:
        body = re.sub(r"^#(include|pragma once).*\n", "", sources.source(name), flags=re.MULTILINE)
        assert text.count(strip_comments(body)) == 1, name
    assert text.index("struct Radix;") < text.index("struct Plan {") < text.index("struct Packed ")


#: Bytes of what MLX hashes in every call. With all headers for each kernel, and their comments, it
#: was 101,000 to 106,000.
BYTES = {
    "analysis": 42_000,
    "synthesis": 40_000,
    "synthesis_walk": 66_000,
    "cut_frames": 16_000,
    "add_frames": 16_000,
}


@pytest.mark.parametrize("kernel", HEADERS_OF_KERNELS)
def test_texts_are_short(kernel: str) -> None:
    """No comments, and the headers that the kernel needs alone."""
    texts = (write_header(kernel), body(kernel), write_text(kernel, EXAMPLES[kernel]))
    for text in texts:
        assert "//" not in text
        assert "\n\n" not in text
    assert len(texts[0]) + len(texts[1]) < BYTES[kernel]
    assert len(texts[2]) < BYTES[kernel] + 1000


def test_comments_alone_are_left_out() -> None:
    text = "int a;  // b\n\n  // c / d\n#pragma unroll 8\n  e = f / g;\n"
    assert strip_comments(text) == "int a;\n#pragma unroll 8\n  e = f / g;\n"


@pytest.mark.parametrize("kernel", HEADERS_OF_KERNELS)
def test_compilers_are_told_the_threads_of_a_group(kernel: str) -> None:
    """Those of kernels whose threads cooperate; other groups shrink to what a pipeline allows."""
    has_plan = kernel not in ("cut_frames", "add_frames")
    assert has_groups(kernel) == has_plan
    defined = "#define kernel kernel, max_total_threads_per_threadgroup("
    assert write_header(kernel).count(defined) == has_plan
    assert body(kernel).startswith("#undef kernel\n") == has_plan
    group = dict(EXAMPLES[kernel]).get("FRAMES", 0) * dict(EXAMPLES[kernel]).get("THREADS", 0)
    told = f"[[max_total_threads_per_threadgroup({-(-group // 32) * 32})]] [[kernel]] void"
    assert write_text(kernel, EXAMPLES[kernel]).count(told) == has_plan


def test_integers_are_named_by_the_header() -> None:
    names = sources.integers("analysis.h", "AnalysisParameter")
    assert names[:3] == ("samples", "frames", "hop")
    assert "parameters" not in names
    with pytest.raises(ValueError, match="no enumeration Missing"):
        sources.integers("analysis.h", "Missing")


@pytest.mark.parametrize("name", HEADERS)
def test_headers_say_what_they_compute(name: str) -> None:
    """Grid, meaning in NumPy and limits, as far as a header has them."""
    comment = sources.source(name).partition("#pragma once")[0]
    assert comment.startswith("// ")
    if name != "element.h":
        assert "NumPy:" in comment
        assert "Limits:" in comment
    if name in ("analysis.h", "synthesis.h", "framing.h", "fft.h"):
        assert "Grid:" in comment


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.metal")), ids=lambda path: path.name)
def test_bodies_only_hand_over(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("// Inputs: ")
    assert not re.search(r"\b(for|while|if)\b", text.partition("\n")[2])
