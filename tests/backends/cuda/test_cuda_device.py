"""The ``cuda`` backend on a real device; every test here is skipped where there is none."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from gradients import derivatives, wide
from needs import ONCE_ONLY
from reference import istft_params, stft_params
from torch.utils.checkpoint import checkpoint
from window_changes import CHANGES, LAYOUTS

import torch_mlx_spectro as tms
from torch_mlx_spectro.backends.cuda.backend import CUDA as BACKEND
from torch_mlx_spectro.calls import operation
from torch_mlx_spectro.dispatch import decide as deciding
from torch_mlx_spectro.dispatch.autotune import MAX_TRIALS
from torch_mlx_spectro.dispatch.plans import plans
from torch_mlx_spectro.errors import UnresolvedArguments
from torch_mlx_spectro.native import functions as native
from torch_mlx_spectro.store import verdicts
from torch_mlx_spectro.store.verdicts import Store
from torch_mlx_spectro.verify import criterion

CUDA = tms.available_backends()["cuda"]
pytestmark = [
    pytest.mark.skipif(not CUDA.available, reason=f"no CUDA kernels: {CUDA.reason}"),
    *ONCE_ONLY,
    pytest.mark.filterwarnings("ignore:.*Synchronization debug mode is a prototype"),
]

Call = Callable[..., torch.Tensor]


@pytest.fixture(autouse=True)
def strict() -> Iterator[None]:
    plans.clear()
    BACKEND.checks.forget()
    tms.reset_stats()
    with tms.backend("cuda", strict=True):
        yield


def noise(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator("cuda").manual_seed(seed)
    return torch.randn(shape, generator=generator, device="cuda", dtype=dtype)


def spectrum_of(rows: int, n_fft: int, frames: int, bins_fastest: bool = True) -> torch.Tensor:
    """A spectrum whose DC and Nyquist are real, as of a signal: torch on CUDA differs else."""
    bins = n_fft // 2 + 1
    if bins_fastest:
        spectrum = noise(rows, frames, bins, dtype=torch.complex64).transpose(1, 2)
    else:
        spectrum = noise(rows, bins, frames, dtype=torch.complex64)
    spectrum[:, 0].imag.zero_()
    if n_fft % 2 == 0:
        spectrum[:, -1].imag.zero_()
    return spectrum


def widened(value: Any) -> Any:
    return wide(value) if isinstance(value, torch.Tensor) else value


def check(name: str, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Assert that our answer is torch's in everything but the route; at most twice its error."""
    function, original = getattr(tms, name), getattr(native, name)
    expected = original(*args, **kwargs)
    exact = original(*map(widened, args), **{k: widened(v) for k, v in kwargs.items()})
    result: torch.Tensor = function(*args, **kwargs)
    again = function(*args, **kwargs)
    assert torch.equal(result, again), "two runs differ"
    for of in ("shape", "dtype", "device", "requires_grad"):
        assert getattr(result, of) == getattr(expected, of)
    assert result.stride() == expected.stride()
    own = (expected - exact).abs().max()
    allowed = 2 * own + 2e-6 * exact.abs().max()
    assert (result - exact).abs().max() <= allowed
    return result


SIZES = [
    (512, 128, 2, 16_000),
    (1024, 256, 3, 40_000),
    (400, 160, 2, 16_000),
    (2048, 441, 2, 30_000),
    (4096, 1024, 1, 50_000),
    (6144, 1024, 2, 44_100),
    (8192, 2048, 1, 44_100),
    (7680, 1000, 1, 44_100),
    (16, 4, 3, 120),
    (15, 4, 3, 120),
    (243, 50, 2, 3_000),
    (1023, 300, 2, 9_000),
    (1022, 146, 2, 9_000),
    (97, 31, 2, 3_000),
    (10_006, 2_500, 1, 44_100),
    (2, 1, 3, 50),
    (1024, 1024, 1, 9_000),
    (64, 1, 1, 900),
]


