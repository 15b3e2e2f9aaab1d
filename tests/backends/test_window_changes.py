"""Windows whose values change and leave no trace: every backend reads them in every call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import metal
import pytest
import torch
from cuda_stand_in import Emulated, standing_in
from needs import needs_emulator, needs_mlx
from window_changes import HOST_CHANGES, LAYOUTS, by_broadcast

import torch_mlx_spectro as tms
from torch_mlx_spectro.native import functions as native

HOST = torch.device("cpu")
HOP, FRAMES, SAMPLES = 5, 9, 90
#: Of a fused kernel that walks, of a general one, and of none.
SIZES = (64, 15, 22)
Function = Callable[..., torch.Tensor]


BACKENDS = [
    "cpu",
    pytest.param("mlx in blocks", marks=needs_mlx),
    *(pytest.param(name, marks=needs_emulator) for name in ("mlx kernels", "mps", "cuda")),
]


@pytest.fixture(params=BACKENDS)
def namespace(request: pytest.FixtureRequest, metal_cache: Path) -> Iterator[Any]:
    with ExitStack() as stack:
        if request.param == "cuda":
            stack.enter_context(standing_in(Emulated(metal_cache)))
            stack.enter_context(tms.backend("cuda", strict=True))
        elif request.param in ("cpu", "mlx in blocks"):
            name = request.param.partition(" ")[0]
            stack.enter_context(tms.backend(name, strict=True))
        else:
            name = request.param.partition(" ")[0]
            once = {"checked": False, "orders": ("ascending",)}
            stack.enter_context(metal.emulated(metal_cache, backend=name, **once))
            stack.enter_context(tms.backend(name, strict=True))
        yield tms


def computed(
    namespace: Any, n: int, window: torch.Tensor, *, wide: bool = False
) -> list[torch.Tensor]:
    """Both functions, and the gradients of what they compute, by one window."""
    generator = torch.Generator().manual_seed(0)
    is_complex = window.is_complex()
    bins = n if is_complex else n // 2 + 1
    x = torch.randn(2, SAMPLES, generator=generator)
    z = torch.randn(2, bins, FRAMES, dtype=torch.complex64, generator=generator)
    if wide:
        x, z = x.double(), z.to(torch.complex128)
        window = window.to(torch.complex128 if is_complex else torch.float64)
    sizes = (n, HOP, len(window), window)
    found = []
    for name, leaf, more in (
        ("stft", x.requires_grad_(), {"normalized": True, "return_complex": True}),
        ("stft", x, {"return_complex": True}),
        ("istft", z.requires_grad_(), {"return_complex": is_complex, "center": True}),
    ):
        result = getattr(namespace, name)(leaf, *sizes, **more)
        seed = torch.linspace(-1, 1, result.numel()).view(result.shape).to(result.dtype)
        found += [result.detach(), torch.autograd.grad(result, leaf, seed)[0]]
        with torch.no_grad():
            found.append(getattr(namespace, name)(leaf, *sizes, **more))
    return found


def check_change(
    namespace: Any, n: int, window: torch.Tensor, change: Callable[[torch.Tensor], None]
) -> None:
    for _ in range(2):  # when it is decided, and when it is known
        computed(namespace, n, window)
    before, version = window.clone(), window._version
    change(window)
    assert window._version == version
    assert not torch.equal(window, before)
    found = computed(namespace, n, window)
    expected, exact = computed(native, n, window), computed(native, n, window, wide=True)
    for ours, theirs, truth in zip(found, expected, exact, strict=True):
        own = (theirs - truth).abs().max()
        assert (ours - truth).abs().max() <= 2 * own + 2e-6 * truth.abs().max()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("change", HOST_CHANGES)
def test_changes_that_no_version_tells_are_seen(namespace: Any, change: str, layout: str) -> None:
    for n in SIZES if change == "data" else SIZES[:1]:
        check_change(namespace, n, LAYOUTS[layout](n, HOST), HOST_CHANGES[change])


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="torch without gloo")
def test_what_another_process_sends_is_seen(namespace: Any) -> None:
    check_change(namespace, SIZES[0], LAYOUTS["whole"](SIZES[0], HOST), by_broadcast)
