"""Reports of bench as they would come of machines with noise, made without measuring."""

from __future__ import annotations

from itertools import chain

import numpy as np

from torch_mlx_spectro.bench.cases import PUBLISHED, STFT, Case, Table, describe_case
from torch_mlx_spectro.bench.measuring import compute_ratios, summarise
from torch_mlx_spectro.bench.schema import SCHEMA, VERSION, Report

#: One small case, to be measured in a moment.
TINY = Case(2, 1600, 64, 16)
TINY_TABLES = {"stft": Table("tiny", (STFT,), (TINY,)), "accuracy": Table("errors", (), (TINY,))}


def report(
    seed: int,
    slower: float = 0.0,
    *,
    samples: float = 0.05,
    passes: float = 0.03,
    run: float = 0.0,
    tables=PUBLISHED,
    slow_cells: int = 1,
    pauses: float = 0.1,
    counts: tuple[int, int] = (5, 4),
) -> Report:
    """A report of backends mlx and auto, each three times as fast as native.

    Args:
        seed: of the noise.
        slower: by how much the first ``slow_cells`` cells of mlx take longer.
        samples: relative deviation of single samples.
        passes: relative deviation of ratios from pass to pass.
        run: relative deviation of ratios from run to run, which no pass shows.
        tables: the cases.
        pauses: share of samples that are three times as long.
        counts: passes, and samples of each.
    """
    draw = np.random.default_rng(seed)
    timings = []
    cells = [(n, o, c) for n, t in tables.items() for c in t.cases for o in t.operations]
    for index, (name, operation, case) in enumerate(cells):
        base = 1e-9 * case.rows * case.samples
        taken = {}
        for backend in ("native", "mlx", "auto"):
            scale = base if backend == "native" else base / 3
            if backend == "mlx" and index < slow_cells:
                scale *= 1 + slower
            if backend != "native":
                scale *= np.exp(draw.normal(0, run)) if run else 1.0
            times = []
            for _ in range(counts[0]):
                here = scale * (1.0 if backend == "native" else np.exp(draw.normal(0, passes)))
                noise = np.exp(draw.normal(0, samples, counts[1]))
                outliers = np.where(draw.random(counts[1]) < pauses, 3.0, 1.0)
                times.append((here * noise * outliers).tolist())
            taken[backend] = times
        for backend, times in taken.items():
            of_native = list(chain(*compute_ratios(taken["native"], times)))
            timings.append(
                {
                    "table": name,
                    "operation": operation,
                    "case": describe_case(case),
                    "backend": backend,
                    "computed_by": [backend],
                    "batch": 1,
                    "passes": times,
                    "seconds": summarise(list(chain(*times))),
                    "ratio": None if backend == "native" else summarise(of_native),
                }
            )
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "package": "0.1.0",
        "machine": {
            "processor": "A processor",
            "cpus": 4,
            "threads": 4,
            "device": "cpu",
            "device_name": "A processor",
            "system": "Linux x86_64",
            "system_release": "6.1",
            "load": 0.1,
            "versions": {"torch": "2.13.0", "mlx": "0.32.4", "python": "3.11.7"},
        },
        "settings": {
            "backends": ["mlx", "auto"],
            "tables": list(tables),
            "passes": counts[0],
            "samples": counts[1],
            "warm_up": 5,
            "seconds_per_case": 30.0,
        },
        "timings": timings,
        "accuracy": [
            {
                "case": describe_case(case),
                "backend": name,
                "round_trip": 1e-6,
                "stft": 1e-5,
                "istft": 8e-7,
            }
            for case in PUBLISHED["accuracy"].cases
            for name in ("native", "mlx", "auto")
        ],
        "costs": [],
        "failures": [],
        "unavailable": {},
    }
