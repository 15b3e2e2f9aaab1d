"""patch() and unpatch(): what is replaced, and that it is restored exactly."""

from __future__ import annotations

import copy
import importlib.util
import itertools
import pickle
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
import torch
from cli_process import python
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import torch_mlx_spectro as tms
from torch_mlx_spectro import patching
from torch_mlx_spectro.backends.cuda.backend import CUDA
from torch_mlx_spectro.dispatch import choice as routing

#: torch's own functions.
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


@pytest.fixture
def library() -> Iterator[ModuleType]:
    """A loaded module that imported torch's functions by name before any patch."""
    module = ModuleType("library_that_imports_by_name")
    exec("from torch import stft, istft\nfrom torch.functional import *", vars(module))
    sys.modules[module.__name__] = module
    yield module
    del sys.modules[module.__name__]


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


def test_patching_for_every_call_keeps_nothing_of_it() -> None:
    for _ in range(100):
        tms.patch(backend="native")
        tms.patch(backend="mlx")
    assert len(patching._state.scopes) == 2
    with tms.patch(backend="native"):
        pass
    transform(torch.stft)
    assert tms.stats().calls == {("stft", "mlx"): 1}
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


def test_a_scope_may_end_often_be_entered_again_and_outlive_unpatching() -> None:
    scope = tms.patch(backend="mlx", strict=True)
    assert is_replaced()
    for _ in range(2):
        with scope, scope:
            assert is_replaced()
        assert is_torchs_own()
        scope.__exit__(None, None, None)
        assert is_torchs_own()
    late = tms.patch(backend="mlx")
    tms.unpatch()
    with late:
        transform(torch.stft)
        tms.unpatch()
        with tms.patch(backend="native"):
            late.__exit__(None, None, None)
            assert is_replaced()
    assert is_torchs_own()
    assert tms.stats().calls == {("stft", "mlx"): 1}


@pytest.mark.parametrize("first_ends", ["first", "second"])
def test_scopes_of_two_threads_may_overlap(first_ends: str) -> None:
    """Whichever ends first, the other holds on; and after both torch has its own."""
    entered, may_end = threading.Event(), threading.Event()

    def second() -> None:
        with tms.patch(backend="mlx", strict=True):
            entered.set()
            assert may_end.wait(60)
            if first_ends == "first":
                transform(torch.stft)

    thread = threading.Thread(target=second)
    with tms.patch(backend="mlx", strict=True):
        thread.start()
        assert entered.wait(60)
        if first_ends == "second":
            may_end.set()
            thread.join()
            transform(torch.stft)
    if first_ends == "first":
        assert is_replaced()
        may_end.set()
        thread.join()
    assert tms.stats().calls == {("stft", "mlx"): 1}
    assert is_torchs_own()
    assert not tms.is_patched()


class Scopes(RuleBasedStateMachine):
    """Scopes that begin and end in any order, beside a list of what should be in force."""

    BACKENDS = ("native", "mlx", "auto")

    def __init__(self) -> None:
        super().__init__()
        self.patches: list[tuple[tms.Patch, str]] = []
        #: Index of the patch (None: nobody holds it), its backend, whether it was entered.
        self.active: list[tuple[int | None, str, bool]] = []

    @rule(backend=st.sampled_from(BACKENDS), strict=st.booleans())
    def patch(self, backend: str, strict: bool) -> None:
        self.patches.append((tms.patch(backend, strict=strict), backend))
        self.active.append((len(self.patches) - 1, backend, False))

    @rule(backend=st.sampled_from(BACKENDS))
    def patch_for_good(self, backend: str) -> None:
        tms.patch(backend)
        self.active.append((None, backend, False))

    @precondition(lambda self: self.patches)
    @rule(data=st.data())
    def enter(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.patches) - 1))
        patch, backend = self.patches[index]
        assert patch.__enter__() is patch
        waiting = (index, backend, False)
        if waiting in self.active:
            self.active[self.active.index(waiting)] = (index, backend, True)
        else:
            self.active.append((index, backend, True))

    @precondition(lambda self: self.patches)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.patches) - 1))
        self.patches[index][0].__exit__(None, None, None)
        places = [place for place, scope in enumerate(self.active) if scope[0] == index]
        if places:
            del self.active[places[-1]]
            while len(self.active) > places[-1] and not self.active[places[-1]][2]:
                del self.active[places[-1]]

    @rule()
    def unpatch(self) -> None:
        tms.unpatch()
        self.active = []

    @invariant()
    def holds(self) -> None:
        assert tms.is_patched() == bool(self.active)
        assert is_replaced() if self.active else is_torchs_own()
        held = routing.patched_choice().backend
        assert held == (self.active[-1][1] if self.active else "native")

    def teardown(self) -> None:
        tms.unpatch()
        assert is_torchs_own()