@pytest.mark.parametrize(("n_fft", "hop", "rows", "samples"), SIZES)
def test_both_functions_of_many_sizes(n_fft: int, hop: int, rows: int, samples: int) -> None:
    window = torch.hann_window(n_fft, device="cuda") + 0.1
    signal = noise(rows, samples)
    result = check("stft", signal, n_fft, hop, window=window, return_complex=True)
    frames = result.shape[-1]
    for bins_fastest in (True, False):
        spectrum = spectrum_of(rows, n_fft, frames, bins_fastest)
        check("istft", spectrum, n_fft, hop, window=window)
    assert tms.stats().calls.keys() == {("stft", "cuda"), ("istft", "cuda")}


MODES = ("reflect", "constant", "replicate", "circular")


@pytest.mark.parametrize("n_fft", [64, 75, 106, 194])
def test_arguments_of_stft(n_fft: int) -> None:
    window = torch.hann_window(n_fft - 5, device="cuda") + 0.1
    choices = itertools.product((*MODES, None), (False, True), (None, False), (True, False))
    for mode, normalized, onesided, dense in choices:
        signal = noise(2, 700) if dense else noise(700, 4).t()[::2]
        check(
            "stft",
            signal,
            n_fft,
            20,
            n_fft - 5,
            window,
            center=mode is not None,
            pad_mode=mode or "reflect",
            normalized=normalized,
            onesided=onesided,
            return_complex=True,
        )
    for signal in (noise(700), noise(1, 700), noise(1, 700).expand(3, 700)):
        check("stft", signal, n_fft, n_fft + 30, window=None, win_length=9, return_complex=True)
        for center in (False, True):
            check("stft", signal, n_fft, 7, n_fft - 5, window, center=center, return_complex=True)
    check("stft", noise(2, 700), n_fft, 20, n_fft - 5, window, return_complex=False)
    complex_window = noise(n_fft, dtype=torch.complex64)
    check("stft", noise(2, 700), n_fft, 20, window=complex_window)
    check("stft", noise(2, 700, dtype=torch.complex64).conj(), n_fft, 20, window=complex_window)
    check("stft", noise(2, 700, dtype=torch.complex64).imag, n_fft, 20, return_complex=True)
    aligned = {"center": False, "align_to_window": True, "return_complex": True}
    check("stft", noise(2, 700), n_fft, 20, n_fft - 5, window, **aligned)


@pytest.mark.parametrize("n_fft", [64, 75, 106, 194])
def test_arguments_of_istft(n_fft: int) -> None:
    window = torch.hann_window(n_fft - 5, device="cuda") + 0.1
    full = torch.hann_window(n_fft, device="cuda") + 0.1
    for normalized, length, center in itertools.product(
        (False, True), (None, 300, 900), (False, True)
    ):
        for bins_fastest in (True, False):
            spectrum = spectrum_of(2, n_fft, 40, bins_fastest)
            options = {"center": center, "normalized": normalized, "length": length}
            # Elsewhere a window shorter than n_fft leaves samples uncovered.
            if center and length != 900:
                check("istft", spectrum, n_fft, 20, n_fft - 5, window, **options)
            check("istft", spectrum, n_fft, 20, window=full, **options)
    whole = noise(2, n_fft, 40, dtype=torch.complex64)
    complex_window = noise(n_fft, dtype=torch.complex64)
    for window in (complex_window, torch.hann_window(n_fft, device="cuda") + 0.1):
        check("istft", whole, n_fft, 20, window=window, return_complex=True)
        check("istft", whole.conj(), n_fft, 20, window=window, return_complex=True)
    two_sided = torch.fft.fft(noise(2, 40, n_fft)).transpose(1, 2)
    check("istft", two_sided, n_fft, 20, window=window, onesided=False)
    check("istft", spectrum_of(1, n_fft, 3)[0], n_fft, 20, window=window)
    check("istft", spectrum_of(4, n_fft, 60)[::2, :, 5:30], n_fft, 20, window=window)


