"""The kernels' text: complete, each part once, and documented as promised."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from checkout import METAL_SRC as FOLDER

from torch_mlx_spectro.kernels.texts.metal import header
from torch_mlx_spectro.store import sources

#: Of all launchers; cuda.h stands in front of them for one.
HEADERS = sorted(path.name for path in FOLDER.glob("*.h") if path.name != "cuda.h")


def test_headers_are_in_line_once_and_after_what_they_include() -> None:
    text = header("framing.h", "element.h", "analysis.h")
    assert "#include" not in text
    assert "#pragma once" not in text
    for name in HEADERS:
        body = re.sub(r"^#(include|pragma once).*\n", "", sources.source(name), flags=re.MULTILINE)
        assert text.count(body.strip()) == 1, name
    assert text.index("struct Radix;") < text.index("struct Plan {") < text.index("struct Packed ")


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
