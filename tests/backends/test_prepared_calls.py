"""Calls that come again: what a backend prepares computes them bit by bit as it did before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from computing import ROUTES, Computing, computing_by
from cuda_stand_in import Recorder, StandIn, recording, standing_in
from needs import ONCE_ONLY
from reference import istft_params, random_tensor, stft_params

from torch_mlx_spectro.backends.base import Backend, Prepared
from torch_mlx_spectro.backends.cpu.backend import CpuBackend
from torch_mlx_spectro.backends.cuda.backend import NOT_PREPARED
from torch_mlx_spectro.backends.device.backend import KernelBackend
from torch_mlx_spectro.calls.operation import Call
from torch_mlx_spectro.errors import KernelRefused, UnresolvedArguments
from torch_mlx_spectro.native import functions as native
from torch_mlx_spectro.native.strides import with_view

pytestmark = ONCE_ONLY
#: Makes a tensor of one layout, of other values for each seed.
Make = Callable[[int], torch.Tensor]


@pytest.fixture(params=ROUTES)
def any_backend(request: pytest.FixtureRequest, metal_cache: Path) -> Iterator[Backend]:
    with computing_by(request.param, metal_cache) as found:
        yield found.backend


@pytest.fixture(params=[route for route in ROUTES if route.id in ("mps-emulated", "cuda-stand-in")])
def computing(request: pytest.FixtureRequest, metal_cache: Path) -> Iterator[Computing]:
    with computing_by(request.param, metal_cache) as found:
        yield found
    assert found.launches


def compute(backend: Backend, op: str, tensor: torch.Tensor, window: Any, **given: Any) -> Any:
    """A call's parameters, and its result."""
    resolve: Any = {"stft": stft_params, "istft": istft_params}[op]
    params = resolve(tensor, window, **given)
    return params, getattr(backend, op)(params, tensor, window)


def prepare(
    backend: Backend, op: str, tensor: torch.Tensor, window: Any, **given: Any
) -> Prepared | None:
    """What is prepared by a call that has just been computed, with native's view."""
    params, result = compute(backend, op, tensor, window, **given)
    prepared = backend.prepare(Call(params, tensor, window), result)
    return None if prepared is None else with_view(params, prepared)


def signal(*shape: int, complex_values: bool = False) -> Make:
    return lambda seed: random_tensor(seed, *shape, complex_values=complex_values)


def spectrum(*shape: int) -> Make:
    return signal(*shape, complex_values=True)


def positive(length: int, step: int = 1, first: int = 0) -> Make:
    """A window whose envelope does not vanish."""
    return lambda seed: (random_tensor(seed + 50, first + step * length).abs() + 0.5)[first::step]


def complex_window(length: int) -> Make:
    return lambda seed: positive(length)(seed) * (1 + 0.5j)


