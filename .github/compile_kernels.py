"""Compile every Metal text of a folder with Xcode's compiler, which needs no GPU.

    python .github/compile_kernels.py FOLDER REPORT.json

``torch-mlx-spectro doctor --write-kernels FOLDER`` writes the texts. The report has, for each
standard, how many compiled, and the first lines of what the compiler said of the others. The exit
code is 0 when all compiled in every standard that this compiler knows, and 1 otherwise.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

STANDARDS = ("metal3.1", "metal3.2", "metal4.0")
COMPILER = ("xcrun", "-sdk", "macosx", "metal")
#: Of any text; a standard that does not compile it is one that the compiler does not know.
EMPTY = "#include <metal_stdlib>\n[[kernel]] void empty() {}\n"
MOST_LINES, MOST_TEXTS = 12, 40
SECONDS = 300


def compile_text(path: Path, standard: str, includes: list[str]) -> str:
    """Compile one text, and return what the compiler said if it refuses it, else nothing."""
    command = [*COMPILER, f"-std={standard}", "-c", str(path), "-o", os.devnull, *includes]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode == 0:
        return ""
    return "\n".join(done.stderr.splitlines()[:MOST_LINES]) or f"exit code {done.returncode}"


def compile_all(texts: list[Path], standard: str, includes: list[str]) -> dict[str, Any]:
    """Compile all texts in one standard."""
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder) / "empty.metal"
        empty.write_text(EMPTY, encoding="ascii")
        unknown = compile_text(empty, standard, [])
    if unknown:
        return {"known": False, "compiler": unknown, "compiled": 0, "refused": {}}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        said = list(pool.map(lambda path: compile_text(path, standard, includes), texts))
    refused = {path.name: text for path, text in zip(texts, said, strict=True) if text}
    return {
        "known": True,
        "compiled": len(texts) - len(refused),
        "count_refused": len(refused),
        "refused": dict(list(refused.items())[:MOST_TEXTS]),
    }


def find_includes() -> list[str]:
    """Return the option for the headers in MLX's wheel, which its texts include."""
    found = importlib.util.find_spec("mlx")
    folders = [] if found is None else list(found.submodule_search_locations or ())
    return [f"-I{folder}/include" for folder in folders]


def main(folder: str, report: str) -> int:
    """Compile a folder's texts, write the report and print a summary."""
    texts = sorted(Path(folder).glob("*.metal"))
    includes = find_includes()
    found = {standard: compile_all(texts, standard, includes) for standard in STANDARDS}
    Path(report).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    known = {standard: one for standard, one in found.items() if one["known"]}
    for standard, one in found.items():
        if standard in known:
            print(f"{standard}: {one['compiled']} of {len(texts)} compile")
        else:
            print(f"{standard}: this compiler does not know it")
        for name, text in one["refused"].items():
            print(f"--- {name}\n{text}")
    fine = all(one["compiled"] == len(texts) for one in known.values())
    return 0 if texts and known and fine else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
