"""Calls that were made before: what is launched, and what is decided anew."""

from __future__ import annotations

import ctypes
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from cuda_stand_in import Recorder, StandIn, recording, standing_in
from reference import istft_params, stft_params
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

from torch_mlx_spectro.autograd import derivatives
from torch_mlx_spectro.backends.cuda.backend import CudaBackend
from torch_mlx_spectro.backends.cuda.nvrtc import CudaProblem
from torch_mlx_spectro.calls.kind import Route
from torch_mlx_spectro.calls.operation import STFT
from torch_mlx_spectro.dispatch import cuda_calls
from torch_mlx_spectro.dispatch import run as dispatching
from torch_mlx_spectro.dispatch.choice import Choice
from torch_mlx_spectro.dispatch.run import Plan
from torch_mlx_spectro.kernels.arguments import Verdict
from torch_mlx_spectro.native import private_state as torch_state
from torch_mlx_spectro.store.caches import preparations

LENGTH = 12
WINDOW = torch.hann_window(LENGTH) + 0.1
SIGNAL = torch.randn(2, 100)
SPECTRUM = torch.randn(2, 9, 26, dtype=torch.complex64)
#: Of windows that are shorter than frames.
STFT_ARGUMENTS: dict[str, Any] = {"hop_length": 4, "win_length": LENGTH, "return_complex": True}
ISTFT_ARGUMENTS: dict[str, Any] = {"hop_length": 4, "win_length": LENGTH}


@pytest.fixture
def driver() -> Recorder:
    return Recorder()


@pytest.fixture(autouse=True)
def backend(driver: Recorder) -> Iterator[StandIn]:
    with standing_in(recording(driver)) as found:
        yield found


def recall_stft(
    signal: torch.Tensor = SIGNAL, window: Any = WINDOW, backend: str = "cuda", **changes: Any
) -> Any:
    arguments = {**STFT_ARGUMENTS, "window": window, **changes}
    return cuda_calls.recall("stft", backend, signal, (signal, 16), arguments)


def remember_stft(
    signal: torch.Tensor = SIGNAL, window: torch.Tensor = WINDOW, **changes: Any
) -> torch.Tensor:
    arguments = {**STFT_ARGUMENTS, **changes}
    params = stft_params(signal, window, n_fft=16, **arguments)
    result = torch.stft(signal, 16, window=window, **arguments)
    given = {**STFT_ARGUMENTS, "window": window, **changes}
    cuda_calls.remember("stft", {"cuda"}, (signal, 16), given, params, result)
    return result


def remember_istft(window: torch.Tensor = WINDOW) -> torch.Tensor:
    params = istft_params(SPECTRUM, window, n_fft=16, **ISTFT_ARGUMENTS)
    result = torch.empty(2, params.output_length)
    arguments = {**ISTFT_ARGUMENTS, "window": window}
    cuda_calls.remember("istft", {"cuda"}, (SPECTRUM, 16), arguments, params, result)
    return result


def recall_istft(window: torch.Tensor) -> Any:
    arguments = {**ISTFT_ARGUMENTS, "window": window}
    return cuda_calls.recall("istft", "cuda", SPECTRUM, (SPECTRUM, 16), arguments)


def test_a_call_is_launched_again_with_its_own_tensors(driver: Recorder) -> None:
    assert recall_stft() is None
    expected = remember_stft()
    assert not driver.launched
    result = recall_stft()
    assert (result.shape, result.stride()) == (expected.shape, expected.stride())
    ((kernel, grid, group, stream, parameters),) = driver.launched
    assert (kernel, stream) == ("spectro_analysis", 7)
    assert grid[1:] == (2, 1)
    assert group > 0
    assert parameters
    # Another signal of the same layout is the same call.
    other = torch.randn(2, 100)
    assert recall_stft(other) is not None
    assert len(driver.loaded) == 1