#: Signals and windows, and what differs from a call of 16 and 5.
STFTS: dict[str, tuple[Make, Make | None, dict[str, Any]]] = {
    "one dimension": (signal(100), positive(16), {}),
    "batch": (signal(3, 100), positive(16), {}),
    "one row": (signal(1, 100), positive(16), {}),
    "one frame": (signal(2, 16), positive(16), {"center": False}),
    "pairs": (signal(3, 100), positive(16), {"return_complex": False}),
    "pairs of one dimension": (signal(100), positive(16), {"return_complex": False}),
    "two-sided": (signal(3, 100), positive(16), {"onesided": False}),
    "odd": (signal(3, 100), positive(15), {"n_fft": 15, "normalized": True}),
    "not centred": (signal(3, 100), positive(16), {"center": False}),
    "circular": (signal(3, 100), positive(9), {"win_length": 9, "pad_mode": "circular"}),
    "no window": (signal(3, 100), None, {}),
    "no window, short": (signal(100), None, {"win_length": 9}),
    "complex": (signal(3, 100, complex_values=True), positive(16), {}),
    "complex window": (signal(3, 100), complex_window(16), {"onesided": False}),
    "strided window": (signal(3, 100), positive(16, step=2), {}),
    "window at an odd place": (signal(3, 100), positive(16, first=1), {}),
    "signal at an odd place": (lambda seed: signal(101)(seed)[1:], positive(16), {}),
    "strided": (lambda seed: signal(3, 200)(seed)[:, ::2], positive(16), {}),
    "expanded": (lambda seed: signal(1, 100)(seed).expand(3, 100), positive(16), {}),
    "transposed": (lambda seed: signal(100, 3)(seed).t(), positive(16), {}),
}
ISTFTS: dict[str, tuple[Make, Make | None, dict[str, Any]]] = {
    "one dimension": (spectrum(9, 20), positive(16), {}),
    "one dimension with zeros behind it": (spectrum(9, 20), positive(16), {"length": 120}),
    "batch": (spectrum(3, 9, 20), positive(16), {}),
    "zeros behind it": (spectrum(3, 9, 20), positive(16), {"length": 120}),
    "shorter": (spectrum(3, 9, 20), positive(16), {"length": 60}),
    "one row": (spectrum(1, 9, 20), positive(16), {}),
    "one frame": (spectrum(2, 9, 1), positive(16), {"center": False}),
    "walked": (spectrum(2, 65, 40), positive(128), {"n_fft": 128, "hop_length": 32}),
    "two-sided": (spectrum(3, 16, 20), positive(16), {"onesided": False}),
    "complex": (
        *(spectrum(3, 16, 20), positive(16)),
        {"onesided": False, "return_complex": True},
    ),
    "complex window": (
        *(spectrum(3, 16, 20), complex_window(16)),
        {"onesided": False, "return_complex": True},
    ),
    "not centred": (spectrum(3, 9, 20), positive(16), {"center": False}),
    "normalized": (spectrum(3, 9, 20), positive(11), {"win_length": 11, "normalized": True}),
    "no window": (spectrum(3, 9, 20), None, {}),
    "no window, one dimension": (spectrum(9, 20), None, {}),
    "strided window": (spectrum(3, 9, 20), positive(16, step=2), {}),
    "bins fastest": (lambda seed: spectrum(3, 20, 9)(seed).mT, positive(16), {}),
    "strided": (lambda seed: spectrum(3, 9, 40)(seed)[..., ::2], positive(16), {}),
    "expanded": (lambda seed: spectrum(1, 9, 20)(seed).expand(3, 9, 20), positive(16), {}),
}
CALLS = [(op, name) for op, calls in (("stft", STFTS), ("istft", ISTFTS)) for name in calls]


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return (torch.view_as_real(tensor) if tensor.is_complex() else tensor).view(torch.int32)


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
@pytest.mark.parametrize(("op", "name"), CALLS)
def test_it_computes_what_was_computed_by_one_launch(
    computing: Computing, op: str, name: str, mode: Callable[[], Any]
) -> None:
    backend, launches = computing.backend, computing.launches
    assert launches is not None
    make, make_window, changes = {"stft": STFTS, "istft": ISTFTS}[op][name]
    given = {"n_fft": 16, "hop_length": 5, "return_complex": op == "stft", **changes}
    with mode():
        tensors = [
            (make(seed), None if make_window is None else make_window(seed)) for seed in range(3)
        ]
        prepared = prepare(backend, op, *tensors[0], **given)
        assert prepared is not None
        for tensor, window in tensors:
            before = len(launches)
            found = prepared(tensor, window)
            assert len(launches) == before + 1
            _, expected = compute(backend, op, tensor, window, **given)
            assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
            assert (found.stride(), found._is_view()) == (expected.stride(), expected._is_view())
            assert found.untyped_storage().nbytes() == expected.untyped_storage().nbytes()
            assert torch.equal(bits(found), bits(expected))
            kept = found.clone()
            assert torch.equal(bits(prepared(tensor, window)), bits(found))
            prepared(*tensors[0]).zero_()
            assert torch.equal(found, kept)  # each result has memory of its own


