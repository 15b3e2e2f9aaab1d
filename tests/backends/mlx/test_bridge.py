"""Crossing between torch and MLX: values, lifetimes, and the order of the two queues."""

from __future__ import annotations

import gc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from cli_process import python
from reference import random_tensor, runtime_of

from torch_mlx_spectro.backends.mlx import bridge
from torch_mlx_spectro.doctor import checks
from torch_mlx_spectro.mlx import host
from torch_mlx_spectro.mlx.runtime import runtime


def test_a_host_view_shares_memory_and_strides() -> None:
    tensor = random_tensor(0, 3, 8)[:, ::2]
    view = bridge.host_view(tensor)
    assert view.array.ctypes.data == tensor.data_ptr()
    assert view.array.strides == tuple(4 * stride for stride in tensor.stride())
    assert not view.unresolved


BITS = {
    "plain": lambda z: z,
    "conjugate": lambda z: z.conj(),
    "negative": lambda z: torch._neg_view(z),
    "both": lambda z: torch._neg_view(z.conj()),
    "negative imaginary part": lambda z: z.conj().imag,
}


@pytest.mark.parametrize("name", BITS)
def test_blocks_are_resolved_without_touching_the_tensor(name: str) -> None:
    base = random_tensor(1, 4, 6, complex_values=True)
    kept = base.clone()
    tensor = BITS[name](base)
    view = bridge.host_view(tensor)
    block = view.block(view.array[1:3])
    assert block.flags.c_contiguous
    np.testing.assert_array_equal(block, tensor[1:3].resolve_conj().resolve_neg().numpy())
    assert torch.equal(base, kept)


@pytest.mark.parametrize("size", [1, 1 << 20, (1 << 20) + 12345])
def test_results_are_torchs_own(size: int) -> None:
    result = bridge.empty_result((2, size), (size, 1), torch.float32)
    result.fill_(3.0)
    assert result.untyped_storage().resizable()
    assert result.resize_(2, size + 1).shape == (2, size + 1)


def test_advice_about_pages_is_whole_pages_inside_the_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[tuple[int, int, int]] = []

    def madvise(address: Any, length: Any, advice: int) -> None:
        given.append((address.value, length.value, advice))

    monkeypatch.setattr(host, "_MADV_HUGEPAGE", 14)
    monkeypatch.setattr(host.ctypes, "CDLL", lambda _: SimpleNamespace(madvise=madvise))
    page = 2 << 20
    host.advise_huge_pages(10 * page + 1, 3 * page)
    host.advise_huge_pages(10 * page + 1, page)
    assert given == [(11 * page, 2 * page, 14)]


CROSSING = {
    "contiguous": lambda t: t,
    "transposed": lambda t: t.mT,
    "expanded": lambda t: t[:1].expand(3, -1),
    "offset": lambda t: t[1:, 2:],
    "empty": lambda t: t[:0],
    "requires grad": lambda t: t.clone().requires_grad_(),
    "complex": lambda t: torch.complex(t, t + 1),
    "conjugate": lambda t: torch.complex(t, t + 1).conj(),
    "negative": lambda t: torch.complex(t, t + 1).conj().imag,
}


@pytest.mark.parametrize("name", CROSSING)
def test_values_survive_the_crossing(name: str) -> None:
    mx = runtime_of(1).mx
    tensor = CROSSING[name](random_tensor(2, 3, 5))
    borrowed = bridge.to_mlx(mx, tensor)
    back = bridge.to_torch(mx, borrowed.array, "cpu")
    assert back.dtype == tensor.dtype
    assert not back.requires_grad
    assert torch.equal(back, tensor.detach().resolve_conj().resolve_neg())


def test_an_imported_tensor_may_be_dropped() -> None:
    mx = runtime_of(1).mx
    tensor = torch.arange(100_000.0)
    borrowed = bridge.to_mlx(mx, tensor)
    assert borrowed.owner.data_ptr() == tensor.data_ptr()
    del tensor
    gc.collect()
    torch.full((100_000,), -1.0)
    assert bridge.to_torch(mx, borrowed.array, "cpu")[-1] == 99_999


class _OnMps:
    """Stands in for a contiguous MPS tensor: there is no such device here."""

    device = SimpleNamespace(type="mps")
    dtype = torch.float32

    def detach(self) -> _OnMps:
        return self

    resolve_conj = resolve_neg = detach

    def is_contiguous(self) -> bool:
        return True

    def numel(self) -> int:
        return 4


class _Lent:
    """Stands in for an MPS tensor in MLX's memory, which notes when it is copied and released."""

    def __init__(self, order: list[str]) -> None:
        self.order = order

    def clone(self) -> torch.Tensor:
        self.order.append("torch copies")
        return torch.zeros(4)

    def __del__(self) -> None:
        self.order.append("mlx has its memory back")