def test_addresses_are_those_of_the_tensors(driver: Recorder) -> None:
    seen: list[tuple[int, ...]] = []

    def read(*arguments: Any) -> None:
        # The kernel's parameters: addresses of its arguments, of which three are addresses.
        parameters = arguments[4]
        places = struct.unpack("3Q", _memory(parameters, 24))
        seen.append(tuple(struct.unpack("Q", _memory(place, 8))[0] for place in places))

    driver.seen = read
    remember_stft()
    result = recall_stft()
    assert seen == [(SIGNAL.data_ptr(), WINDOW.data_ptr(), result.data_ptr())]


def flag_of(arguments: tuple[Any, ...]) -> int:
    """Where an istft's kernel notes that the envelope vanishes; 0 if nobody asks."""
    (place,) = struct.unpack("Q", _memory(arguments[4] + 24, 8))
    (address,) = struct.unpack("Q", _memory(place, 8))
    return int(address)


def _memory(address: int, size: int) -> bytes:
    return ctypes.string_at(address, size)


def test_istft_is_remembered(driver: Recorder) -> None:
    result = remember_istft()
    again = recall_istft(WINDOW)
    assert again.shape == result.shape
    assert [launch[0] for launch in driver.launched] == [driver.loaded[0][1]]


@pytest.mark.parametrize(
    "changes",
    [
        {"signal": torch.randn(2, 101)},
        {"signal": torch.randn(100, 2).t()},
        {"signal": torch.randn(2, 100, dtype=torch.complex64).imag},
        {"signal": torch.randn(2, 100).requires_grad_()},
        {"window": torch.ones(LENGTH, dtype=torch.complex64)},
        {"window": torch.ones(LENGTH).to_sparse()},
        {"window": torch.ones(LENGTH - 1)},
        {"window": None},
        {"window": [1.0] * LENGTH},
        {"hop_length": 5},
        {"hop_length": 4.0},
        {"center": 1},
        {"center": []},
        {"pad_mode": "constant"},
        {"unknown": 1},
        {"backend": "auto"},
    ],
    ids=lambda changes: str(list(changes)),
)
def test_what_differs_is_decided_anew(driver: Recorder, changes: dict[str, Any]) -> None:
    remember_stft()
    assert recall_stft() is not None
    assert recall_stft(**changes) is None


def test_every_window_is_read_where_it_is(driver: Recorder) -> None:
    places: list[int] = []

    def read(*arguments: Any) -> None:
        (place,) = struct.unpack("Q", _memory(arguments[4] + 8, 8))
        places.append(struct.unpack("Q", _memory(place, 8))[0])

    driver.seen = read
    window = WINDOW.clone()
    remember_stft(window=window)
    with torch.inference_mode():
        unversioned = torch.rand(LENGTH)
    for other in (window, window, torch.rand(LENGTH), unversioned):
        assert recall_stft(window=other) is not None
        assert places[-1] == other.data_ptr()
    window.data = torch.ones(LENGTH)
    assert recall_stft(window=window) is not None
    assert places[-1] == window.data_ptr()
    assert len(driver.loaded) == 1


