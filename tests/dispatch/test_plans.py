"""Plans: what is decided once, what is decided anew, and what a key has to hold."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import metal
import numpy as np
import pytest
import torch
from cli_process import python
from cuda_stand_in import Recorder, StandIn, recording, standing_in
from needs import ONCE_ONLY, needs_emulator
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import torch_mlx_spectro as tms
from torch_mlx_spectro.calls.key import Key, make_key, name_backend
from torch_mlx_spectro.calls.operation import STFT
from torch_mlx_spectro.dispatch import decide as deciding
from torch_mlx_spectro.dispatch import run as dispatching
from torch_mlx_spectro.dispatch.plans import PlanTable, plans
from torch_mlx_spectro.native import functions as native
from torch_mlx_spectro.native import private_state as torch_state
from torch_mlx_spectro.store.caches import preparations

pytestmark = ONCE_ONLY
WINDOW = torch.hann_window(16) + 0.1
SIGNAL = torch.randn(2, 100)
SPECTRUM = native.stft(SIGNAL, 16, 4, window=WINDOW, return_complex=True)


@pytest.fixture(autouse=True)
def nothing_is_wrong() -> Iterator[None]:
    """What one test makes wrong, another does not know of."""
    yield
    deciding.ledger.clear()


@pytest.fixture
def decided(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes what is decided."""
    found: list[str] = []

    def decide(op: Any, *arguments: Any) -> Any:
        found.append(op.name)
        return deciding.decide(op, *arguments)

    monkeypatch.setattr(dispatching, "decide", decide)
    return found


@pytest.fixture(params=["mlx", "cpu", pytest.param("mps", marks=needs_emulator)])
def backend(request: pytest.FixtureRequest, decided: list[str]) -> Iterator[str]:
    """A backend that is asked for by its name, strictly."""
    if request.param == "mps":
        with metal.emulated(request.getfixturevalue("metal_cache"), backend="mps"):
            yield "mps"
        return
    with tms.patch(request.param, strict=True):
        yield request.param


def stft(signal: torch.Tensor = SIGNAL, **more: Any) -> torch.Tensor:
    given = {"n_fft": 16, "hop_length": 4, "window": WINDOW, "return_complex": True, **more}
    return tms.stft(signal, **given)


def istft(spectrum: torch.Tensor = SPECTRUM, **more: Any) -> torch.Tensor:
    return tms.istft(spectrum, **{"n_fft": 16, "hop_length": 4, "window": WINDOW, **more})


def is_natives_stft(result: torch.Tensor, signal: torch.Tensor = SIGNAL, **more: Any) -> bool:
    given = {"n_fft": 16, "hop_length": 4, "window": WINDOW, "return_complex": True, **more}
    return is_like(result, native.stft(signal, **given))


def is_natives_istft(result: torch.Tensor, spectrum: torch.Tensor, **more: Any) -> bool:
    given = {"n_fft": 16, "hop_length": 4, "window": WINDOW, **more}
    return is_like(result, native.istft(spectrum, **given))


def is_like(result: torch.Tensor, expected: torch.Tensor) -> bool:
    same = (result.shape, result.dtype, result.stride(), result.requires_grad)
    if same != (expected.shape, expected.dtype, expected.stride(), expected.requires_grad):
        return False
    return torch.allclose(result, expected, rtol=1e-4, atol=1e-4)