def test_many_rows_and_many_frames() -> None:
    window = torch.hann_window(16, device="cuda") + 0.1
    signal = noise(70_000, 32)
    spectrum = check("stft", signal, 16, 4, window=window, return_complex=True)
    check("istft", spectrum, 16, 4, window=window)
    prime = torch.hann_window(11, device="cuda") + 0.1
    spectrum = check("stft", noise(2, 200_000), 11, 2, window=prime, return_complex=True)
    check("istft", spectrum, 11, 2, window=prime)
    check(
        "istft", check("stft", signal, 11, 2, window=prime, return_complex=True), 11, 2, None, prime
    )


def test_what_torch_rejects_torch_rejects() -> None:
    with pytest.raises(RuntimeError, match="window overlap add min"):
        tms.istft(spectrum_of(1, 16, 9), 16, 16, window=torch.hann_window(16, device="cuda"))
    with pytest.raises(RuntimeError):
        tms.stft(noise(5), 16, return_complex=True)


def test_a_window_that_changes_is_read_again() -> None:
    signal, spectrum = noise(2, 4_000), spectrum_of(2, 64, 50)
    window = torch.hann_window(64, device="cuda") + 0.1
    for _ in range(3):
        check("stft", signal, 64, 16, window=window, return_complex=True)
        check("istft", spectrum, 64, 16, window=window)
        window.mul_(1.5).add_(0.2)
    window.data = torch.rand(64, device="cuda") + 0.5
    check("stft", signal, 64, 16, window=window, return_complex=True)
    check("istft", spectrum, 64, 16, window=window)
    with torch.inference_mode():
        unversioned = torch.rand(64, device="cuda") + 0.5
        for _ in range(2):
            check("stft", signal, 64, 16, window=unversioned, return_complex=True)
            check("istft", spectrum, 64, 16, window=unversioned)
            unversioned.add_(0.25)