Scopes.TestCase.settings = hypothesis.settings(
    max_examples=25,
    stateful_step_count=20,
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],  # shrinking takes minutes
)
TestScopes = Scopes.TestCase


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
@pytest.mark.parametrize("step", range(1, 6))
@pytest.mark.parametrize("during", ["patch", "enter", "exit", "unpatch"])
def test_an_interrupt_leaves_nothing_half_patched(
    library: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
    step: int,
    during: str,
) -> None:
    """At each step of replacing and restoring: a beginning is undone, and an end is an end."""
    names = dict(vars(library))
    right, steps = patching._rebind, itertools.count(1)

    def interrupted(*args: Any, **kwargs: Any) -> None:
        if next(steps) == step:
            raise error
        right(*args, **kwargs)

    patch = tms.patch(backend="mlx")
    if during in ("patch", "enter"):
        tms.unpatch()
    actions: dict[str, Callable[[], Any]] = {
        "patch": tms.patch,
        "enter": patch.__enter__,
        "exit": lambda: patch.__exit__(None, None, None),
        "unpatch": tms.unpatch,
    }
    monkeypatch.setattr(patching, "_rebind", interrupted)
    if step <= 3:
        with pytest.raises(error):
            actions[during]()
        assert not tms.is_patched()
    else:
        actions[during]()
    monkeypatch.undo()
    tms.unpatch()
    assert is_torchs_own()
    assert vars(library) == names
    assert routing.patched_choice() is routing.NATIVE
    with patch:
        assert is_replaced()
    assert is_torchs_own()


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


def test_names_imported_earlier_are_rebound_and_restored(library: ModuleType) -> None:
    names = dict(vars(library))
    assert library.stft is OWN["stft"]
    with tms.patch(backend="mlx", strict=True):
        assert library.stft is torch.stft
        assert library.istft is torch.istft
        spectrum = transform(library.stft)
        library.istft(spectrum, 16, window=WINDOW)
        assert tms.stats().calls == {("stft", "mlx"): 1, ("istft", "mlx"): 1}
    assert vars(library) == names
    assert library.stft is OWN["stft"]
    assert library.istft is OWN["istft"]


def test_names_that_do_not_mean_the_function_are_left_and_told(library: ModuleType) -> None:
    exec("import torch; native, inverse = torch.stft, torch.istft", vars(library))
    names, here = dict(vars(library)), f"{library.__name__}."
    with tms.patch(backend="mlx", strict=True) as patch:
        assert library.native is OWN["stft"]
        assert library.inverse is OWN["istft"]
        left = {name for name in patch.left if name.startswith(here)}
        assert left == {f"{here}native", f"{here}inverse"}
        assert f"{here}native" in repr(patch)
        assert "patch('mlx', strict=True): in force; left to torch:" in repr(patch)
        # A program that compares us with native compares us with native.
        expected = transform(library.native)
        assert tms.stats().calls == {}
        torch.testing.assert_close(transform(library.stft), expected)
        assert tms.stats().calls == {("stft", "mlx"): 1}
        # What is put there later is left, too.
        library.stft = OWN["stft"]
        assert f"{here}stft" in patch.left
    assert vars(library) == names
    assert not {"torch.stft", "torch.functional.istft", f"{here}stft"} & set(patch.left)
    assert repr(patch) == "<torch_mlx_spectro.patch('mlx', strict=True): ended>"


def test_torchs_own_code_is_restored_too() -> None:
    names = dict(vars(torch.functional)), dict(vars(torch))
    with tms.patch():
        assert torch.functional.handle_torch_function is not torch.overrides.handle_torch_function
    assert (vars(torch.functional), vars(torch)) == names


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


def list_warnings(*names: str, **options: Any) -> list[str]:
    """Patch by these names in turn, and return what was warned of."""
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        for name in names:
            with tms.patch(name, **options):
                pass
    assert {(warning.category, warning.filename) for warning in given} <= {
        (RuntimeWarning, __file__)
    }
    return [str(warning.message) for warning in given]


@pytest.fixture
def untold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was told of missing backends so far."""
    monkeypatch.setattr(patching._state, "missed", set())


def test_a_backend_that_is_not_here_is_told_once(
    untold: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    (told,) = list_warnings("cuda", "cuda", "cpu", "auto", "native", "cuda")
    assert told.startswith("patch('cuda'): this torch is built without CUDA; it needs an NVIDIA")
    assert "pip install cuda-core" in told
    assert "torch itself computes every call" in told


def test_strict_calls_raise_and_nothing_is_told(
    untold: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    assert list_warnings("cuda", strict=True) == []
    with tms.patch("cuda", strict=True), pytest.raises(tms.NotAccelerated):
        torch.stft(torch.ones(64), 16, window=WINDOW, return_complex=True)


def test_the_choice_of_the_environment_is_told_too(
    untold: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setenv("TORCH_MLX_SPECTRO_BACKEND", "cuda")
    (told,) = list_warnings("auto")
    assert told.startswith("patch('cuda'): ")


@pytest.mark.parametrize("count", [0, 1])
def test_devices_are_counted_without_using_cuda(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """``is_available`` would forbid CUDA to children that are forked later."""

    def refuse() -> bool:
        raise AssertionError("CUDA was used")

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", refuse)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(sys, "platform", "linux")
    reason = CUDA.explain_sure_absence()
    if count:
        has_core = importlib.util.find_spec("cuda") and importlib.util.find_spec("cuda.core")
        assert reason == (None if has_core else "cuda-core is not installed")
    else:
        assert reason == "torch finds no CUDA device"


def test_a_missing_mlx_is_told_and_mlx_is_not_loaded(tmp_path: Path) -> None:
    """A child that is forked after MLX was loaded cannot use it."""
    program = """\
import sys, warnings, importlib.util, torch, torch_mlx_spectro as tms
tms.patch("mlx")
assert "mlx" not in sys.modules
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "mlx" else find(name, *more)
with warnings.catch_warnings(record=True) as given:
    warnings.simplefilter("always")
    tms.patch("mlx")
    tms.patch("mlx")
(warning,) = given
assert str(warning.message).startswith("patch('mlx'): mlx is not installed: pip install mlx.")
"""
    finished = python("-W", "error", "-c", program, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
