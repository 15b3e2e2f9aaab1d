"""What a program can ask: backend(), available_backends(), explain(), stats(), NotAccelerated."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import inspect
import json
import logging
import pickle
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_process import python

import torch_mlx_spectro as tms
from torch_mlx_spectro.backends import registry

SIGNAL = torch.randn(200, generator=torch.Generator().manual_seed(5))
WINDOW = torch.hann_window(16)


def transform(function: Callable[..., Any] = tms.stft) -> None:
    function(SIGNAL, 16, window=WINDOW, return_complex=True)


def route(function: Any = tms.stft, signal: torch.Tensor = SIGNAL, **kwargs: Any) -> tms.Route:
    return tms.explain(function, signal, 16, window=WINDOW, return_complex=True, **kwargs)


def calls_of(action: Callable[[], Any]) -> dict[str, int]:
    """Backend to number of calls that ``action`` makes."""
    tms.reset_stats()
    action()
    return {backend: number for (_, backend), number in tms.stats().calls.items()}


def test_contexts_nest_and_end() -> None:
    with tms.backend("mlx", strict=True):
        assert calls_of(transform) == {"mlx": 1}
        with tms.backend("native"):
            assert calls_of(transform) == {"native": 1}
        assert calls_of(transform) == {"mlx": 1}
        with pytest.raises(ZeroDivisionError), tms.backend("native"):
            raise ZeroDivisionError
        assert calls_of(transform) == {"mlx": 1}
        with pytest.raises(tms.NotAccelerated):
            tms.stft(SIGNAL.double(), 16, window=WINDOW, return_complex=True)
        with tms.backend("mlx"):  # not strict any more
            tms.stft(SIGNAL.double(), 16, window=WINDOW, return_complex=True)
    assert calls_of(transform) == {"native": 1}  # auto: the call is small


def test_the_context_rules_torchs_functions_while_they_are_patched() -> None:
    with tms.patch(backend="native"), tms.backend("mlx"):
        assert calls_of(lambda: transform(torch.stft)) == {"mlx": 1}
    with tms.patch(backend="mlx"), tms.backend("native"):
        assert calls_of(lambda: transform(torch.stft)) == {"native": 1}
    with tms.backend("mlx"):
        assert calls_of(lambda: transform(torch.stft)) == {}


def test_an_unknown_backend_is_refused_and_the_known_are_named() -> None:
    with pytest.raises(ValueError, match=r"auto.*native.*mlx.*'metal'"), tms.backend("metal"):
        raise AssertionError("entered")


def test_threads_do_not_see_each_others_context() -> None:
    inside, outside = threading.Event(), threading.Event()
    routes: dict[str, str] = {}

    def chooses() -> None:
        with tms.backend("mlx"):
            inside.set()
            assert outside.wait(60)
            routes["chooses"] = route().backend

    def does_not() -> None:
        assert inside.wait(60)
        routes["does not"] = route().backend
        outside.set()

    threads = [threading.Thread(target=target) for target in (chooses, does_not)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert routes == {"chooses": "mlx", "does not": "native"}


def test_tasks_do_not_see_each_others_context() -> None:
    async def choose(name: str) -> str:
        with tms.backend(name):
            await asyncio.sleep(0)
            return route().backend

    async def both() -> list[str]:
        return list(await asyncio.gather(choose("mlx"), choose("native"), choose("mlx")))

    assert asyncio.run(both()) == ["mlx", "native", "mlx"]


def test_the_environment_chooses_where_nothing_else_does(tmp_path: Path) -> None:
    program = (
        "import torch, torch_mlx_spectro as tms\n"
        "tms.stft(torch.ones(64), 16, window=torch.ones(16), return_complex=True)\n"
        "print(dict(tms.stats().calls))"
    )
    variable = "TORCH_MLX_SPECTRO_BACKEND"
    for name in ("mlx", "native"):
        finished = python("-c", program, cwd=tmp_path, variables={variable: name})
        assert finished.stdout.strip() == str({("stft", name): 1}), finished.stderr
    finished = python("-c", program, cwd=tmp_path, variables={variable: "metal"})
    assert finished.returncode != 0
    assert "ValueError" in finished.stderr
    assert variable in finished.stderr


def test_backends_are_available_or_say_why_not() -> None:
    backends = tms.available_backends()
    assert tuple(backends) == registry.names()
    assert backends["native"] == backends["mlx"] == tms.Availability(True, "")
    for availability in backends.values():
        assert availability.available == (availability.reason == "")


@pytest.mark.parametrize("function", [torch.stft, tms.stft, "stft"], ids=["torch", "own", "name"])
def test_explain_names_the_route(function: Any) -> None:
    with tms.backend("mlx"):
        explained = route(function)
    assert (explained.op, explained.backend, explained.reasons) == ("stft", "mlx", ())
    assert explained.kernel.startswith("mlx cpu")
    with tms.backend("native"):
        explained = route(function)
    assert (explained.backend, explained.kernel) == ("native", "torch")
    assert explained.reasons != ()


def test_explain_gives_the_reasons_that_strict_mode_gives() -> None:
    call = {"window": WINDOW.double(), "return_complex": True}
    with tms.backend("mlx", strict=True):
        explained = tms.explain(tms.stft, SIGNAL.double(), 16, **call)
        with pytest.raises(tms.NotAccelerated) as refused:
            tms.stft(SIGNAL.double(), 16, **call)
    assert explained.backend == "native"
    assert explained.reasons == refused.value.reasons
    assert len(explained.reasons) == 2


def test_explain_knows_the_patched_functions_and_the_inverse() -> None:
    spectrum = torch.ones(9, 20, dtype=torch.complex64)
    with tms.patch(backend="mlx"):
        assert route(torch.stft).backend == "mlx"
        explained = tms.explain(torch.istft, spectrum, 16, window=WINDOW)
        assert (explained.op, explained.backend) == ("istft", "mlx")
        assert tms.explain("istft", spectrum, 15, window=WINDOW).backend == "native"
    with pytest.raises(ValueError, match="fft"):
        tms.explain(torch.fft.fft, SIGNAL)


def test_explain_computes_nothing() -> None:
    vast = torch.ones(1).expand(1 << 40)
    with tms.backend("mlx", strict=True), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tms.explain(tms.stft, vast, 16, return_complex=False).backend == "mlx"
        broken = tms.explain(tms.stft, vast, -3, window="none")
    assert broken.backend == "native"
    assert broken.reasons != ()
    stats = tms.stats()
    assert (stats.accelerated, stats.native, dict(stats.sites)) == (0, 0, {})


def test_calls_are_counted_by_route_and_reason() -> None:
    with tms.patch(backend="mlx"):
        for _ in range(3):
            transform(torch.stft)
        torch.istft(torch.ones(9, 20, dtype=torch.complex64), 16, window=WINDOW)
        for _ in range(2):
            torch.stft(SIGNAL.double(), 16, window=WINDOW, return_complex=True)
        with pytest.raises(RuntimeError):
            torch.stft(SIGNAL, 1000, window=WINDOW, return_complex=True)
    stats = tms.stats()
    assert (stats.accelerated, stats.native) == (4, 2)
    assert stats.calls == {("stft", "mlx"): 3, ("istft", "mlx"): 1, ("stft", "native"): 2}
    assert stats.fallbacks == {"dtype torch.float64 of input is not accelerated": 2}


def test_what_auto_gives_to_native_is_no_fallback() -> None:
    with tms.patch():
        transform(torch.stft)
    stats = tms.stats()
    assert (stats.accelerated, stats.native) == (0, 1)
    assert stats.fallbacks == {}


def test_sites_are_the_programs_lines() -> None:
    frame = inspect.currentframe()
    assert frame is not None
    with tms.patch(backend="mlx"):
        first = frame.f_lineno + 1
        torch.stft(SIGNAL, 16, window=WINDOW, return_complex=True)
        SIGNAL.stft(16, window=WINDOW, return_complex=True)
        for _ in range(2):
            torch.functional.stft(SIGNAL, 16, window=WINDOW, return_complex=True)
        SIGNAL.double().stft(16, window=WINDOW, return_complex=True)
        torch.ones(9, 20, dtype=torch.complex64).istft(16, window=WINDOW)
    lines = {
        first: {"accelerated": 1, "native": 0},
        first + 1: {"accelerated": 1, "native": 0},
        first + 3: {"accelerated": 2, "native": 0},
        first + 4: {"accelerated": 0, "native": 1},
        first + 5: {"accelerated": 1, "native": 0},
    }
    assert tms.stats().sites == {f"{__file__}:{line}": counts for line, counts in lines.items()}


def test_a_snapshot_stays_and_serialises() -> None:
    with tms.backend("mlx"):
        transform()
        before = tms.stats()
        kept = json.loads(json.dumps(before.as_dict()))
        transform()
    assert before.accelerated == 1
    assert before.calls == {("stft", "mlx"): 1}
    assert kept == before.as_dict()
    assert kept["calls"] == {"stft/mlx": 1}
    assert set(kept) == {field.name for field in dataclasses.fields(tms.Stats)}
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.accelerated = 0  # type: ignore[misc]
    with pytest.raises(TypeError):
        before.calls["stft", "mlx"] = 0  # type: ignore[index]
    assert tms.stats().accelerated == 2
    tms.reset_stats()
    assert tms.stats().as_dict() == {
        "accelerated": 0,
        "native": 0,
        "calls": {},
        "fallbacks": {},
        "choices": {},
        "sites": {},
        "verified": 0,
        "mismatches": 0,
        "refused": 0,
        "estimated": {},
        "left": [],
    }


@pytest.mark.parametrize("copied", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_the_refusal_carries_its_reasons(copied: Callable[[Any], Any]) -> None:
    with tms.backend("mlx", strict=True), pytest.raises(RuntimeError) as refused:
        tms.istft(torch.ones(9, 20, dtype=torch.complex128), 16, window=WINDOW)
    error = copied(refused.value)
    assert type(error) is tms.NotAccelerated
    assert error.op == "istft"
    assert error.reasons == ("dtype torch.complex128 of input is not accelerated",)
    assert all(part in str(error) for part in ("istft", *error.reasons))


def list_logged(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    """Return what was logged at a level since the last time, and forget it."""
    found = [record.getMessage() for record in caplog.records if record.levelno == level]
    caplog.clear()
    return found


def test_the_first_call_of_a_site_is_logged_and_each_decision(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "torch_mlx_spectro")
    frame = inspect.currentframe()
    assert frame is not None
    with tms.backend("cpu"):
        for _ in range(3):
            tms.stft(SIGNAL, 16, window=WINDOW, return_complex=True)
        line = frame.f_lineno - 1
        decided = [one.getMessage() for one in caplog.records if one.levelno == logging.DEBUG]
        assert list_logged(caplog, logging.INFO) == [f"torch.stft at {__file__}:{line}: cpu"]
        # Whatever has a plan is neither decided nor logged.
        assert len(decided) == 1
        assert decided[0].startswith("decided torch.stft of 1 rows, ")
        assert decided[0].endswith(": cpu (torch operations)")
        with tms.backend("mlx"):
            tms.stft(SIGNAL.double(), 16, window=WINDOW.double(), return_complex=True)
        (told,) = list_logged(caplog, logging.INFO)
        assert "native: dtype torch.float64 of input" in told


def test_small_and_refused_calls_are_logged_with_their_reasons(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "torch_mlx_spectro")
    for _ in range(2):
        tms.stft(SIGNAL, 16, window=WINDOW, return_complex=True)
    (told,) = list_logged(caplog, logging.INFO)
    assert told.endswith(": native: auto: too small to be faster on the CPU")
    with tms.backend("mlx", strict=True), pytest.raises(tms.NotAccelerated):
        tms.stft(SIGNAL.double(), 16, window=WINDOW.double(), return_complex=True)
    (told,) = list_logged(caplog, logging.INFO)
    assert ": refused: dtype torch.float64" in told


def test_a_program_without_logging_sees_nothing(tmp_path: Path) -> None:
    program = (
        "import torch, torch_mlx_spectro as tms\n"
        "with tms.backend('cpu'):\n"
        "    tms.stft(torch.ones(64), 16, window=torch.ones(16), return_complex=True)\n"
    )
    finished = python("-c", program, cwd=tmp_path)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "", "")
