"""Two trees of this project on one GPU in one session: device times of the one over the other's.

python benchmarks/gpu_compare.py OLD NEW [--rounds 3]

Runs each tree's own ``benchmarks/gpu.py`` in turn; of the rounds the median counts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

#: A cell that is slower by more is marked.
ALLOWED = 1.03
TIMES = ("us", "wall", "stft", "istft", "istft backward", "stft backward")


def environment(tree: Path) -> dict[str, str]:
    paths = [str(tree), str(tree / "parity"), str(tree / "benchmarks")]
    paths += filter(None, [os.environ.get("PYTHONPATH")])  # behind: where other packages may lie
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def run_tree(tree: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Rows of one run, by case and map."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.json"
        command = [sys.executable, str(tree / "benchmarks" / "gpu.py"), "--json", str(path)]
        subprocess.run(command, check=True, env=environment(tree), stdout=subprocess.DEVNULL)
        rows = json.loads(path.read_text())["rows"]
    return {(row["case"], row["map"]): row for row in rows}


def show(key: tuple[str, str], time: str, runs: dict[str, list[Any]]) -> None:
    """Print one time of one cell."""
    new, old = (statistics.median(run[key][time] for run in runs[name]) for name in ("new", "old"))
    mark = " SLOWER" if new > ALLOWED * old and time != "wall" else ""
    if time == "us" and "error" in runs["new"][0][key]:
        errors = (f"{runs[name][0][key]['error']:.2e}" for name in ("new", "old"))
        mark += f"  error {' / '.join(errors)}"
    print(f"{key[0]:24} {key[1]:30} {time:14} {new:8.2f} / {old:8.2f} = {new / old:.3f}{mark}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    trees = {"old": options.old.resolve(), "new": options.new.resolve()}
    runs: dict[str, list[Any]] = {name: [] for name in trees}
    for turn in range(options.rounds):
        for name, tree in sorted(trees.items(), reverse=turn % 2 == 1):
            runs[name].append(run_tree(tree))
    for key, row in runs["new"][0].items():
        for time in TIMES:
            if isinstance(row.get(time), float):
                show(key, time, runs)


if __name__ == "__main__":
    main()