class Passing(TorchDispatchMode):
    """A mode that changes nothing, and notes what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


# What is decided once


def test_a_call_is_decided_once(decided: list[str], backend: str) -> None:
    for _ in range(3):
        signal, window = torch.randn(2, 100), torch.hann_window(16) + 0.2
        assert is_natives_stft(stft(signal, window=window), signal, window=window)
        assert is_natives_istft(istft(window=window), SPECTRUM, window=window)
    assert decided == ["stft", "istft"]
    assert tms.stats().calls == {("stft", backend): 3, ("istft", backend): 3}


def test_a_differentiated_call_is_decided_once(decided: list[str], backend: str) -> None:
    for _ in range(3):
        leaf = torch.randn(2, 100, requires_grad=True)
        results = stft(leaf), native.stft(leaf, 16, 4, window=WINDOW, return_complex=True)
        gradients = [
            torch.autograd.grad(result.abs().square().sum(), leaf)[0] for result in results
        ]
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-3)
    assert decided == ["stft"]


def test_however_it_is_spelled_it_is_the_same_call(decided: list[str]) -> None:
    given = {"window": WINDOW, "return_complex": True}
    with tms.backend("cpu", strict=True):
        tms.stft(SIGNAL, 16, 4, **given)
        tms.stft(SIGNAL, 16, hop_length=4, **given)
        tms.stft(n_fft=16, hop_length=4, input=SIGNAL, center=True, pad_mode="reflect", **given)
        tms.stft(SIGNAL, 16, 4, None, WINDOW, True, "reflect", False, None, True)
    assert decided == ["stft"]


@pytest.mark.parametrize("strict", [False, True])
def test_what_falls_back_is_decided_once_and_counted_each_time(
    decided: list[str], strict: bool
) -> None:
    signal, window = SIGNAL.double(), WINDOW.double()
    with tms.backend("mlx"):
        for _ in range(3):
            assert is_natives_stft(stft(signal, window=window), signal, window=window)
    assert decided == ["stft"]
    fallbacks = tms.stats().fallbacks
    assert set(fallbacks.values()) == {3}
    assert all("float64" in reason for reason in fallbacks)
    if strict:
        with tms.backend("mlx", strict=True), pytest.raises(tms.NotAccelerated, match="float64"):
            stft(signal, window=window)
        assert tms.stats().refused == 1


def test_what_auto_leaves_to_native_is_decided_once(
    decided: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deciding.trials, "pick", lambda *given: ("native", False))
    monkeypatch.setattr(deciding, "LEAST_FRAMED", {"stft": 1, "istft": 1})
    signal = torch.randn(1 << 19)
    with tms.backend("auto"):
        for _ in range(3):
            stft(signal, hop_length=16)
    assert decided == ["stft"]
    assert tms.stats().choices == {deciding.MEASURED: 3}


def test_an_unknown_way_to_call_is_torchs_to_refuse(decided: list[str], backend: str) -> None:
    stft()
    wrong: list[dict[str, Any]] = [{"hop_length": 4.0}, {"center": "yes"}, {"unknown": 1}]
    for more in wrong:
        with pytest.raises((TypeError, RuntimeError)):
            stft(**more)
    for call in (stft, istft):
        with pytest.raises(RuntimeError, match="same device"):
            call(window=torch.ones(16, device="meta"))
    for given in ((3, 16), (None, 16), ([1.0], 16), ()):
        with pytest.raises((TypeError, AttributeError, RuntimeError)):
            tms.stft(*given, return_complex=True)


def test_a_vanishing_envelope_is_torchs_to_refuse(decided: list[str], backend: str) -> None:
    istft()
    istft()
    with pytest.raises(RuntimeError, match="window overlap add min"):
        istft(window=torch.zeros(16))
    assert is_natives_istft(istft(), SPECTRUM)


# What makes a plan stale


def test_what_is_found_wrong_makes_every_plan_stale(decided: list[str]) -> None:
    with tms.backend("cpu", strict=True):
        stft()
        deciding.ledger.epoch += 1
        for _ in range(2):
            stft()
    assert decided == ["stft"] * 2


@pytest.mark.parametrize("differentiated", [False, True])
def test_every_nth_call_that_is_known_is_verified(decided: list[str], differentiated: bool) -> None:
    signal = SIGNAL.clone().requires_grad_(differentiated)
    with tms.backend("cpu", strict=True, verify=3):
        for _ in range(9):
            result = stft(signal)
            if differentiated:
                result.abs().sum().backward()
    assert decided == ["stft"]
    assert tms.stats().verified == (6 if differentiated else 3)
    assert tms.stats().calls == {("stft", "cpu"): 9}


def test_a_wrong_result_of_a_known_call_is_natives_from_then_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with tms.backend("cpu", verify=2):
        stft()
        (plan,) = {plan.run: plan for plan in plans._plans.values()}.values()
        assert plan.run is not None
        wrong = replace(plan, run=lambda tensor, window: plan.run(tensor, window) * 1.01)
        for key in list(plans._plans):
            plans.keep(key, wrong)
        with pytest.warns(RuntimeWarning, match="is not native torch's"):
            assert is_natives_stft(stft())
        assert is_natives_stft(stft())
    deciding.ledger.clear()
    assert tms.stats().calls == {("stft", "cpu"): 1, ("stft", "native"): 2}


def test_a_full_table_begins_anew() -> None:
    table, plan = PlanTable(3), deciding.native_plan(STFT, "why")
    keys: list[Key] = [(number,) for number in range(4)]
    for key in keys:
        table.keep(key, plan)
    assert [table.get(key) for key in keys] == [None, None, None, plan]
    table.clear()
    assert not len(table)


def test_keeping_a_plan_is_seen_to_prepare() -> None:
    """``auto`` times no such call."""
    grown = []
    with tms.backend("cpu", strict=True):
        for _ in range(3):
            before = preparations()
            stft()
            grown.append(preparations() != before)
    assert grown == [True, False, False]


@pytest.mark.parametrize(
    "changes", [{"n_fft": torch.tensor(16)}, {"hop_length": np.int64(4)}], ids=str
)
def test_arguments_that_may_change_are_in_no_key(
    decided: list[str], changes: dict[str, Any]
) -> None:
    with tms.backend("cpu"):
        for _ in range(2):
            try:
                stft(**changes)
            except (TypeError, RuntimeError):
                assert not isinstance(changes.get("hop_length"), np.int64)
    assert decided == ["stft"] * 2


@pytest.mark.parametrize("which", ["input", "window"])
def test_zeros_without_memory_are_in_no_key(decided: list[str], which: str) -> None:
    zeros = {
        "input": torch._efficientzerotensor(SIGNAL.shape),
        "window": torch._efficientzerotensor(WINDOW.shape),
    }[which]
    with tms.backend("cpu"):
        for _ in range(2):
            stft(**{"signal" if which == "input" else which: zeros})
    assert decided == ["stft"] * 2


def test_a_forked_child_has_no_plan(tmp_path: Path) -> None:
    """Its parent's device, streams and libraries are not its own."""
    source = """
import os, torch, torch_mlx_spectro as tms
from torch_mlx_spectro.dispatch.plans import plans
with tms.backend("cpu", strict=True):
    tms.stft(torch.ones(100), 16, window=torch.ones(16), return_complex=True)
assert len(plans)
child = os.fork()
if not child:
    os._exit(len(plans))
assert os.waitpid(child, 0)[1] == 0
"""
    assert python("-W", "ignore", "-c", source, cwd=tmp_path).returncode == 0