def misaligned(values: torch.Tensor) -> torch.Tensor:
    """Complex values that begin in the middle of where one could be."""
    memory = np.empty(values.numel() * 8 + 12, np.uint8)
    start = -memory.ctypes.data % 8 + 4
    there = memory[start : start + values.numel() * 8].view(np.complex64)
    there[:] = values.resolve_conj().numpy().ravel()
    return torch.from_numpy(there).view(values.shape)


def unprepared() -> Iterator[tuple[str, str, torch.Tensor, Any, dict[str, Any]]]:
    """Calls that take more than a launch on their tensors as they are."""
    x, z, window = signal(3, 100)(0), spectrum(3, 9, 20)(0), positive(16)(0)
    yield "no fused kernel", "stft", x, positive(22)(0), {"n_fft": 22}
    yield "no fused kernel", "istft", spectrum(3, 12, 20)(0), positive(22)(0), {"n_fft": 22}
    yield "conjugated", "istft", z.conj(), window, {}
    yield "negative", "stft", torch._neg_view(x), window, {}
    yield "negative window", "stft", x, torch._neg_view(window), {}
    yield "negative window", "istft", z, torch._neg_view(window), {}
    yield "between places", "stft", misaligned(z[0, 0].repeat(4)), window, {"onesided": False}
    yield "between places", "istft", misaligned(z), window, {}
    two_sided = {"onesided": False}
    yield "window between places", "stft", x, misaligned(complex_window(16)(0)), two_sided


@pytest.mark.parametrize(
    ("op", "tensor", "window", "changes"),
    [pytest.param(*call, id=f"{call[0]}-{name}") for name, *call in unprepared()],
)
def test_what_takes_more_than_a_launch_is_not_prepared(
    computing: Computing, op: str, tensor: torch.Tensor, window: Any, changes: dict[str, Any]
) -> None:
    given = {"n_fft": 16, "hop_length": 5, "return_complex": op == "stft", **changes}
    assert prepare(computing.backend, op, tensor, window, **given) is None
    # And by itself it is, so that the above is not for another reason.
    assert prepare(computing.backend, "stft", signal(3, 100)(0), positive(16)(0), n_fft=16)


def test_what_was_copied_into_another_order_is_not_prepared(computing: Computing) -> None:
    """As native lays a transposed signal's spectrum out, on the host only where it has MKL."""
    backend, x, window = computing.backend, signal(100, 3)(0).t(), positive(16)(0)
    params, result = compute(backend, "stft", x, window, n_fft=16, hop_length=5, center=False)
    is_usual = result.stride() == (params.frames * params.bins, 1, params.bins)
    assert not is_usual or (computing.name == "mps" and not torch.backends.mkl.is_available())
    assert (backend.prepare(Call(params, x, window), result) is None) != is_usual


def test_who_binds_no_launch_prepares_nothing(any_backend: Backend) -> None:
    prepared = prepare(any_backend, "stft", signal(3, 100)(0), positive(16)(0), n_fft=16)
    assert (prepared is not None) == isinstance(any_backend, (KernelBackend, CpuBackend))


ISTFT = {"n_fft": 16, "hop_length": 16}


def prepared_istft(backend: Backend) -> Prepared:
    prepared = prepare(backend, "istft", spectrum(2, 9, 12)(0), positive(16)(0), **ISTFT)
    assert prepared is not None
    return prepared


def test_a_vanishing_envelope_is_torchs_to_report(computing: Computing) -> None:
    prepared, z = prepared_istft(computing.backend), spectrum(2, 9, 12)(1)
    holes = torch.hann_window(16)
    for _ in range(2):  # it is asked each time
        with pytest.raises(UnresolvedArguments, match="vanishes"):
            prepared(z, holes)
        # The flag that told so tells nothing of the next call.
        fine = positive(16)(2)
        expected = native.istft(z, window=fine, **ISTFT)
        assert torch.allclose(prepared(z, fine), expected, atol=1e-5)
    # A window is judged anew when it has changed.
    fine.zero_()
    with pytest.raises(UnresolvedArguments, match="vanishes"):
        prepared(z, fine)


