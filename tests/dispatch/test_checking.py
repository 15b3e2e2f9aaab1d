"""What is due under ``auto``: results and gradients, until they were seen to be right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import torch_mlx_spectro as tms
from torch_mlx_spectro.backends.cpu.backend import CPU
from torch_mlx_spectro.dispatch import checking
from torch_mlx_spectro.dispatch import decide as deciding
from torch_mlx_spectro.dispatch import run as dispatching
from torch_mlx_spectro.dispatch.autotune import Trials
from torch_mlx_spectro.dispatch.plans import Plan
from torch_mlx_spectro.store import verdicts
from torch_mlx_spectro.store.verdicts import Store
from torch_mlx_spectro.verify.ledger import MAX_INCONCLUSIVE, VERIFIED

SIGNAL = torch.randn(1, 1 << 18, generator=torch.Generator().manual_seed(1))
WINDOW = torch.hann_window(1024)


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """Whether each call was decided for good; auto has chosen, and its verdicts are empty."""
    monkeypatch.delenv("TORCH_MLX_SPECTRO_VERIFY", raising=False)
    for pick in ("pick", "pick_both_ways"):
        monkeypatch.setattr(Trials, pick, lambda self, *given: (given[-1][0], False))
    monkeypatch.setattr(deciding, "LEAST_FRAMED", {"stft": 1, "istft": 1})
    store = Store(None, versions={})
    monkeypatch.setitem(verdicts._process, "store", store)
    found: list[bool] = []

    def keep(plan: Plan, *_: Any) -> None:
        found.append(plan.settled)

    monkeypatch.setattr(dispatching, "_keep", keep)
    deciding.ledger.clear()
    yield found
    deciding.ledger.clear()


def analysed(signal: torch.Tensor = SIGNAL, window: torch.Tensor = WINDOW) -> torch.Tensor:
    with tms.patch():
        spectrum: torch.Tensor = torch.stft(signal, 1024, 256, window=window, return_complex=True)
    return spectrum


def trained(signal: torch.Tensor = SIGNAL, window: torch.Tensor = WINDOW) -> None:
    analysed(signal, window).abs().square().sum().backward()


def leaf(tensor: torch.Tensor = SIGNAL) -> torch.Tensor:
    return tensor.clone().requires_grad_()


def counts() -> tuple[int, int, int]:
    stats = tms.stats()
    return stats.accelerated, stats.verified, stats.mismatches


def cases() -> list[str]:
    return sorted(text.partition("|")[0] for text in verdicts.store().sections().get(VERIFIED, {}))


def test_a_result_and_each_gradient_are_compared_once(settled: list[bool]) -> None:
    analysed()
    assert counts() == (1, 1, 0)
    trained(leaf())
    assert counts() == (2, 2, 0)
    trained(leaf(), leaf(WINDOW))
    assert counts() == (3, 4, 0)
    trained(leaf(), leaf(WINDOW))
    assert counts() == (4, 4, 0)
    assert settled == [True, False, False, True]
    assert cases() == [
        "gradient of stft in input",
        "gradient of stft in input, of input and window",
        "gradient of stft in window, of input and window",
        "stft",
    ]


def test_a_later_process_knows() -> None:
    trained(leaf())
    deciding.ledger.clear()
    tms.reset_stats()
    trained(leaf())
    assert counts() == (1, 0, 0)


def test_gradients_that_nobody_asks_for_are_not_waited_for(settled: list[bool]) -> None:
    for _ in range(MAX_INCONCLUSIVE + 1):
        analysed(leaf())
    assert settled == [False] * (MAX_INCONCLUSIVE - 1) + [True] * 2
    assert counts() == (MAX_INCONCLUSIVE + 1, 1, 0)
    assert cases() == ["stft"]


def test_a_gradient_of_nothing_tells_nothing() -> None:
    for _ in range(2):
        (analysed(leaf()) * 0).abs().sum().backward()
    assert counts() == (2, 3, 0)
    assert cases() == ["stft"]


def test_a_wrong_gradient_is_kept_for_later_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    right = CPU.adjoint
    monkeypatch.setattr(CPU, "adjoint", lambda *given: right(*given) * 1.001)
    with pytest.warns(RuntimeWarning, match="its gradient in input"):
        trained(leaf())
    assert counts() == (1, 2, 1)
    deciding.ledger.clear()
    analysed()  # in a later process, whether it is differentiated or not
    assert counts() == (1, 2, 1)
    ((reason, _),) = tms.stats().fallbacks.items()
    assert "in an earlier process" in reason


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_without_gradients_none_is_due(context: Callable[[], Any]) -> None:
    with context():
        analysed(leaf())
        analysed(leaf())
    assert counts() == (2, 1, 0)


def test_gradients_of_large_calls_are_not_compared(
    monkeypatch: pytest.MonkeyPatch, settled: list[bool]
) -> None:
    monkeypatch.setattr(checking, "MAX_COMPARED", 1)
    for _ in range(2):
        trained(leaf())
    assert counts() == (2, 1, 0)  # of the result, parts
    assert settled == [True, True]


def test_asked_for_by_name_nothing_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "CallChecks", None)
    with tms.patch("mlx", strict=True, verify=0):
        torch.stft(leaf(), 1024, 256, window=WINDOW, return_complex=True).abs().sum().backward()
    assert counts() == (1, 0, 0)
