"""Who computes a call: choices, reasons, and auto's measurements with a clock of our own."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import pytest
import torch
from reference import stft_params
from torch.utils._python_dispatch import TorchDispatchMode

import torch_mlx_spectro as tms
from torch_mlx_spectro import routing, runtime
from torch_mlx_spectro.routing import Choice, Settled, Trials, current_choice, patched_choice


class Clock:
    """A clock that calls advance by what they are said to take."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def computed_by(costs: dict[str, list[float]], calls: int) -> list[str]:
    """Make calls as auto would, each taking the next cost of its backend; who computed them."""
    clock = Clock()
    trials = Trials(clock)
    chosen = []
    for _ in range(calls):
        name, timed = trials.pick("signature")
        chosen.append(name)
        cost = costs[name][min(chosen.count(name) - 1, len(costs[name]) - 1)]

        def call(seconds: float = cost) -> None:
            clock.now += seconds

        if timed:
            trials.time("signature", name, call)
    return chosen


def test_native_goes_first_and_the_faster_one_keeps_the_signature() -> None:
    chosen = computed_by({"native": [1.0], "mlx": [9.0, 0.5]}, 20)
    assert chosen[: 2 * routing.TRIALS] == ["native"] * routing.TRIALS + ["mlx"] * routing.TRIALS
    assert set(chosen[2 * routing.TRIALS :]) == {"mlx"}


def test_the_slower_one_is_never_used_again() -> None:
    chosen = computed_by({"native": [1.0], "mlx": [1.2]}, 30)
    assert chosen.count("mlx") == routing.TRIALS
    assert set(chosen[2 * routing.TRIALS :]) == {"native"}


def test_a_tie_is_natives() -> None:
    assert computed_by({"native": [1.0], "mlx": [0.95]}, 20)[-1] == "native"


def test_hopeless_mlx_is_given_up_before_its_last_trial() -> None:
    assert computed_by({"native": [1.0], "mlx": [50.0, 3.0]}, 20).count("mlx") == 2


def test_the_first_call_of_mlx_warms_up_and_does_not_count() -> None:
    assert computed_by({"native": [1.0], "mlx": [100.0, 0.1]}, 20)[-1] == "mlx"


def test_a_call_that_raises_leaves_no_time() -> None:
    trials = Trials(Clock())

    def broken() -> None:
        raise KeyError("broken")

    for _ in range(10):
        with pytest.raises(KeyError):
            trials.time("signature", "native", broken)
    assert trials.pick("signature") == ("native", True)


def test_old_signatures_are_forgotten_when_there_are_too_many() -> None:
    trials = Trials(Clock())
    for signature in range(routing.MAX_SIGNATURES + 1):
        for _ in range(routing.TRIALS):
            trials.time(signature, "native", lambda: None)
    assert trials.pick(0) == ("native", True)
    assert trials.pick(routing.MAX_SIGNATURES) == ("mlx", True)


