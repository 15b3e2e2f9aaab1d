"""patch() and unpatch(): what is replaced, and that it is restored exactly."""

from __future__ import annotations

import copy
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import torch

import torch_mlx_spectro as tms

#: torch's own functions, out of patch()'s reach: it rebinds the globals of modules.
OWN: dict[str, Callable[..., Any]] = {"stft": torch.stft, "istft": torch.istft}

SIGNAL = torch.randn(200, generator=torch.Generator().manual_seed(3))
WINDOW = torch.hann_window(16)


def transform(function: Callable[..., Any]) -> torch.Tensor:
    result: torch.Tensor = function(SIGNAL, 16, window=WINDOW, return_complex=True)
    return result


def is_torchs_own() -> bool:
    return all(
        getattr(module, name) is function
        for module in (torch, torch.functional)
        for name, function in OWN.items()
    )


def is_replaced() -> bool:
    """Every public name holds one replacement, under the name of torch's own."""
    return all(
        getattr(torch, name) is getattr(torch.functional, name)
        and getattr(torch, name) is not function
        and getattr(torch, name).__name__ == name
        for name, function in OWN.items()
    )


def test_patch_replaces_every_public_name_and_unpatch_restores_it() -> None:
    assert is_torchs_own()
    tms.patch(backend="mlx", strict=True)
    assert tms.is_patched()
    assert is_replaced()
    tms.unpatch()
    assert not tms.is_patched()
    assert is_torchs_own()


def test_patching_twice_is_patching_once() -> None:
    tms.patch(backend="mlx")
    patched = torch.stft
    tms.patch(backend="mlx")
    assert torch.stft is patched
    tms.unpatch()
    assert is_torchs_own()
    tms.unpatch()
    assert is_torchs_own()


def test_patching_again_changes_what_was_asked_for() -> None:
    with tms.patch(backend="native"):
        transform(torch.stft)
        assert tms.stats().calls == {("stft", "native"): 1}
        tms.patch(backend="mlx", strict=True)
        transform(torch.stft)
        assert tms.stats().calls == {("stft", "native"): 1, ("stft", "mlx"): 1}
        with pytest.raises(tms.NotAccelerated):
            transform(lambda x, *args, **kwargs: torch.stft(x.double(), *args, **kwargs))
    assert is_torchs_own()


def test_the_context_restores_what_was_before() -> None:
    with tms.patch(backend="mlx", strict=True) as outer:
        assert isinstance(outer, tms.Patch)
        with tms.patch(backend="native"):
            transform(torch.stft)
        assert is_replaced()
        assert tms.stats().calls == {("stft", "native"): 1}
        transform(torch.stft)
        assert tms.stats().calls[("stft", "mlx")] == 1
        with pytest.raises(tms.NotAccelerated):
            torch.stft(SIGNAL.double(), 16, window=WINDOW, return_complex=True)
    assert is_torchs_own()


def test_the_context_restores_after_an_exception() -> None:
    with pytest.raises(ZeroDivisionError), tms.patch(backend="mlx"):
        raise ZeroDivisionError
    assert is_torchs_own()


def test_unpatching_inside_the_context_is_no_error() -> None:
    with tms.patch(backend="mlx"):
        tms.unpatch()
        assert is_torchs_own()
    assert is_torchs_own()
    assert not tms.is_patched()


def test_an_unknown_backend_is_refused_and_the_known_are_named() -> None:
    for refused in (lambda: tms.patch(backend="metal"), lambda: tms.patch(backend="")):
        with pytest.raises(ValueError, match=r"auto.*native.*mlx"):
            refused()
        assert is_torchs_own()
        assert not tms.is_patched()
    with tms.patch(backend="mlx"):
        with pytest.raises(ValueError, match="metal"):
            tms.patch(backend="metal")
        transform(torch.stft)
        assert tms.stats().accelerated == 1


@pytest.fixture
def other_partys_stft() -> Iterator[Callable[..., Any]]:
    def stft(*args: Any, **kwargs: Any) -> Any:
        return stft.inner(*args, **kwargs)  # type: ignore[attr-defined]

    stft.inner = OWN["stft"]  # type: ignore[attr-defined]
    yield stft
    torch.stft = OWN["stft"]
    torch.functional.stft = OWN["stft"]


def test_a_later_patch_of_another_party_is_left_alone(
    other_partys_stft: Callable[..., Any],
) -> None:
    tms.patch(backend="mlx")
    other_partys_stft.inner = torch.stft  # type: ignore[attr-defined]
    torch.stft = other_partys_stft
    transform(torch.stft)
    assert tms.stats().accelerated == 1
    tms.unpatch()
    assert torch.stft is other_partys_stft
    assert torch.functional.stft is OWN["stft"]
    assert torch.istft is OWN["istft"]
    # It has kept our function, which is torch's now.
    tms.reset_stats()
    assert torch.equal(transform(torch.stft), transform(OWN["stft"]))
    assert tms.stats().accelerated == 0


