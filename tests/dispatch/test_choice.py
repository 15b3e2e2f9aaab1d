"""Who may compute a call: choices, candidates, reasons, signatures."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import torch_mlx_spectro as tms
from torch_mlx_spectro.backends import registry
from torch_mlx_spectro.dispatch import choice as routing
from torch_mlx_spectro.dispatch.autotune import Race
from torch_mlx_spectro.dispatch.choice import Choice, current_choice, patched_choice
from torch_mlx_spectro.mlx import runtime


def test_the_innermost_choice_holds() -> None:
    assert patched_choice() == Choice("native")
    with tms.patch("mlx", strict=True):
        assert current_choice() == patched_choice() == Choice("mlx", True)
        with tms.backend("native"):
            assert current_choice() == patched_choice() == Choice("native")
            with tms.backend("auto", strict=True):
                assert patched_choice() == Choice("auto", True)
            assert patched_choice() == Choice("native")
        assert patched_choice() == Choice("mlx", True)
    assert patched_choice() == Choice("native")


def test_a_context_belongs_to_its_thread() -> None:
    seen = []
    with tms.backend("mlx", strict=True):
        thread = threading.Thread(target=lambda: seen.append(current_choice()))
        thread.start()
        thread.join()
    assert seen == [current_choice()]
    assert seen[0] != Choice("mlx", True)


def test_an_unknown_backend_is_named_with_the_known_ones() -> None:
    known = ", ".join(registry.names())
    with (
        pytest.raises(ValueError, match=f"one of auto, {known}; got 'cupy'"),
        tms.backend("cupy"),
    ):
        pass


def test_the_environments_backend_holds_for_a_patch_that_names_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TORCH_MLX_SPECTRO_BACKEND", "native")
    with tms.patch():
        assert patched_choice() == Choice("native")
    with tms.patch("mlx"):
        assert patched_choice() == Choice("mlx")


def test_every_reason_is_reported() -> None:
    signal = torch.zeros(8, dtype=torch.float64, requires_grad=True)
    window = torch.zeros(4, dtype=torch.float16)
    reasons = routing.unsupported_reasons((("input", signal), ("window", window)), "mlx")
    assert reasons == (
        "dtype torch.float64 of input is not accelerated",
        "dtype torch.float16 of window is not accelerated",
    )


def test_nothing_speaks_against_a_plain_call() -> None:
    assert routing.unsupported_reasons((("input", torch.zeros(8)), ("window", None)), "mlx") == ()


def test_environments_choice_is_the_last_one_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """backend() before patch() before the environment, which is read once."""
    monkeypatch.setattr(routing, "_default", routing._Default())
    monkeypatch.setenv("TORCH_MLX_SPECTRO_BACKEND", "mlx")
    assert current_choice() == Choice("mlx")
    assert patched_choice() == Choice("native")  # torch's own names are not ours unasked
    monkeypatch.setenv("TORCH_MLX_SPECTRO_BACKEND", "auto")
    assert current_choice() == Choice("mlx")
    assert routing.set_patched_choice(Choice("native", True)) is None
    assert current_choice() == patched_choice() == Choice("native", True)
    with tms.backend("auto"):
        assert current_choice() == patched_choice() == Choice("auto")
    assert routing.set_patched_choice(None) == Choice("native", True)
    assert current_choice() == Choice("mlx")


def test_a_context_ends_with_an_exception_too() -> None:
    before = current_choice()
    with pytest.raises(KeyError), tms.backend("mlx", strict=True):
        raise KeyError
    assert current_choice() == before


class SeesAll(TorchDispatchMode):
    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return func(*args, **(kwargs or {}))


def test_states_are_asked_before_both_tensors() -> None:
    sparse = torch.zeros(4).to_sparse()
    with SeesAll():
        reasons = routing.unsupported_reasons(
            (("input", torch.zeros(8)), ("window", sparse)), "mlx"
        )
    assert reasons == (
        "a TorchDispatchMode is active",
        "layout torch.sparse_coo of window is not accelerated",
    )


def test_missing_mlx_and_missing_gpu_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "unavailable_reason", lambda: None)
    monkeypatch.setattr(runtime, "has_gpu", lambda: False)
    assert routing.missing_reason("cpu", "mlx") is None
    assert "no GPU" in str(routing.missing_reason("mps", "mlx"))
    monkeypatch.setattr(runtime, "has_gpu", lambda: True)
    assert routing.missing_reason("mps", "mlx") is None
    monkeypatch.setattr(runtime, "unavailable_reason", lambda: "it is not here")
    assert (
        routing.missing_reason("cpu", "mlx")
        == routing.missing_reason("mps", "mlx")
        == "it is not here"
    )
    available = routing.available_backends()
    assert available["mlx"] == routing.Availability(False, "it is not here")
    assert available["native"].available


def test_explaining_does_not_load_mlx_for_what_is_not_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runtime, "unavailable_reason", lambda: pytest.fail("MLX was loaded"))
    assert routing.unsupported_reasons((("input", torch.zeros(8)),), "mlx") == ()


def test_who_competes_with_native() -> None:
    on_host = ("cpu", "mlx") if sys.platform == "darwin" else ("cpu",)
    for device, candidates in (
        ("cpu", on_host),
        ("mps", ("mps", "mlx")),
        ("xpu", on_host),
        ("cuda", ("cuda",)),
    ):
        assert routing.find_candidates(Choice("auto"), device) == candidates
        for name in registry.names():
            assert routing.find_candidates(Choice(name), device) == (name,)


def test_a_backend_asked_for_on_anothers_device_says_so() -> None:
    signal, window = torch.zeros(100), torch.ones(16)
    with tms.backend("cuda"):
        route = tms.explain("stft", signal, 16, window=window, return_complex=True)
    assert (route.backend, route.reasons[0]) == (
        "native",
        "device cpu of input is not accelerated",
    )
    with tms.backend("cuda", strict=True), pytest.raises(tms.NotAccelerated, match="device cpu"):
        tms.stft(signal, 16, window=window, return_complex=True)
    assert not routing.available_backends()["cuda"].available or torch.cuda.is_available()


def test_auto_prefers_mps_for_mps_tensors() -> None:
    """What comes from MLX crosses its queue, and is copied: where they tie, ``mps`` is chosen."""
    auto = routing.find_candidates(Choice("auto"), "mps")
    assert auto == ("mps", "mlx")
    for mlx, winner in ((1.0, "mps"), (0.91, "mps"), (0.5, "mlx")):
        known = {"native": 9.0, "mps": 1.0, "mlx": mlx}
        assert Race(known).find_winner(auto) == winner