def test_settled_shapes_are_bounded_and_may_be_unhashable() -> None:
    settled = Settled()
    settled.add(([],))
    assert not settled.has(([],))
    for shape in range(routing.MAX_SHAPES):
        settled.add(shape)
    assert settled.has(0)
    settled.add("one more")
    assert settled.has("one more")
    assert not settled.has(0)


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
    with (
        pytest.raises(ValueError, match="one of auto, native, mlx, mps, cuda; got 'cupy'"),
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


def test_signatures_tell_sizes_and_layouts_apart_but_not_close_lengths() -> None:
    def signature(samples: int, n_fft: int = 512) -> routing.Signature:
        signal = torch.zeros(2, samples)
        window = torch.ones(n_fft)
        return routing.signature_of(stft_params(signal, window, n_fft=n_fft), signal)

    assert signature(100_000) == signature(100_200)
    assert signature(100_000) != signature(200_000)
    assert signature(100_000) != signature(100_000, 1024)


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


def test_calls_that_train_are_measured_apart() -> None:
    """Their forward saves what the others' does not, and their backward follows their choice."""
    signal, window = torch.zeros(2, 100), torch.ones(16)
    params = stft_params(signal, window, n_fft=16)
    plain = routing.signature_of(params, signal)
    signal.requires_grad_()
    assert routing.signature_of(params, signal) != plain
    with torch.no_grad():
        assert routing.signature_of(params, signal) == plain


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


def test_trials_of_many_threads_lose_no_time() -> None:
    trials = Trials(Clock())
    threads, calls = 8, 200
    barrier = threading.Barrier(threads)
    picked: list[str] = []

    def work() -> None:
        barrier.wait()
        for call in range(calls):
            name, timed = trials.pick(call % 5)
            if timed:
                trials.time(call % 5, name, lambda: None)
            picked.append(name)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(picked) == threads * calls
    # Calls that began before a decision may be timed beyond it, one of each other thread.
    for times in trials._times.values():
        for name in ("native", "mlx"):
            assert routing.TRIALS <= len(times[name]) < routing.TRIALS + threads
    assert {trials.pick(signature) for signature in range(5)} == {("native", False)}


def test_signatures_know_what_changes_the_race() -> None:
    """A timing of one layout, device count or kind says nothing of another."""
    window = torch.ones(512)

    def of(signal: torch.Tensor, **arguments: object) -> routing.Signature:
        params = stft_params(signal, window, n_fft=512, **arguments)
        return routing.signature_of(params, signal)

    plain = torch.zeros(2, 50_000)
    others = [
        of(torch.zeros(50_000, 2).t()),
        of(plain, hop_length=100),
        of(plain, onesided=False),
        of(plain, return_complex=False),
        of(plain.to(torch.complex64)),
    ]
    assert len({of(plain), *others}) == 6
    assert of(plain) == of(plain.clone())
    sizes = {of(torch.zeros(samples)).size for samples in range(100_000, 200_000, 1_000)}
    assert 4 <= len(sizes) <= 6


def test_locks_of_a_parent_do_not_stop_its_forked_child() -> None:
    trials, settled = Trials(Clock()), Settled()
    for held in (trials, settled):
        assert held._lock.acquire(timeout=1)
        held.after_fork_in_child()
    trials.time("signature", "native", lambda: None)
    settled.add("shape")
    assert settled.has("shape")
    trials.clear()
    assert trials.pick("signature") == ("native", True)


class Events:
    """A device's clock: the time is known once the device has finished."""

    def __init__(self, took: float) -> None:
        self.took, self.finished, self.called = took, False, list[str]()

    def begin(self) -> None:
        self.called.append("begin")

    def end(self) -> None:
        self.called.append("end")

    def seconds(self) -> float | None:
        return self.took if self.finished else None


@pytest.mark.parametrize(("ours", "winner"), [(0.5, "cuda"), (0.95, "native"), (1.5, "native")])
def test_a_devices_times_are_waited_for_by_nobody(ours: float, winner: str) -> None:
    trials = Trials(Clock())
    timers: list[Events] = []
    for _ in range(2 * routing.TRIALS):
        name, timed = trials.pick("signature", "cuda")
        assert timed
        timer = Events(1.0 if name == "native" else ours)
        timers.append(timer)
        trials.time_on_device("signature", name, partial(timer.called.append, "call"), timer)
        assert timer.called == ["begin", "call", "end"]
    # All are under way and none is known: ours goes on, undecided.
    assert trials.pick("signature", "cuda") == ("cuda", False)
    assert trials.is_running("signature")
    for timer in timers:
        timer.finished = True
    assert trials.pick("signature", "cuda") == (winner, False)
    assert not trials.is_running("signature")


def test_a_devices_call_that_raises_leaves_no_time() -> None:
    trials = Trials(Clock())

    def broken() -> None:
        raise KeyError("broken")

    with pytest.raises(KeyError):
        trials.time_on_device("signature", "native", broken, Events(1.0))
    assert not trials.is_running("signature")


def test_who_competes_with_native() -> None:
    for device, accelerator in (("cpu", "mlx"), ("mps", "mlx"), ("xpu", "mlx"), ("cuda", "cuda")):
        assert routing.accelerator_of(Choice("auto"), device) == accelerator
        assert routing.accelerator_of(Choice("mlx"), device) == "mlx"
        assert routing.accelerator_of(Choice("cuda"), device) == "cuda"


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
