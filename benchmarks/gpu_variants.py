"""Times other plans than the chosen ones, all of them in one run on one GPU.

python benchmarks/gpu_variants.py VARIANTS [--json FILE]

VARIANTS is a JSON list of objects with ``case`` (its number in gpu.py, from 1), ``map`` ("stft",
"istft" or "istft bins"), and any of ``radices``, ``threads``, ``frames``, ``half``, ``run``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from gpu import (
    CASES,
    Case,
    Data,
    Row,
    analysis_params,
    make_call,
    synthesis_params,
)
from gpu_timing import by_graph, error

from torch_mlx_spectro.backends.cuda.launcher import cuda_kernels
from torch_mlx_spectro.kernels import describe
from torch_mlx_spectro.kernels.walks import WalkPlan, walk_plan


def variant_of(entry: Row) -> tuple[Case, describe.Launch]:
    """The launch of a variant."""
    case = CASES[entry["case"] - 1]
    given = {key: entry[key] for key in ("radices", "threads", "frames", "half") if key in entry}
    if "radices" in given:
        given["radices"] = tuple(given["radices"])
    if entry["map"] == "stft":
        params = analysis_params(case)
        chosen = describe.list_analyses(params, False, False)[0].plan
        assert chosen is not None
        plan = replace(chosen, **given)
        return case, describe._analysis(params, plan, True, False, False, None, None)
    width = 2 if case.hop % 2 == 0 and case.samples % 2 == 0 else 1
    fastest = entry["map"] == "istft bins"
    walk = walk_plan(case.n_fft // 2, case.hop, width, fastest, True)
    assert walk is not None
    walk = WalkPlan(replace(walk.fft, **given), walk.hop, walk.width)
    return case, describe.walk(synthesis_params(case), walk, fastest, run=entry.get("run"))


def timed_variants(entries: list[Row]) -> Iterator[Row]:
    """Compiles all of them side by side, then compares and times each."""
    kernels = cuda_kernels()
    made = [variant_of(entry) for entry in entries]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda pair: kernels.prepare_launch(pair[1], 0, (0, 0, 0)), made))
    for entry, (case, launch) in zip(entries, made, strict=True):
        data = Data(case)
        name: str = entry["map"]
        inputs = data.inputs(name)
        call, results = make_call(data, name, launch, inputs)
        call(0)
        count = data.sets * max(1, 40 // data.sets)
        yield {
            **entry,
            "error": error(results[0], data.exact(name, inputs[0])),
            "us": by_graph(call, count, data.sets),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("variants", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    for row in timed_variants(json.loads(options.variants.read_text())):
        print(row, flush=True)
        rows.append(row)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