@pytest.mark.parametrize("op", ["stft", "istft"])
def test_changed_values_of_a_window_are_seen(computing: Computing, op: str) -> None:
    """Also those of a window that counts no versions, or was changed behind its version."""
    tensor = (signal(2, 100) if op == "stft" else spectrum(2, 9, 12))(0)
    given = {"n_fft": 16, "hop_length": 5, "return_complex": op == "stft"}
    window = positive(16)(0)
    prepared = prepare(computing.backend, op, tensor, window, **given)
    assert prepared is not None
    before, version = prepared(tensor, window), window._version
    window.data.mul_(2)
    assert window._version == version
    factor = 2.0 if op == "stft" else 0.5
    torch.testing.assert_close(prepared(tensor, window), before * factor)
    with torch.inference_mode():
        unversioned = positive(16)(0)
        for _ in range(2):
            assert torch.equal(bits(prepared(tensor, unversioned)), bits(before))
            unversioned.mul_(2)
            torch.testing.assert_close(prepared(tensor, unversioned), before * factor)
            unversioned.div_(2)


def test_only_the_first_call_by_a_window_waits() -> None:
    driver = Recorder()
    waited = []
    with standing_in(recording(driver)) as backend:
        prepared = prepared_istft(backend)
        backend.listen = lambda *given: waited.append(given) or 0
        z, window = spectrum(2, 9, 12)(0), positive(16)(1)
        for _ in range(3):
            prepared(z, window)
        assert len(waited) == 1
        window.mul_(2)
        prepared(z, window)
    assert len(waited) == 2
    assert len(driver.launched) == 5


def test_a_graph_records_only_what_nobody_waits_for() -> None:
    driver = Recorder()
    with standing_in(recording(driver)) as backend:
        prepared = prepared_istft(backend)
        without = prepare(backend, "istft", spectrum(9, 12)(0), None, **ISTFT)
        of_stft = prepare(backend, "stft", signal(2, 100)(0), positive(16)(0), n_fft=16)
        assert without is not None
        assert of_stft is not None
        z, known = spectrum(2, 9, 12)(0), positive(16)(1)
        prepared(z, known)
        backend.capturing = True
        launched = len(driver.launched)
        prepared(z, known)
        without(z[0], None)
        of_stft(signal(2, 100)(1), positive(16)(2))
        assert len(driver.launched) == launched + 3
        with pytest.raises(KernelRefused, match=NOT_PREPARED):
            prepared(z, positive(16)(2))
        assert len(driver.launched) == launched + 3
        backend.capturing = False
        prepared(z, positive(16)(2))


def test_a_call_is_launched_on_its_tensors_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever is the current one when it comes again."""
    driver, entered = Recorder(), list[Any]()

    @contextmanager
    def device(index: Any) -> Iterator[None]:
        entered.append(index)
        backend.current = True
        yield
        backend.current = False

    class Noting(StandIn):
        def make_allocator(self, like: torch.Tensor) -> Callable[[], torch.Tensor]:
            allocate = super().make_allocator(like)

            def allocate_here() -> torch.Tensor:
                assert self.current
                return allocate()

            return allocate_here

    monkeypatch.setattr(torch.cuda, "device", device)
    backend = Noting(recording(driver))
    x, window = signal(2, 100)(0), positive(16)(0)
    prepared = prepare(backend, "stft", x, window, n_fft=16)
    assert prepared is not None
    prepared(x, window)
    assert not entered
    backend.current = False
    prepared(x, window)
    assert entered == [x.device.index]
    assert not backend.current
    assert len(driver.launched) == 3