def test_threads_compute_by_one_plan() -> None:
    wrong: list[torch.Tensor] = []

    def work(seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for _ in range(50):
            signal = torch.randn(2, 100, generator=generator)
            with tms.backend("cpu", strict=True):
                result = stft(signal)
            if not is_natives_stft(result, signal):
                wrong.append(signal)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# CUDA: launches are prepared, and nothing else is asked


@pytest.fixture
def driver() -> Iterator[tuple[Recorder, StandIn]]:
    driver = Recorder()
    with standing_in(recording(driver)) as stand_in, tms.backend("cuda", strict=True):
        yield driver, stand_in


def test_a_known_cuda_call_is_one_launch_of_its_own_tensors(
    driver: tuple[Recorder, StandIn], decided: list[str]
) -> None:
    recorder, _ = driver
    for _ in range(3):
        stft(torch.randn(2, 100))
    assert decided == ["stft"]
    assert len(recorder.launched) == 3
    assert len(recorder.loaded) == 1


def test_what_the_device_refuses_is_decided_anew(
    driver: tuple[Recorder, StandIn], decided: list[str]
) -> None:
    from torch_mlx_spectro.backends.cuda.nvrtc import CudaProblem

    recorder, _ = driver
    stft()

    def refuse(*given: Any) -> None:
        raise CudaProblem("out of resources")

    seen, recorder.seen = recorder.seen, refuse
    with pytest.raises(tms.NotAccelerated, match="out of resources"):
        stft()
    with tms.backend("cuda"):
        assert is_natives_stft(stft())
    recorder.seen = seen
    stft()
    assert decided == ["stft"] * 3


# What a key has to hold: each part, and what goes wrong without it

#: Where each part is in a key.
PLACES = {
    name: place
    for place, name in enumerate(
        (
            *("backend", "auto", "compiles shaders"),
            *("shape", "strides", "dtype", "device", "conjugate", "negative", "alignment"),
            *("requires grad", "window", "arguments"),
        )
    )
}
PARTS_OF_A_WINDOW = ("shape", "strides", "dtype", "device", "conjugate", "negative", "alignment")


@dataclass(frozen=True)
class Blind:
    """Makes keys that lack a part."""

    part: str

    def __call__(self, *given: Any) -> Key:
        key = list(make_key(*given))
        first, _, _ = self.part.partition(" of the window")
        if self.part in ("arguments", "types of arguments"):
            # Of equal values the types differ in the bytes that are kept, and in nothing else.
            key[PLACES["arguments"]] = given[-1] if self.part == "types of arguments" else None
        elif self.part.endswith(" of the window"):
            window = list(key[PLACES["window"]])
            window[(*PARTS_OF_A_WINDOW, "requires grad").index(first)] = None
            key[PLACES["window"]] = tuple(window)
        else:
            key[PLACES[self.part]] = (None,)
        return tuple(key)


@dataclass
class Scenario:
    """Two calls that differ in one part of their keys; the second one is looked at.

    Attributes:
        part: of the key.
        check: makes both, and asserts what is expected of the second.
        route: that computes them; None where the check says it.
    """

    part: str
    check: Callable[[], Any]
    route: str | None = "cpu"


def differ(first: dict[str, Any], second: dict[str, Any]) -> Callable[[], None]:
    """Two stfts, the second of which is to be native's."""

    def check() -> None:
        stft(**first)
        assert is_natives_stft(stft(**second), **second)

    return check


def differ_back(first: dict[str, Any], second: dict[str, Any]) -> Callable[[], None]:
    def check() -> None:
        istft(**first)
        expected = {"spectrum": SPECTRUM, **second}
        assert is_natives_istft(istft(**second), **expected)

    return check


def raises(first: dict[str, Any], second: dict[str, Any]) -> Callable[[], None]:
    def check() -> None:
        stft(**first)
        with pytest.raises((RuntimeError, TypeError)):
            stft(**second)

    return check


LEAF = SIGNAL.clone().requires_grad_()


def check_grad_mode() -> None:
    with torch.no_grad():
        stft(LEAF)
    assert stft(LEAF).requires_grad


def check_backends() -> None:
    with tms.backend("cpu", strict=True):
        stft()
    with tms.backend("mlx", strict=True):
        stft()
    assert tms.stats().calls == {("stft", "cpu"): 1, ("stft", "mlx"): 1}


def check_warnings() -> None:
    given = {"return_complex": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stft(**given)
    torch.set_warn_always(True)
    try:
        for _ in range(2):
            with pytest.warns(UserWarning, match="return_complex"):
                stft(**given)
    finally:
        torch.set_warn_always(False)


SCENARIOS = [
    Scenario("backend", check_backends, None),
    Scenario("requires grad", check_grad_mode),
    Scenario("shape", differ({}, {"signal": torch.randn(3, 100)}), "mps"),
    Scenario("strides", differ({}, {"signal": torch.randn(100, 2).t()}), "mps"),
    Scenario("dtype", differ({}, {"signal": torch.randn(2, 100, dtype=torch.complex64)})),
    Scenario("conjugate", differ_back({}, {"spectrum": SPECTRUM.conj()}), "mps"),
    Scenario("negative", differ({}, {"signal": torch._neg_view(torch.randn(2, 100))}), "mps"),
    Scenario("requires grad", differ({}, {"signal": LEAF})),
    Scenario("shape of the window", raises({}, {"window": torch.ones(20)}), "mps"),
    Scenario("strides of the window", differ({}, {"window": torch.rand(32)[::2]}), "mps"),
    Scenario(
        "dtype of the window",
        differ({"onesided": False}, {"window": WINDOW + 0j, "onesided": False}),
        "mps",
    ),
    Scenario(
        "conjugate of the window",
        differ(
            {"window": (WINDOW * 1j), "onesided": False},
            {"window": (WINDOW * (1 + 1j)).conj(), "onesided": False},
        ),
        "mps",
    ),
    Scenario("negative of the window", differ({}, {"window": torch._neg_view(WINDOW)}), "mps"),
    Scenario(
        "requires grad of the window", differ({}, {"window": WINDOW.clone().requires_grad_()})
    ),
    Scenario("arguments", differ({}, {"hop_length": 5})),
    Scenario("types of arguments", raises({}, {"n_fft": 16.0})),
    Scenario("types of arguments", raises({"hop_length": 1}, {"hop_length": True})),
]


def test_where_torch_repeats_its_warnings_none_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    with tms.backend("cpu", strict=True):
        check_warnings()
        plans.clear()
        monkeypatch.setattr(dispatching, "_is_state_against", lambda *given: False)
        with pytest.raises(pytest.fail.Exception, match="DID NOT WARN"):
            check_warnings()


@contextmanager
def routed(route: str | None, folder: Path) -> Iterator[None]:
    if route == "mps":
        with metal.emulated(folder, backend="mps", checked=False):
            yield
    elif route is None:
        yield
    else:
        with tms.backend(route, strict=True):
            yield


def scenario_id(scenario: Any) -> str:
    return str(scenario.part)


@needs_emulator
@pytest.mark.parametrize("scenario", SCENARIOS, ids=scenario_id)
def test_what_differs_is_decided_anew(scenario: Scenario, metal_cache: Path) -> None:
    with routed(scenario.route, metal_cache):
        scenario.check()


@needs_emulator
@pytest.mark.parametrize("scenario", SCENARIOS, ids=scenario_id)
def test_without_a_part_of_the_key_something_goes_wrong(
    scenario: Scenario, metal_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatching, "make_key", Blind(scenario.part))
    with (
        pytest.raises((AssertionError, RuntimeError, TypeError, pytest.fail.Exception)),
        routed(scenario.route, metal_cache),
    ):
        scenario.check()


# What torch's state decides, by ``auto`` alone


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """``auto`` has settled on MLX."""
    for pick in ("pick", "pick_both_ways"):
        monkeypatch.setattr(deciding.trials, pick, lambda *given: ("mlx", False))
    monkeypatch.setattr(deciding, "LEAST_FRAMED", {"stft": 1, "istft": 1})
    monkeypatch.setattr(deciding.ledger, "needs_comparison", lambda case: False)
    with tms.backend("auto"):
        yield


def check_auto(state: str, signal: torch.Tensor, decided: list[str]) -> None:
    """Two calls alike, the second one in another state of torch."""
    threads = torch.get_num_threads()
    stft(signal)
    if state == "checkpoint":
        checkpoint(stft, signal, use_reentrant=False)
    else:
        try:
            if state == "deterministic":
                torch.use_deterministic_algorithms(True)
            else:
                torch.set_num_threads(threads + 1)
            stft(signal)
        finally:
            torch.use_deterministic_algorithms(False)
            torch.set_num_threads(threads)
    assert decided == ["stft"] * 2
    if state != "threads":
        assert tms.stats().calls == {("stft", "mlx"): 1, ("stft", "cpu"): 1}


STATES_OF_AUTO = ["deterministic", "threads", "checkpoint"]


@pytest.mark.parametrize("state", STATES_OF_AUTO)
@pytest.mark.parametrize("is_blind", [False, True])
def test_what_auto_depends_on_is_in_the_key(
    state: str, is_blind: bool, settled: None, decided: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    signal = torch.randn(1 << 19)[:300_000].clone().requires_grad_(state == "checkpoint")
    if not is_blind:
        check_auto(state, signal, decided)
        return
    monkeypatch.setattr(dispatching, "make_key", Blind("auto"))
    with pytest.raises(AssertionError):
        check_auto(state, signal, decided)


@pytest.mark.parametrize("backend", ["auto", "mps"])
def test_deterministic_programs_have_keys_of_their_own(backend: str) -> None:
    """A backend that is asked for by name may have found another walk by a trial."""

    def make(asked: str) -> Any:
        return make_key("istft", asked, SIGNAL, None, ())

    plain = make(backend)
    assert name_backend(make("auto"), "mps") == make("mps")
    torch.use_deterministic_algorithms(True)
    try:
        assert make(backend) != plain
        assert name_backend(make("auto"), "mps") == make("mps")
    finally:
        torch.use_deterministic_algorithms(False)
    assert make(backend) == plain


# What is asked before a key is made


def check_trace() -> None:
    stft()
    traced = torch.jit.trace(lambda x: stft(x).abs(), SIGNAL, check_trace=False)
    assert "aten::stft" in str(traced.graph)


def check_mode() -> None:
    stft()
    with Passing() as mode:
        stft()
    assert any("stft" in name or "fft" in name for name in mode.seen)


def check_vmap() -> None:
    examples = torch.randn(3, 2, 100)
    stft()
    stft(examples[0])
    result = torch.func.vmap(stft)(examples)
    expected = torch.stack([stft(example) for example in examples])
    torch.testing.assert_close(result, expected, check_stride=False)


def check_forward_mode() -> None:
    stft()
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(SIGNAL, torch.ones_like(SIGNAL))
        assert forward_ad.unpack_dual(stft(dual)).tangent is not None


@needs_emulator
@pytest.mark.parametrize(
    "check", [check_trace, check_mode, check_vmap, check_forward_mode], ids=lambda f: f.__name__
)
@pytest.mark.filterwarnings("ignore:.*jit.(trace|script). is deprecated")
def test_what_wants_to_see_a_call_sees_it(check: Callable[[], None], metal_cache: Path) -> None:
    with metal.emulated(metal_cache, backend="mps"), tms.backend("mps"):
        check()


@needs_emulator
@pytest.mark.parametrize("check", [check_mode, check_forward_mode], ids=lambda f: f.__name__)
@pytest.mark.filterwarnings("ignore:.*jit.script. is deprecated")
def test_without_being_asked_for_it_would_not(
    check: Callable[[], None], metal_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_state, "is_intercepted", lambda: False)
    with (
        metal.emulated(metal_cache, backend="mps"),
        tms.backend("mps"),
        pytest.raises(AssertionError),
    ):
        check()


def test_keys_of_both_functions_differ_where_their_arguments_agree() -> None:
    given = ("cpu", SPECTRUM, WINDOW, (16, 4))
    assert make_key("stft", *given) != make_key("istft", *given)


def test_what_compiles_shaders_is_in_the_key(decided: list[str], metal_cache: Path) -> None:
    """Another emulator has other kernels."""
    for _ in range(2):
        with metal.emulated(metal_cache, backend="mps") as machine:
            stft()
        assert machine.launches
    assert decided == ["stft"] * 2


@needs_emulator
def test_without_what_compiles_shaders_another_one_computes(
    metal_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatching, "make_key", Blind("compiles shaders"))
    launches = []
    for _ in range(2):
        with metal.emulated(metal_cache, backend="mps") as machine:
            stft()
        launches.append(len(machine.launches))
    assert launches == [1, 0]


def test_complex_values_off_their_boundary_are_never_loaded_whole(
    driver: tuple[Recorder, StandIn], decided: list[str]
) -> None:
    """A kernel that was bound to aligned values is not given others."""
    memory = bytearray(8 * 201)
    whole, odd = (
        torch.frombuffer(memory, dtype=torch.complex64, count=200, offset=at).view(2, 100)
        for at in (0, 4)
    )
    assert {whole.data_ptr() % 8, odd.data_ptr() % 8} == {0, 4}
    given = {"onesided": False}
    for tensor in (whole, odd, whole, odd):
        stft(tensor, **given)
    assert decided == ["stft"] * 2
    keys = [key for key in plans._plans if key[0] == "cuda"]
    assert {key[PLACES["alignment"]] for key in keys} == {0, 4}
