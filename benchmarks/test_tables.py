"""The tables of ``torch-mlx-spectro bench`` as a suite of pytest-benchmark: ``pytest benchmarks``.

The command times a backend and native torch in turn, which a suite cannot; this one has what
pytest-benchmark adds: its histograms, its storage, ``-k``.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import pytest
import torch

from torch_mlx_spectro.bench.cases import TABLES, Case, Workload
from torch_mlx_spectro.bench.measuring import make_clock
from torch_mlx_spectro.bench.programs import explain_absence
from torch_mlx_spectro.bench.running import AUTO, AUTO_WARM_UP, NATIVE, find_backends, make_side

DEVICE = "cuda" if torch.cuda.is_available() else "mps" if torch.mps.is_available() else "cpu"
BACKENDS = (NATIVE, *find_backends(DEVICE)[0])
ROUNDS = 20


@lru_cache(maxsize=1)
def workload(case: Case) -> Workload:
    """Made once for the tests of a case, which pytest runs one after the other."""
    return Workload(case, DEVICE)


def timings() -> Iterator[Any]:
    """Every operation on every case of every table, by native torch and all backends."""
    absent = explain_absence(TABLES)
    for name, table in TABLES.items():
        for case in table.cases if name not in absent else ():
            for operation in table.operations:
                for backend in BACKENDS:
                    words = name, operation, str(case), backend
                    yield pytest.param(case, operation, backend, id="-".join(words))


@pytest.mark.parametrize(("case", "operation", "backend"), list(timings()))
def test_time(benchmark: Any, case: Case, operation: str, backend: str) -> None:
    side, clock = make_side(backend, workload(case), operation), make_clock(DEVICE)
    benchmark.group = f"{operation}, {case}"
    numbers = iter(range(1_000_000))

    def call() -> None:
        side.call(next(numbers))
        clock.finish()

    with side.context():
        warm_up = AUTO_WARM_UP if backend == AUTO else 5
        benchmark.pedantic(call, rounds=ROUNDS, warmup_rounds=warm_up)


@pytest.mark.parametrize("case", TABLES["accuracy"].cases, ids=str)
@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_errors_are_no_larger_than_twice_natives(case: Case, backend: str) -> None:
    import torch_mlx_spectro as tms
    from torch_mlx_spectro.native import functions as native

    theirs = workload(case).measure_errors(native, NATIVE)
    with make_side(backend, workload(case), "stft").context():
        ours = workload(case).measure_errors(tms, backend)
    assert ours["round_trip"] <= 2 * theirs["round_trip"]
    assert ours["stft"] <= 2 * theirs["stft"]
    assert ours["istft"] <= 2 * theirs["istft"]