def test_an_earlier_patch_of_another_party_is_left_alone_and_told(
    other_partys_stft: Callable[..., Any],
) -> None:
    torch.stft = other_partys_stft
    with pytest.warns(RuntimeWarning, match="left in place") as told:
        tms.patch(backend="mlx")
    assert told[0].filename == __file__
    assert torch.stft is other_partys_stft
    assert torch.istft is not OWN["istft"]
    tms.unpatch()
    assert torch.stft is other_partys_stft
    assert torch.istft is OWN["istft"]


@pytest.fixture
def library() -> Iterator[ModuleType]:
    """A loaded module that imported torch's functions by name before any patch."""
    module = ModuleType("library_that_imports_by_name")
    exec("from torch import stft, istft as inverse\nfrom torch.functional import *", vars(module))
    sys.modules[module.__name__] = module
    yield module
    del sys.modules[module.__name__]


def test_names_imported_earlier_are_rebound_and_restored(library: ModuleType) -> None:
    names = dict(vars(library))
    assert library.stft is OWN["stft"]
    with tms.patch(backend="mlx", strict=True):
        assert library.stft is torch.stft
        assert library.inverse is library.istft is torch.istft
        spectrum = transform(library.stft)
        library.inverse(spectrum, 16, window=WINDOW)
        assert tms.stats().calls == {("stft", "mlx"): 1, ("istft", "mlx"): 1}
    assert vars(library) == names
    assert library.stft is OWN["stft"]
    assert library.inverse is OWN["istft"]


def test_names_imported_while_patched_are_restored(library: ModuleType) -> None:
    with tms.patch(backend="mlx"):
        exec("from torch import stft as later", vars(library))
        assert library.later is torch.stft
        kept = torch.stft
    assert library.later is OWN["stft"]
    # What no module's name holds cannot be restored, but computes natively.
    assert torch.equal(transform(kept), transform(OWN["stft"]))
    assert tms.stats().accelerated == 0


class Front(torch.nn.Module):
    """A module that holds torch.stft, as many front ends do."""

    def __init__(self) -> None:
        super().__init__()
        self.transform = torch.stft
        self.register_buffer("window", WINDOW.clone())

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.transform(signal, 16, window=self.window, return_complex=True)
        return result


@pytest.mark.parametrize("name", ["stft", "istft"])
def test_functions_pickle_as_torchs_own(name: str) -> None:
    with tms.patch(backend="mlx"):
        pickled = pickle.dumps(getattr(torch, name))
        assert pickle.loads(pickled) is getattr(torch, name)
        assert copy.deepcopy(getattr(torch, name)) is getattr(torch, name)
    assert pickle.loads(pickled) is OWN[name]


def test_modules_that_hold_a_function_copy_and_pickle() -> None:
    expected = Front()(SIGNAL)
    with tms.patch(backend="mlx", strict=True):
        front = Front()
        copied = copy.deepcopy(front)
        pickled = pickle.dumps(front)
        loaded = pickle.loads(pickled)
        for module in (front, copied, loaded):
            torch.testing.assert_close(module(SIGNAL), expected)
        assert tms.stats().accelerated == 3
    later = pickle.loads(pickled)
    assert later.transform is OWN["stft"]
    for module in (front, copied, loaded, later):
        assert torch.equal(module(SIGNAL), expected)
    assert tms.stats().accelerated == 3


def test_a_module_pickled_natively_is_accelerated_where_it_is_loaded() -> None:
    pickled = pickle.dumps(Front())
    with tms.patch(backend="mlx", strict=True):
        pickle.loads(pickled)(SIGNAL)
    assert tms.stats().accelerated == 1


def test_the_tensor_methods_and_documentation_are_torchs() -> None:
    methods = torch.Tensor.stft, torch.Tensor.istft
    with tms.patch(backend="mlx"):
        assert (torch.Tensor.stft, torch.Tensor.istft) == methods
        for name, own in OWN.items():
            assert getattr(torch, name).__doc__ == own.__doc__
    assert (torch.Tensor.stft, torch.Tensor.istft) == methods


def test_concurrent_patching_ends_in_one_state() -> None:
    barrier = threading.Barrier(8)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(5):
                barrier.wait()
                tms.patch(backend="mlx", strict=True)
                transform(torch.stft)
                barrier.wait()
                tms.unpatch()
        except BaseException as error:
            failures.append(error)
            barrier.abort()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert is_torchs_own()
    assert not tms.is_patched()
    assert tms.stats().calls == {("stft", "mlx"): 40}