@pytest.mark.parametrize("kind", ["strided", "negative", "at an odd place"])
def test_a_window_that_lies_otherwise_is_another_call(
    backend: StandIn, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(backend, "stft", lambda *given: SIGNAL)
    whole = {"win_length": 16}
    remember_stft(window=torch.rand(16), **whole)
    assert recall_stft(window=torch.rand(16), **whole) is not None
    window = torch.rand(17)[1:] if kind == "at an odd place" else torch.rand(32)[::2]
    if kind == "negative":
        window = torch._neg_view(torch.rand(16))
    # One that lies as the first did, but for its bits or its address, is left to the functions.
    assert recall_stft(window=window, **whole) is (None if kind == "strided" else SIGNAL)
    remember_stft(window=window, **whole)
    assert (recall_stft(window=window, **whole) is SIGNAL) == (kind != "strided")


def test_a_vanishing_envelope_is_decided_anew(driver: Recorder) -> None:
    """The kernel is asked of a window until it has once found nothing."""
    asked: list[int] = []

    def run(*arguments: Any) -> None:
        asked.append(flag_of(arguments))
        if vanishes:
            ctypes.memmove(asked[-1], b"\1\0\0\0", 4)

    driver.seen = run
    remember_istft()
    window, vanishes = torch.zeros(LENGTH), True
    for _ in range(2):
        assert recall_istft(window) is None
    vanishes = False
    for _ in range(2):
        assert recall_istft(window) is not None
    window.add_(1)
    assert recall_istft(window) is not None
    first, *_, last = asked
    assert asked == [first, first, first, 0, last]
    assert first == last != 0


def test_an_envelope_is_heard_of_while_its_call_runs(driver: Recorder, backend: StandIn) -> None:
    """And its flag is the next call's, with nothing in it."""
    found: list[tuple[int, int]] = []
    asked: list[int] = []

    def run(*arguments: Any) -> None:
        flag = ctypes.c_int32.from_address(flag_of(arguments))
        found.append((flag_of(arguments), flag.value))
        flag.value = Verdict.FINE

    def hear(flag: torch.Tensor, device: torch.device) -> int:
        asked.append(flag.data_ptr())
        return CudaBackend.hear(backend, flag, device)

    driver.seen = run
    backend.listen = hear  # never asks whether it has ended
    remember_istft()
    for _ in range(3):
        assert recall_istft(WINDOW.clone()) is not None
    assert found == [(asked[0], Verdict.NOT_TOLD)] * 3


def test_what_was_broken_off_is_not_written_to_again(driver: Recorder, backend: StandIn) -> None:
    def interrupted(flag: torch.Tensor, device: torch.device) -> int:
        raise KeyboardInterrupt

    asked: list[int] = []
    driver.seen = lambda *arguments: asked.append(flag_of(arguments))
    remember_istft()
    listen, backend.listen = backend.listen, interrupted
    with pytest.raises(KeyboardInterrupt):
        recall_istft(WINDOW.clone())
    backend.listen = listen
    assert recall_istft(WINDOW.clone()) is not None
    assert len(set(asked)) == 2


def test_what_is_no_launch_is_computed_by_the_functions(
    backend: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Derivatives, inputs with bits, and inputs on no complex number's boundary."""
    computed: list[str] = []
    for name, computing in (("backend", backend), ("derivatives", derivatives)):
        answer = partial(lambda name, *given: computed.append(name) or SIGNAL, name)
        monkeypatch.setattr(computing, "stft", answer)
    remember_stft()
    assert recall_stft() is not SIGNAL
    leaf = SIGNAL.clone().requires_grad_()
    assert recall_stft(leaf) is None
    remember_stft(leaf)
    assert recall_stft(leaf) is SIGNAL
    with torch.no_grad():
        assert recall_stft(leaf) is not SIGNAL
    negative = torch._neg_view(torch.randn(2, 100))
    assert negative.is_neg()
    for _ in range(2):
        assert recall_stft(negative) is SIGNAL
    odd = torch.randn(201)
    odd = (odd[1:] if odd.data_ptr() % 8 == 0 else odd[:-1]).view(2, 100)
    assert recall_stft(odd) is SIGNAL
    assert computed == ["derivatives", *["backend"] * 3]


STATES = [
    *("capture", "device", "dispatch mode", "functorch", "forward mode", "trace"),
    "deterministic algorithms",
]


@contextmanager
def state_of_torch(state: str, backend: StandIn) -> Iterator[None]:
    """Something that wants a call to be decided anew."""
    with ExitStack() as stack:
        if state == "capture":
            backend.capturing = True
        elif state == "device":
            backend.current = False
        elif state == "dispatch mode":
            stack.enter_context(Passing())
        elif state == "forward mode":
            stack.enter_context(forward_ad.dual_level())
        elif state == "deterministic algorithms":
            torch.use_deterministic_algorithms(True)
            stack.callback(torch.use_deterministic_algorithms, False)
        yield


class Passing(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("known", ["by its key", "by its kind"])
@pytest.mark.parametrize("state", STATES)
@pytest.mark.filterwarnings("ignore:.*jit.trace. is deprecated")
def test_torchs_state_is_asked_each_time(backend: StandIn, state: str, known: str) -> None:
    remember_stft()
    remember_istft()
    if known == "by its kind":
        assert recall_stft() is not None
        assert recall_istft(WINDOW) is not None
    found: list[Any] = []

    def look(x: torch.Tensor) -> torch.Tensor:
        found.append(recall_istft(WINDOW.clone()) if state == "capture" else recall_stft())
        return x * 2

    with state_of_torch(state, backend):
        if state == "functorch":
            torch.func.vmap(look)(torch.ones(3))
        elif state == "trace":
            torch.jit.trace(look, torch.ones(3), check_trace=False)
        else:
            look(torch.ones(3))
    assert found == [None]


def test_calls_of_a_kind_are_found_by_one_question(
    driver: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    remember_stft()
    assert recall_stft() is not None

    def refuse(*given: Any) -> Any:
        raise AssertionError("asked for its key")

    monkeypatch.setattr(cuda_calls, "key_of", refuse)
    assert recall_stft(torch.randn(2, 100), torch.rand(LENGTH)) is not None
    assert len(driver.launched) == 2
    with pytest.raises(AssertionError, match="asked for its key"), torch.inference_mode():
        recall_stft()  # of another state, as good as any
    monkeypatch.undo()


@pytest.mark.parametrize("context", [torch.inference_mode, partial(torch.autocast, "cpu")])
def test_a_kind_belongs_to_a_state_of_torch(driver: Recorder, context: Any) -> None:
    remember_stft()
    for state in (nullcontext, context):
        with state():
            for _ in range(3):
                assert recall_stft() is not None
    ((*known,),) = cuda_calls.kinds._values.values()
    assert len(known) == 2


def test_kinds_of_a_spelling_are_bounded(driver: Recorder) -> None:
    signals = [torch.randn(2, 100 + n) for n in range(cuda_calls.MAX_KINDS + 2)]
    for signal in signals:
        remember_stft(signal)
        assert recall_stft(signal) is not None
    ((*known,),) = cuda_calls.kinds._values.values()
    assert len(known) == cuda_calls.MAX_KINDS
    assert recall_stft(signals[0]) is not None


def test_a_torch_without_likenesses_is_asked_question_by_question(
    driver: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_state, "_has_likeness", lambda: False)
    remember_stft()
    for _ in range(2):
        assert recall_stft() is not None
    assert not cuda_calls.kinds._values


def test_what_may_be_computed_again_is_decided_anew_under_auto(
    backend: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpointed call keeps the backend that its first computation had."""
    leaf = SIGNAL.clone().requires_grad_()
    params = stft_params(leaf, WINDOW, n_fft=16, **STFT_ARGUMENTS)
    given = {**STFT_ARGUMENTS, "window": WINDOW}
    cuda_calls.remember("stft", {"auto", "cuda"}, (leaf, 16), given, params, SPECTRUM)
    remember_stft()
    for computing in (backend, derivatives):
        monkeypatch.setattr(computing, "stft", lambda *given: SPECTRUM)
    monkeypatch.setattr(torch_state, "recomputes", lambda: True)
    assert recall_stft(leaf, backend="auto") is None
    assert recall_stft(leaf) is SPECTRUM
    monkeypatch.setattr(torch_state, "recomputes", lambda: False)
    assert recall_stft(leaf, backend="auto") is SPECTRUM


def test_a_graph_records_what_reads_its_window(backend: StandIn) -> None:
    known, other = WINDOW.clone(), WINDOW.clone()
    remember_stft()
    remember_istft()
    assert recall_istft(known) is not None
    backend.capturing = True
    assert recall_stft() is not None
    assert recall_istft(known) is not None
    # Whether an envelope vanishes cannot be waited for.
    assert recall_istft(other) is None
    assert recall_stft(torch._neg_view(SIGNAL)) is None
    remember_stft(hop_length=5)
    assert recall_stft(hop_length=5) is None


@pytest.mark.parametrize(
    "changes", [{"return_complex": False}, {"onesided": False, "pad_mode": "replicate"}], ids=str
)
@pytest.mark.filterwarnings("ignore:.*stft with return_complex=False is deprecated")
def test_what_warns_is_decided_anew_where_torch_repeats_its_warnings(
    driver: Recorder, changes: dict[str, Any]
) -> None:
    expected = remember_stft(**changes)
    result = recall_stft(**changes)
    assert (result.shape, result.stride()) == (expected.shape, expected.stride())
    torch.set_warn_always(True)
    try:
        assert (recall_stft(**changes) is None) == ("return_complex" in changes)
    finally:
        torch.set_warn_always(False)


def test_the_call_that_makes_a_launch_ready_is_seen_to_prepare(driver: Recorder) -> None:
    """``auto`` times no such call; what it times is what later calls take."""
    before = preparations()
    remember_stft()
    assert preparations() > before
    prepared = []
    for _ in range(3):  # the first one becomes known by its kind
        before = preparations()
        assert recall_stft() is not None
        prepared.append(preparations() != before)
    assert prepared == [True, False, False]


@pytest.mark.parametrize("known", ["by its key", "by its kind"])
def test_zeros_without_memory_are_decided_anew(driver: Recorder, known: str) -> None:
    """There is no address that a kernel could read."""
    remember_stft()
    if known == "by its kind":
        assert recall_stft() is not None
    assert recall_stft(torch._efficientzerotensor(SIGNAL.shape)) is None
    assert recall_stft(window=torch._efficientzerotensor(WINDOW.shape)) is None
    assert recall_stft() is not None


def test_a_launch_is_on_the_current_stream(driver: Recorder) -> None:
    remember_stft()
    recall_stft()
    driver.stream = 8
    for _ in range(2):
        assert recall_stft() is not None
        assert driver.launched[-1][3] == 8


def test_the_table_is_bounded(driver: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_calls.calls, "most", 3)
    signals = [torch.randn(2, 100 + n) for n in range(4)]
    for signal in signals:
        remember_stft(signal)
    assert recall_stft(signals[0]) is None
    assert recall_stft(signals[3]) is not None


def test_threads_do_not_mix_their_addresses(driver: Recorder) -> None:
    """The packed arguments are shared: addresses are written and read under one lock."""
    wrong: list[int] = []
    expected = threading.local()

    def read(*arguments: Any) -> None:
        (place,) = struct.unpack("Q", ctypes.string_at(arguments[4], 8))
        (address,) = struct.unpack("Q", ctypes.string_at(place, 8))
        if address != expected.address:
            wrong.append(address)

    driver.seen = read
    remember_stft()

    def work() -> None:
        signal = torch.randn(2, 100)
        expected.address = signal.data_ptr()
        for _ in range(300):
            recall_stft(signal)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("verify", [0, 1])
def test_a_call_that_is_verified_is_not_kept(verify: int, driver: Recorder) -> None:
    """Calls that are recalled are not verified."""
    bound = STFT.bind(SIGNAL, 16, window=WINDOW, **STFT_ARGUMENTS)
    params = stft_params(SIGNAL, WINDOW, n_fft=16, **STFT_ARGUMENTS)
    result = torch.stft(SIGNAL, 16, window=WINDOW, **STFT_ARGUMENTS)
    plan = Plan(Route("stft", "cuda", "cuda analysis"), bound, params, settled=True)
    given = {**STFT_ARGUMENTS, "window": WINDOW}
    dispatching._remember(STFT, Choice("auto", verify=verify), plan, (SIGNAL, 16), given, result)
    for backend in ("cuda", "auto"):
        assert (recall_stft(backend=backend) is None) == bool(verify)


@pytest.mark.parametrize("known", ["by its key", "by its kind"])
def test_what_the_device_refuses_is_decided_anew(driver: Recorder, known: str) -> None:
    def refuse(*given: Any) -> None:
        raise CudaProblem("out of resources")

    remember_istft()
    if known == "by its kind":
        assert recall_istft(WINDOW.clone()) is not None
    seen, driver.seen = driver.seen, refuse
    assert recall_istft(WINDOW.clone()) is None
    driver.seen = seen
    assert recall_istft(WINDOW.clone()) is not None