def test_each_queue_is_finished_before_the_other_side_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And MLX gets its memory back after the copy has run, which torch computes on from then on."""
    order: list[str] = []

    def note(name: str) -> Any:
        return lambda *_: order.append(name)

    def lend(_: Any) -> _Lent:
        order.append("torch reads")
        return _Lent(order)

    monkeypatch.setattr(torch.mps, "synchronize", note("torch finishes"))
    monkeypatch.setattr(torch.utils.dlpack, "from_dlpack", lend)
    mx = SimpleNamespace(from_dlpack=note("mlx reads"), eval=note("mlx finishes"))
    tensor: Any = _OnMps()
    assert bridge.to_mlx(mx, tensor).owner is tensor
    own = bridge.to_torch(mx, None, "mps")
    assert own.untyped_storage().resizable()
    there = ["torch finishes", "mlx reads"]
    back = ["mlx finishes", "torch reads", "torch copies", "torch finishes"]
    assert order == [*there, *back, "mlx has its memory back"]


@pytest.mark.parametrize("name", ["contiguous", "complex", "empty"])
def test_what_mlx_computed_for_mps_lies_in_memory_of_torchs(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.mps, "synchronize", lambda: None)
    mx = runtime_of(1).mx
    array = bridge.to_mlx(mx, CROSSING[name](random_tensor(2, 3, 5))).array
    lent, own = (bridge.to_torch(mx, array, device) for device in ("cpu", "mps"))
    assert own.untyped_storage().resizable()
    assert (own.shape, own.stride(), own.dtype) == (lent.shape, lent.stride(), lent.dtype)
    assert torch.equal(own, lent)
    own.add_(1)
    assert lent.numel() == 0 or not torch.equal(own, lent)


@pytest.mark.skipif(not torch.backends.mps.is_available(), reason="no MPS")
@pytest.mark.parametrize("backend", ["mlx", "mps"])
def test_on_mps_no_result_changes_while_torch_reads_it(backend: str) -> None:
    """Later commands of torch's on what was changed in place; memory that is given away early."""
    for _ in range(20):
        assert checks.find_disturbed(backend, "mps") == []


def test_viewing_a_tensor_leaves_it_resizable() -> None:
    """``tensor.numpy()`` forbids it for good, to the program's own tensor too."""
    signal, window = random_tensor(0, 30).clone(), torch.ones(8)
    bridge.host_view(signal)
    bridge.window_values(window)
    resizable = [tensor.untyped_storage().resizable() for tensor in (signal, window)]
    assert resizable == [True, True]


@pytest.mark.parametrize("offset", [0, 1, 4095, (2 << 20) - 1])
def test_real_advice_at_odd_addresses_keeps_the_memory_as_it_is(offset: int) -> None:
    tensor = torch.arange(3 << 20, dtype=torch.int32)
    host.advise_huge_pages(tensor.data_ptr() + offset, tensor.nbytes - offset)
    host.advise_huge_pages(tensor.data_ptr() + offset, 0)
    assert torch.equal(tensor, torch.arange(3 << 20, dtype=torch.int32))


def test_systems_without_the_advice_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_MADV_HUGEPAGE", None)
    monkeypatch.setattr(host.ctypes, "CDLL", None)
    assert bridge.empty_result((1 << 21,), (1,), torch.float32).shape == (1 << 21,)


@pytest.mark.parametrize("name", BITS)
def test_windows_are_resolved_and_contiguous(name: str) -> None:
    window = BITS[name](random_tensor(1, 24, complex_values=True))[::3]
    values = bridge.window_values(window)
    assert values is not None
    assert values.flags.c_contiguous
    np.testing.assert_array_equal(values, window.resolve_conj().resolve_neg().numpy())
    assert bridge.window_values(None) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_empty_tensors_keep_shape_and_kind(dtype: torch.dtype) -> None:
    mx = runtime_of(1).mx
    back = bridge.to_torch(mx, bridge.to_mlx(mx, torch.empty(3, 0, dtype=dtype)).array, "cpu")
    assert back.shape == (3, 0)
    assert back.dtype == dtype


@pytest.mark.parametrize("dtype", [np.float32, np.complex64, np.int64])
@pytest.mark.parametrize("shape", [(3, 4), (0, 4), (5,)])
def test_host_arrays_are_copied_in(dtype: Any, shape: tuple[int, ...]) -> None:
    mx = runtime().mx
    values = np.ones(shape, dtype)
    for given in (values, values[::-1], values.T):
        array = host.copy_to_mlx(mx, given)
        np.testing.assert_array_equal(np.asarray(array), given)
        assert np.asarray(array).dtype == dtype
    values += 1
    assert not np.any(np.asarray(host.copy_to_mlx(mx, values)) == 1)


INTERRUPTED_IMPORT = """\
import signal
import mlx.core as mx, numpy as np
from torch_mlx_spectro.mlx.host import copy_to_mlx

values, arrived = np.zeros(64, np.float32), False

def interrupt(number, frame):
    global arrived
    arrived = True
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)
for attempt in range(2000):
    arrived = False
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0003)
        while not arrived:
            copy_to_mlx(mx, values)
        raise SystemExit("an interrupt was lost")
    except KeyboardInterrupt:
        pass
"""


def test_an_interrupt_while_importing_is_not_lost(tmp_path: Path) -> None:
    finished = python("-c", INTERRUPTED_IMPORT, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