@pytest.mark.parametrize("n_fft", [64, 202])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("change", CHANGES)
def test_changes_that_no_version_tells_are_seen(change: str, layout: str, n_fft: int) -> None:
    window = LAYOUTS[layout](n_fft, torch.device("cuda"))
    is_complex, win_length = window.is_complex(), len(window)
    signal = noise(2, 4_000).requires_grad_()
    bins = n_fft if is_complex else n_fft // 2 + 1
    spectrum = noise(2, bins, 50, dtype=torch.complex64)
    if not is_complex:
        spectrum[:, [0, -1]] = spectrum[:, [0, -1]].real.to(torch.complex64)
    spectrum.requires_grad_()
    sizes = (n_fft, n_fft // 4, win_length)

    def computed(namespace: Any, wide: bool = False) -> list[torch.Tensor]:
        x, z, w = signal, spectrum, window
        if wide:
            x, z, w = widened(x).requires_grad_(), widened(z).requires_grad_(), widened(w)
        found = [
            namespace.stft(x, *sizes, w, normalized=True, return_complex=True),
            namespace.istft(z, *sizes, w, return_complex=is_complex),
        ]
        with torch.no_grad():
            found += [
                namespace.stft(x, *sizes, w, return_complex=True),
                namespace.istft(z, *sizes, w, return_complex=is_complex),
            ]
        for result, leaf in zip(found[:2], (x, z), strict=True):
            seed = torch.linspace(-1, 1, result.numel(), device="cuda").view(result.shape)
            found += torch.autograd.grad(result, leaf, seed.to(result.dtype))
        return found

    for _ in range(2):  # decided anew, and remembered
        computed(tms)
    version = window._version
    CHANGES[change](window)
    assert window._version == version
    exact = computed(native, wide=True)
    for ours, theirs, truth in zip(computed(tms), computed(native), exact, strict=True):
        own = (theirs - truth).abs().max()
        assert (ours - truth).abs().max() <= 2 * own + 4e-6 * truth.abs().max()


def close(found: dict[str, Any], expected: dict[str, Any], exact: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, value in found.items():
        own = (expected[name] - exact[name]).abs().max()
        peak = exact[name].abs().max()
        assert (value - exact[name]).abs().max() <= 2 * own + 4e-6 * peak, name


@pytest.mark.parametrize("n_fft", [64, 75, 106])
@pytest.mark.parametrize("mode", [*MODES, None])
def test_derivatives_of_stft(n_fft: int, mode: str | None) -> None:
    window = torch.hann_window(n_fft, device="cuda") + 0.1
    for onesided in (True, False):
        options = {"center": mode is not None, "pad_mode": mode or "reflect", "onesided": onesided}

        def call(original: Call, options: dict[str, Any] = options) -> Call:
            return lambda x, w: original(
                x, n_fft, 20, window=w, return_complex=True, normalized=True, **options
            )

        tensors = {"x": noise(2, 300), "w": window}
        double = {name: wide(value) for name, value in tensors.items()}
        close(
            derivatives(call(tms.stft), tensors),
            derivatives(call(native.stft), tensors),
            derivatives(call(native.stft), double),
        )
    assert {backend for _, backend in tms.stats().calls} == {"cuda"}


@pytest.mark.parametrize("n_fft", [64, 75, 106])
@pytest.mark.parametrize("bins_fastest", [True, False])
def test_derivatives_of_istft(n_fft: int, bins_fastest: bool) -> None:
    window = torch.hann_window(n_fft, device="cuda") + 0.5

    def call(original: Call) -> Call:
        def of(z: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
            # As in test_both_functions: torch on CUDA reads what does not belong to real frames.
            own = torch.ones(z.shape[-2], 1, device="cuda")
            own[0] = 0
            if n_fft % 2 == 0:
                own[-1] = 0
            return original(torch.complex(z.real, z.imag * own), n_fft, 20, window=w, length=240)

        return of

    tensors = {"z": spectrum_of(2, n_fft, 13, bins_fastest), "w": window}
    double = {name: wide(value) for name, value in tensors.items()}
    close(
        derivatives(call(tms.istft), tensors),
        derivatives(call(native.istft), tensors),
        derivatives(call(native.istft), double),
    )
    assert {backend for _, backend in tms.stats().calls} == {"cuda"}


def test_nothing_waits_for_the_device() -> None:
    window = torch.hann_window(1024, device="cuda")
    signal = noise(2, 60_000).requires_grad_()

    def step(length: int) -> None:
        x = signal[:, :length]
        spectrum = tms.stft(x, 1024, 256, window=window, return_complex=True)
        back = tms.istft(spectrum, 1024, 256, window=window, length=length)
        back.square().sum().backward()
        with torch.no_grad():
            for _ in range(2):
                z = tms.stft(x, 1024, 256, window=window, return_complex=True)
                tms.istft(z, 1024, 256, window=window)

    step(60_000)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(60_000)
        step(50_000)  # another length, all of whose envelope was kept before
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("bins_fastest", [True, False])
def test_no_memory_but_input_and_output(bins_fastest: bool) -> None:
    window = torch.hann_window(1024, device="cuda")
    signal, spectrum = noise(4, 400_000), spectrum_of(4, 1024, 1500, bins_fastest)
    for call in (
        lambda: tms.stft(signal, 1024, 256, window=window, return_complex=True),
        lambda: tms.istft(spectrum, 1024, 256, window=window),
    ):
        size = call().untyped_storage().nbytes()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = call()
        beyond = torch.cuda.max_memory_allocated() - before - size
        assert beyond < 512  # the allocator's rounding
        del result


def test_graphs_are_captured_and_replayed() -> None:
    window = torch.hann_window(512, device="cuda") + 0.1
    signal = noise(2, 16_000)

    def step() -> tuple[torch.Tensor, torch.Tensor]:
        z = tms.stft(signal, 512, 128, window=window, return_complex=True)
        return z, tms.istft(z, 512, 128, window=window, length=16_000)

    with torch.no_grad():
        step()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            z, back = step()
        for change in (lambda: signal.copy_(noise(2, 16_000, seed=1)), lambda: window.mul_(2.0)):
            change()
            graph.replay()
            expected, around = step()
            assert torch.allclose(z, expected, atol=1e-5)
            assert torch.allclose(back, around, atol=1e-5)
            assert torch.allclose(back, signal, atol=1e-4)


def test_a_training_step_is_captured() -> None:
    window = torch.hann_window(512, device="cuda") + 0.1
    signal = noise(2, 16_000).requires_grad_()
    weight = torch.ones((), device="cuda", requires_grad=True)

    def step() -> None:
        z = tms.stft(signal * weight, 512, 128, window=window, return_complex=True)
        tms.istft(z * weight, 512, 128, window=window).square().sum().backward()

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            weight.grad = signal.grad = None
            step()
    torch.cuda.current_stream().wait_stream(stream)
    assert weight.grad is not None
    expected = weight.grad.clone()
    weight.grad = signal.grad = None
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    graph.replay()
    assert torch.allclose(weight.grad, expected, rtol=1e-5)


@pytest.mark.parametrize(("n_fft", "hop", "rows", "samples"), [SIZES[0], SIZES[1], SIZES[5]])
def test_each_launch_reads_what_the_one_before_wrote(
    n_fft: int, hop: int, rows: int, samples: int
) -> None:
    """Launches come to the cores while their predecessors leave (cuda.h)."""

    def chain(wait: Callable[[], None]) -> list[torch.Tensor]:
        signal, found = noise(rows, samples), []
        for turn in range(40):
            window = torch.hann_window(n_fft, device="cuda").add_(0.1 + 0.01 * turn)
            wait()
            z = tms.stft(signal, n_fft, hop, window=window, return_complex=True)
            wait()
            back = tms.istft(z, n_fft, hop, window=window, length=samples)
            wait()
            found.append(signal := back.mul(0.99))
            del z, back  # the next turn writes there
        return found

    with torch.no_grad():
        expected = chain(torch.cuda.synchronize)
        for _ in range(5):
            assert all(map(torch.equal, chain(lambda: None), expected))


def test_what_was_not_made_before_is_not_captured() -> None:
    window = torch.hann_window(80, device="cuda") + 0.1
    signal = noise(2, 3_000)
    with tms.backend("cuda"):
        native.stft(signal, 80, 7, window=window, return_complex=True)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            z = tms.stft(signal, 80, 7, window=window, return_complex=True)
        graph.replay()
        assert torch.allclose(z, native.stft(signal, 80, 7, window=window, return_complex=True))
    assert any("graph" in reason for reason in tms.stats().fallbacks)


def test_threads_and_streams() -> None:
    window = torch.hann_window(256, device="cuda") + 0.1
    signals = [noise(2, 20_000, seed=seed) for seed in range(8)]
    with torch.no_grad():
        expected = [tms.stft(x, 256, 64, window=window, return_complex=True) for x in signals]
    torch.cuda.synchronize()
    wrong: list[int] = []

    def work(index: int) -> None:
        with (
            torch.no_grad(),
            tms.backend("cuda", strict=True),
            torch.cuda.stream(torch.cuda.Stream()),
        ):
            for _ in range(50):
                z = tms.stft(signals[index], 256, 64, window=window, return_complex=True)
                back = tms.istft(z, 256, 64, window=window, length=20_000)
                if not torch.equal(z, expected[index]):
                    wrong.append(index)
                if not torch.allclose(back, signals[index], atol=1e-4):
                    wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_fresh_thread_has_a_context() -> None:
    window = torch.hann_window(256, device="cuda")
    signal = noise(2, 20_000)
    found: list[torch.Tensor] = []

    def work() -> None:
        with tms.backend("cuda", strict=True):
            found.append(tms.stft(signal, 256, 64, window=window, return_complex=True))

    with torch.no_grad():
        expected = tms.stft(signal, 256, 64, window=window, return_complex=True)
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert torch.equal(found[0], expected)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one device")
def test_every_device_computes_its_own() -> None:
    for index in range(2):
        window = torch.hann_window(256, device=f"cuda:{index}") + 0.1
        signal = torch.randn(2, 9_000, device=f"cuda:{index}")
        for _ in range(2):
            z = check("stft", signal, 256, 64, window=window, return_complex=True)
            check("istft", z, 256, 64, window=window)


def test_a_timer_tells_the_hosts_time_and_the_devices() -> None:
    signal, timer = noise(4, 160_000), BACKEND.make_timer()
    timer.begin()
    for _ in range(5):
        torch.fft.rfft(signal)
    timer.end()
    torch.cuda.synchronize()  # the test's own
    spent = timer.read()
    assert spent is not None
    assert min(spent) > 0
    assert timer.read() == spent


def test_auto_measures_and_decides_without_waiting() -> None:
    window = torch.hann_window(512, device="cuda")
    signal = noise(1, 16_000)
    with tms.backend("auto"), torch.no_grad():
        for _ in range(2 * MAX_TRIALS + 2):
            result = tms.stft(signal, 512, 128, window=window, return_complex=True)
            torch.cuda.synchronize()  # the program's own
        route = tms.explain("stft", signal, 512, 128, window=window, return_complex=True)
    assert torch.allclose(
        result, native.stft(signal, 512, 128, window=window, return_complex=True), atol=1e-4
    )
    assert route.backend in ("cuda", "native")
    assert route.reasons == ("auto: measured faster",)
    assert tms.stats().calls["stft", "native"] >= 3
    assert tms.stats().calls["stft", "cuda"] >= 3


@pytest.mark.parametrize("op", ["stft", "istft"])
def test_training_is_compared_and_timed_there_and_back(
    op: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By autograd's own thread of the device."""
    monkeypatch.setitem(verdicts._process, "store", Store(None, versions={}))
    for state in (deciding.trials, deciding.ledger):
        state.clear()
    window = torch.hann_window(512, device="cuda")
    given: dict[str, Any] = {"window": window}
    tensor = noise(2, 40_000) if op == "stft" else spectrum_of(2, 512, 300)
    if op == "stft":
        given["return_complex"] = True
    with tms.backend("auto"):
        for _ in range(30):
            leaf = tensor.clone().requires_grad_()
            result = getattr(tms, op)(leaf, 512, 128, **given)
            result.abs().square().sum().backward()
            torch.cuda.synchronize()  # the program's own
    expected = tensor.clone().requires_grad_()
    getattr(native, op)(expected, 512, 128, **given).abs().square().sum().backward()
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad, expected.grad, rtol=1e-4, atol=1e-3)
    stats = tms.stats()
    assert (stats.verified, stats.mismatches) == (2, 0)
    races = deciding.trials._races
    both = [races.find(key) for key in list(races._values) if "gradient" in str(key)]
    assert [sorted(race.list_seconds()) for race in both if race] == [["cuda", "native"]]


def test_auto_leaves_checkpointed_calls_with_whom_they_were_given_to_first() -> None:
    """Saved tensors of both computations are compared by torch."""
    for state in (deciding.trials, deciding.ledger):
        state.clear()
    window = torch.hann_window(512, device="cuda")

    def program(x: torch.Tensor) -> torch.Tensor:
        z = tms.stft(x, 512, 128, window=window, return_complex=True)
        return tms.istft(z * 2, 512, 128, window=window, length=x.shape[-1])

    with tms.backend("auto"):
        for step in range(20):
            leaf = noise(2, 30_000, seed=step).requires_grad_()
            checkpoint(program, leaf, use_reentrant=False).square().sum().backward()
            if step % 3 == 0:
                program(leaf).square().sum().backward()


def test_compiled_programs() -> None:
    window = torch.hann_window(512, device="cuda")

    def program(x: torch.Tensor) -> torch.Tensor:
        z = tms.stft(x, 512, 128, window=window, return_complex=True)
        return tms.istft(z * 2, 512, 128, window=window, length=x.shape[-1])

    compiled = torch.compile(program, fullgraph=True, backend="aot_eager")
    for requires_grad in (False, True):
        leaves = [noise(2, 16_000).requires_grad_(requires_grad) for _ in range(2)]
        results = [f(x) for f, x in zip((program, compiled), leaves, strict=True)]
        assert torch.equal(*results)
        if requires_grad:
            for result in results:
                result.square().sum().backward()
            assert torch.allclose(*[leaf.grad for leaf in leaves], atol=1e-4)
    assert {backend for _, backend in tms.stats().calls} == {"cuda"}


@pytest.mark.parametrize("index", [0, 1])
def test_what_is_prepared_computes_on_its_tensors_device(index: int) -> None:
    """Also where another device is the current one."""
    if index >= torch.cuda.device_count():
        pytest.skip("there is one device")
    place = torch.device("cuda", index)
    signals = [noise(2, 9_000, seed=seed).to(place) for seed in range(3)]
    windows = [torch.hann_window(64, device=place) + 0.1 * seed for seed in range(1, 4)]
    spectra = []
    sizes = {"n_fft": 64, "hop_length": 16}
    for x, window in zip(signals, windows, strict=True):
        params = stft_params(x, window, **sizes, return_complex=True)
        spectra.append(BACKEND.stft(params, x, window))
    stft = BACKEND.prepare(operation.Call(params, x, window), spectra[-1])
    of_spectrum = istft_params(spectra[0], windows[0], **sizes)
    back = [BACKEND.istft(of_spectrum, *given) for given in zip(spectra, windows, strict=True)]
    istft = BACKEND.prepare(operation.Call(of_spectrum, spectra[0], windows[0]), back[0])
    assert stft is not None
    assert istft is not None
    for x, z, y, window in zip(signals, spectra, back, windows, strict=True):
        for compute, given, expected in ((stft, x, z), (istft, z, y)):
            for fresh in (window, window.clone()):
                found = compute(given, fresh)
                assert (found.device, found.stride()) == (place, expected.stride())
                assert torch.equal(found, expected)
    with pytest.raises(UnresolvedArguments):
        istft(spectra[0], torch.zeros(64, device=place))


def test_without_kernels_native_computes_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BACKEND, "explain_absence", lambda *given: "they are not here")
    plans.clear()
    try:
        signal, window = noise(2, 9_000), torch.hann_window(64, device="cuda")
        for name in ("auto", "cuda"):
            with tms.backend(name):
                tms.stft(signal, 64, window=window, return_complex=True)
            with (
                tms.backend(name, strict=True),
                pytest.raises(tms.NotAccelerated, match="not here"),
            ):
                tms.stft(signal, 64, window=window, return_complex=True)
        assert tms.stats().fallbacks == {"they are not here": 4}  # strict calls count, too
    finally:
        plans.clear()


def test_results_in_doubt_are_computed_in_double_precision_where_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    places: list[str] = []
    widen = criterion._widen

    def noted(tensor: torch.Tensor, place: Any) -> torch.Tensor:
        places.append(torch.device(place).type)
        return widen(tensor, place)

    monkeypatch.setattr(criterion, "_widen", noted)
    monkeypatch.setattr(criterion, "CERTAIN_SHARE", 0.0)
    window = torch.hann_window(64, device="cuda") + 0.1
    with tms.backend("cuda", strict=True, verify=1):
        spectrum = tms.stft(noise(2, 9_000), 64, window=window, return_complex=True)
        assert places == ["cuda", "cuda"]  # input and window
        tms.istft(spectrum, 64, window=window)
    assert places == ["cuda"] * 4
    assert (tms.stats().verified, tms.stats().mismatches) == (2, 0)


@pytest.mark.parametrize("n", [64, 512])
@pytest.mark.parametrize("queued", [False, True])
def test_a_fresh_window_is_judged_while_its_call_runs(n: int, queued: bool) -> None:
    """Windows made anew for every call, good ones and one whose envelope vanishes."""
    spectrum = spectrum_of(2, n, 50)
    expected = native.istft(spectrum, n, n, window=torch.ones(n, device="cuda"))
    for _ in range(20):
        window = torch.ones(n, device="cuda")
        if queued:  # for longer than verdicts are looked for
            torch.cuda._sleep(10_000_000)
        result = tms.istft(spectrum, n, n, window=window)
        assert torch.allclose(result, expected, atol=1e-5)
        with pytest.raises(RuntimeError, match="window overlap add min"):
            tms.istft(spectrum, n, n, window=torch.hann_window(n, device="cuda"))
        again = tms.istft(spectrum, n, n, window=window)
        assert torch.equal(result, again)


def test_a_verdict_comes_before_its_call_has_ended() -> None:
    spectrum, kept = spectrum_of(16, 1024, 5_000), []
    running = 0
    with tms.backend("cuda", strict=True):
        for _ in range(10):
            window = torch.hann_window(1024, device="cuda")
            torch.cuda.synchronize()
            kept = [tms.istft(spectrum, 1024, 256, window=window)]
            running += not torch.cuda.current_stream().query()
    assert kept[0].shape[0] == 16
    assert running > 0  # of calls that take some 150 microseconds


#: By where an envelope has its hole: zeros of the window, the length, and whether that is kept.
ENDS = {
    "first": (slice(0, 1), None, True),
    "last": (slice(511, 512), None, True),
    "beside the last": (slice(511, 512), 512 + 128 * 49 - 1, False),
    "every hop": (slice(5, None, 128), None, True),
    "nowhere": (slice(0, 0), None, False),
}


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.parametrize("bins_fastest", [True, False])
def test_one_group_knows_of_the_whole_envelope(name: str, bins_fastest: bool) -> None:
    zeros, length, vanishes = ENDS[name]
    spectrum = spectrum_of(3, 512, 50, bins_fastest)
    for _ in range(3):
        window = torch.ones(512, device="cuda")
        window[zeros] = 0
        arguments = {"hop_length": 128, "window": window, "center": False, "length": length}
        if vanishes:
            with pytest.raises(RuntimeError, match="window overlap add min"):
                tms.istft(spectrum, 512, **arguments)
        else:
            expected = native.istft(spectrum, 512, **arguments)
            found = tms.istft(spectrum, 512, **arguments)
            assert torch.allclose(found, expected, atol=1e-5)


def test_explained() -> None:
    signal, window = noise(2, 9_000), torch.hann_window(1024, device="cuda")
    route = tms.explain("stft", signal, 1024, window=window, return_complex=True)
    assert (route.backend, route.kernel) == ("cuda", "cuda analysis")
    spectrum = spectrum_of(2, 1024, 9)
    assert tms.explain("istft", spectrum, 1024, window=window).kernel.startswith("cuda synthesis")
    prime = tms.explain("stft", signal, 97, return_complex=True)
    assert prime.kernel == "cuda cut_frames + cufft"
    with tms.backend("cuda"):
        assert "float64" in tms.explain("stft", signal.double(), 64, return_complex=True).reasons[0]
        assert "device cpu" in tms.explain("stft", signal.cpu(), 64, return_complex=True).reasons[0]
    with tms.backend("mlx"):
        assert "device cuda" in tms.explain("stft", signal, 64, return_complex=True).reasons[0]
