"""Derivatives as programs ask for them: every order, direction, transform and habit of autograd."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import metal
import pytest
import torch
from gradients import check_close, compare_derivatives, noise, torchs_own_warnings, wide
from needs import needs_mlx
from patched import NATIVE, accelerated_calls
from reference import close, random_tensor
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.utils.checkpoint import checkpoint

import torch_mlx_spectro as tms
from torch_mlx_spectro import emulator
from torch_mlx_spectro.mlx import ops as maps
from torch_mlx_spectro.mlx.runtime import runtime

SIGNALS = random_tensor(0, 3, 2, 240)
WINDOW = torch.hann_window(16) + 0.1
WINDOWS = torch.stack([WINDOW, WINDOW + 1, WINDOW.flip(0)])


#: By MLX's operations in blocks, by torch's, and by the Metal kernels.
ROUTES = [pytest.param("blocks", marks=needs_mlx), "cpu", "kernels"]


@pytest.fixture(params=ROUTES)
def accelerated(request: pytest.FixtureRequest) -> Iterator[None]:
    """torch's functions patched, strict, by each computation."""
    if request.param != "kernels":
        with in_blocks(request.param):
            yield
        return
    if (reason := emulator.available()) is not None:
        pytest.skip(reason)
    folder: Path = request.getfixturevalue("metal_cache")
    with metal.emulated(folder) as machine:
        yield
    assert machine.launches


@contextmanager
def in_blocks(route: str) -> Iterator[None]:
    """torch's functions patched, strict, by one of the computations without kernels."""
    with tms.patch("cpu" if route == "cpu" else "mlx", strict=True):
        yield


@pytest.fixture(params=ROUTES[:2])
def blocks(request: pytest.FixtureRequest) -> Iterator[None]:
    """torch's functions patched, strict, by the computations that cut long rows."""
    with in_blocks(request.param):
        yield


def energy(signal: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    """A scalar that depends on both functions, and on the window through each of them."""
    spectrum = torch.stft(signal, 16, 4, window=window, return_complex=True)
    shaped = spectrum * (0.5 + 0.1j) + spectrum.abs().tanh()
    back = torch.istft(shaped, 16, 4, window=window, length=signal.shape[-1])
    return (back**3).sum() + torch.view_as_real(spectrum).pow(3).sum()


def magnitudes(signal: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    return torch.stft(signal, 16, 4, window=window, return_complex=True).abs().sum(-1)


def ones(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return tuple(map(torch.ones_like, tensors))


#: By name: a function of signals (3, 2, 240) and of windows (3, 16).
TRANSFORMS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "grad in signal": lambda x, w: grad(energy)(x[0], w[0]),
    "grad in window": lambda x, w: grad(energy, 1)(x[0], w[0]),
    "vmap over signals": lambda x, w: vmap(energy, (0, None))(x, w[0]),
    "vmap over another dimension": lambda x, w: vmap(energy, (1, None))(x, w[0]),
    "vmap over the last dimension": lambda x, w: vmap(energy, (2, None))(x.permute(1, 2, 0), w[0]),
    "vmap over windows": lambda x, w: vmap(energy, (None, 0))(x[0], w),
    "vmap over both": lambda x, w: vmap(energy)(x, w),
    "vmap of vmap": lambda x, w: vmap(vmap(energy, (0, None)))(x, w),
    "vmap of grad": lambda x, w: vmap(grad(energy), (0, None))(x, w[0]),
    "vmap of grad in window": lambda x, w: vmap(grad(energy, 1), (0, None))(x, w[0]),
    "vjp": lambda x, w: vjp(energy, x[0], w[0])[1](x.new_tensor(2.0))[1],
    "jvp": lambda x, w: jvp(energy, (x[0], w[0]), ones(x[0], w[0]))[1],
    "jvp in signal": lambda x, w: jvp(lambda x: energy(x, w[0]), (x[0],), ones(x[0]))[1],
    "grad of grad": lambda x, w: grad(lambda x: grad(energy, 1)(x, w[0]).pow(2).sum())(x[0]),
    "jvp of grad": lambda x, w: jvp(lambda x: grad(energy, 1)(x, w[0]), (x[0],), ones(x[0]))[1],
    "grad of jvp": lambda x, w: grad(lambda x: jvp(lambda w: energy(x, w), (w[0],), ones(w[0]))[1])(
        x[0]
    ),
    "jacrev": lambda x, w: jacrev(magnitudes, 1)(x[0], w[0]),
    "jacfwd": lambda x, w: jacfwd(magnitudes, 1)(x[0], w[0]),
    "hessian": lambda x, w: hessian(energy, 1)(x[0], w[0]),
    "older vmap": lambda x, w: torch.autograd.functional.jacobian(
        lambda x: torch.stack([energy(x, w[0]), energy(x, w[1])]), x[0], vectorize=True
    ),
}


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
@pytest.mark.parametrize("route", ROUTES)
def test_transforms_of_torch_func(
    transform: Callable[..., torch.Tensor], route: str, metal_cache: Path
) -> None:
    kernels = route == "kernels"
    if kernels and (reason := emulator.available()) is not None:
        pytest.skip(reason)
    with torchs_own_warnings():
        exact = transform(wide(SIGNALS), wide(WINDOWS))
        expected = transform(SIGNALS, WINDOWS)
        if kernels:
            with metal.emulated(metal_cache, checked=False):
                actual = transform(SIGNALS, WINDOWS)
        else:
            with in_blocks(route):
                actual = transform(SIGNALS, WINDOWS)
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
    check_close("transform", actual, expected, exact)
    assert tms.stats().native == 0
    assert accelerated_calls() >= 1


LONG: list[dict[str, Any]] = [
    {"n_fft": 512, "hop_length": 128},
    {"n_fft": 400, "hop_length": 160, "win_length": 320, "normalized": True},
    {"n_fft": 300, "hop_length": 111, "center": False, "pad_mode": "constant"},
    {"n_fft": 256, "hop_length": 300, "pad_mode": "circular"},
]


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("arguments", LONG, ids=str)
def test_signals_of_many_blocks(arguments: dict[str, Any]) -> None:
    """Long enough for several blocks on every stream, rows that end within one."""
    window = torch.hann_window(arguments.get("win_length", arguments["n_fft"])) + 0.05
    tensors = {"signal": random_tensor(0, 3, 70_001), "window": window}

    def of(function: Any) -> Any:
        def call(signal: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = function(signal, window=window, return_complex=True, **arguments)
            return result

        return call

    compare_derivatives(of(torch.stft), of(NATIVE["stft"]), tensors)
    assert accelerated_calls() == 2


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize(
    "arguments",
    [
        {"n_fft": 512, "hop_length": 128},
        {"n_fft": 400, "hop_length": 100, "length": 75_000, "normalized": True},
        {"n_fft": 256, "hop_length": 8, "length": 4_000},
        {"n_fft": 256, "hop_length": 64, "onesided": False},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:The length of signal is shorter:UserWarning")
def test_spectra_of_many_blocks(arguments: dict[str, Any]) -> None:
    n_fft = arguments["n_fft"]
    bins = n_fft if arguments.get("onesided") is False else n_fft // 2 + 1
    tensors = {
        "spectrum": random_tensor(0, 3, bins, 601, complex_values=True),
        "window": torch.hann_window(n_fft) + 0.2,
    }

    def of(function: Any) -> Any:
        return lambda spectrum, window: function(spectrum, window=window, **arguments)

    compare_derivatives(of(torch.istft), of(NATIVE["istft"]), tensors)
    alone = {"spectrum": tensors["spectrum"]}
    fixed = tensors["window"]

    def without_window(function: Any) -> Any:
        def call(spectrum: torch.Tensor) -> torch.Tensor:
            window = fixed.double() if spectrum.dtype == torch.complex128 else fixed
            result: torch.Tensor = function(spectrum, window=window, **arguments)
            return result

        return call

    compare_derivatives(without_window(torch.istft), without_window(NATIVE["istft"]), alone)
    assert accelerated_calls() == 4


@pytest.mark.usefixtures("accelerated")
@pytest.mark.parametrize("win_length", [16, 11])
def test_an_istft_by_a_complex_window_that_is_trained(win_length: int) -> None:
    """An adjoint conjugates the window, an istft does not."""
    tensors = {
        "spectrum": random_tensor(0, 2, 16, 9, complex_values=True),
        "window": random_tensor(1, win_length, complex_values=True) + 4,
    }
    sizes = {"n_fft": 16, "hop_length": 4, "win_length": win_length}

    def of(function: Any) -> Any:
        return lambda spectrum, window: function(
            spectrum, window=window, **sizes, onesided=False, return_complex=True
        )

    compare_derivatives(of(torch.istft), of(NATIVE["istft"]), tensors)
    assert accelerated_calls() == 2


@pytest.mark.usefixtures("blocks")
def test_an_envelope_may_be_zero_outside_of_the_kept_samples() -> None:
    """A Hann window begins with a zero: its gradient is finite all the same."""
    tensors = {
        "spectrum": random_tensor(0, 2, 9, 12, complex_values=True),
        "window": torch.hann_window(16),
    }

    def of(function: Any) -> Any:
        return lambda spectrum, window: function(spectrum, 16, 4, window=window)

    assert "gradient of window" in compare_derivatives(
        of(torch.istft), of(NATIVE["istft"]), tensors
    )


def stft(signal: torch.Tensor, window: torch.Tensor = WINDOW) -> torch.Tensor:
    return torch.stft(signal, 16, 4, window=window, return_complex=True)


def gradient_of(function: Callable[..., torch.Tensor], **leaf: Any) -> torch.Tensor:
    signal = SIGNALS[0].clone().requires_grad_()
    function(signal).abs().square().sum().backward()
    assert signal.grad is not None
    return signal.grad


def natively(function: Callable[..., torch.Tensor]) -> torch.Tensor:
    with tms.backend("native"):
        return gradient_of(function)


#: What a program may do between forward and backward, as functions of a signal.
HABITS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "nothing": stft,
    "spectra changed in place": lambda x: stft(x).mul_(2).add_(1),
    "rows changed in place": lambda x: stft(x).clone().index_fill_(0, torch.tensor([0]), 3),
    "views changed in place": lambda x: _zeroed(stft(x)),
    "views of one signal changed": lambda x: _zeroed(stft(x[0])),
    "as real": lambda x: torch.view_as_real(stft(x)).relu(),
    "checkpoint": lambda x: _checkpointed(x),
    "signal methods": lambda x: x.stft(16, 4, window=WINDOW, return_complex=True),
    "round trip": lambda x: stft(x).istft(16, 4, window=WINDOW, length=240),
    "one gradient twice": lambda x: stft(x) + stft(x).flip(-1),
}


def _zeroed(spectrum: torch.Tensor) -> torch.Tensor:
    spectrum[..., 3] = 0
    spectrum[..., :4, :].mul_(2)
    return spectrum


def _checkpointed(signal: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = checkpoint(stft, signal, use_reentrant=False)
    return result


@pytest.mark.usefixtures("accelerated")
@pytest.mark.parametrize("habit", HABITS.values(), ids=HABITS)
def test_habits_of_programs(habit: Callable[..., torch.Tensor]) -> None:
    expected = natively(habit)
    tms.reset_stats()
    close(gradient_of(habit), expected, 5e-6)
    assert tms.stats().native == 0


@pytest.mark.usefixtures("strict_mlx")
def test_a_window_that_was_changed_in_place_is_an_error_as_natively() -> None:
    for choice in ("native", "mlx"):
        with tms.backend(choice, strict=True):
            signal, changed = SIGNALS[0].clone().requires_grad_(), WINDOW.clone()
            spectrum = stft(signal, changed)
            changed.mul_(2)
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                spectrum.abs().sum().backward()


@pytest.mark.usefixtures("accelerated")
def test_hooks_retained_graphs_and_accumulation() -> None:
    def run() -> list[torch.Tensor]:
        seen: list[torch.Tensor] = []
        signal = SIGNALS[0].clone().requires_grad_()
        spectrum = stft(signal)
        spectrum.register_hook(lambda cotangent: seen.append(cotangent) or 2 * cotangent)  # type: ignore[func-returns-value]
        spectrum.retain_grad()
        signal.register_post_accumulate_grad_hook(lambda leaf: seen.append(leaf.grad.clone()))
        loss = spectrum.abs().square().sum()
        loss.backward(retain_graph=True)
        loss.backward()
        assert spectrum.grad is not None
        assert signal.grad is not None
        with pytest.raises(RuntimeError, match="backward through the graph a second time"):
            loss.backward()
        return [*seen, spectrum.grad, signal.grad]

    with tms.backend("native"):
        expected = run()
    for actual, native in zip(run(), expected, strict=True):
        close(actual, native, 5e-6)


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled:UserWarning")
@pytest.mark.usefixtures("accelerated")
def test_anomaly_mode_names_the_call_that_made_a_nan() -> None:
    signal = SIGNALS[0].clone().requires_grad_()
    with torch.autograd.detect_anomaly(check_nan=True):
        spectrum = stft(signal)
        with pytest.raises(RuntimeError, match="returned nan values"):
            (spectrum * float("nan")).abs().sum().backward()
    with torch.autograd.detect_anomaly(check_nan=True):
        stft(signal).abs().sum().backward()


@pytest.mark.usefixtures("strict_mlx")
def test_only_what_derivatives_need_is_kept_alive() -> None:
    """A signal of an hour is kept only where native refers to it or the window is trained."""
    leaf, trained = SIGNALS[0].clone().requires_grad_(), WINDOW.clone().requires_grad_()
    cases = ((WINDOW, {}, True), (WINDOW, {"pad_mode": "constant"}, False), (trained, {}, True))
    for backend, (window, more, kept) in product(("native", "mlx"), cases):
        signal = leaf * 1
        alive = weakref.ref(signal)
        with tms.backend(backend, strict=True):
            spectrum = torch.stft(signal, 16, 4, window=window, return_complex=True, **more)
        del signal
        gc.collect()
        assert (alive() is not None) == kept
        spectrum.abs().sum().backward()
        del spectrum
        gc.collect()
        assert alive() is None
    spectrum = stft(leaf) * 1
    alive = weakref.ref(spectrum)
    back = torch.istft(spectrum, 16, 4, window=WINDOW)
    del spectrum
    gc.collect()
    assert alive() is None
    back.sum().backward()


@pytest.mark.usefixtures("accelerated")
def test_backward_in_another_thread_and_in_many_at_once() -> None:
    expected = natively(HABITS["round trip"])
    signals = [SIGNALS[0].clone().requires_grad_() for _ in range(8)]
    losses = [HABITS["round trip"](signal).abs().square().sum() for signal in signals]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(torch.Tensor.backward, losses))
    for signal in signals:
        assert signal.grad is not None
        close(signal.grad, expected, 5e-6)
    thread = threading.Thread(
        target=lambda: close(gradient_of(HABITS["round trip"]), expected, 5e-6)
    )
    thread.start()
    thread.join()


@pytest.mark.usefixtures("blocks")
def test_results_do_not_depend_on_the_number_of_threads() -> None:
    """Deterministic: the same call gives the same bits, in forward and backward."""
    signal, window = random_tensor(1, 2, 200_000), torch.hann_window(512)

    def run() -> torch.Tensor:
        leaf = signal.clone().requires_grad_()
        spectrum = torch.stft(leaf, 512, window=window, return_complex=True)
        (found,) = torch.autograd.grad(spectrum, leaf, noise(spectrum, 1))
        return found

    expected, before = run(), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert torch.equal(run(), expected)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(run(), expected)


def test_gradcheck_in_double_precision_is_natives_where_mlx_is_asked_for() -> None:
    signal = wide(SIGNALS[0, :, :60]).requires_grad_()
    window = wide(WINDOW).requires_grad_()
    with tms.patch(backend="mlx"), torchs_own_warnings():
        torch.autograd.gradcheck(stft, (signal, window), check_forward_ad=True, fast_mode=True)
        torch.autograd.gradgradcheck(stft, (signal, window), fast_mode=True)
    stats = tms.stats()
    assert stats.accelerated == 0
    assert any("torch.float64" in reason for reason in stats.fallbacks)


def test_auto_measures_no_transforms_and_says_so() -> None:
    signal, window = torch.randn(8, 600_000), torch.hann_window(1024)

    def loss(signal: torch.Tensor) -> torch.Tensor:
        routes.append(tms.explain("stft", signal, 1024, window=window, return_complex=True))
        return signal.sum()

    routes: list[tms.Route] = []
    with tms.backend("auto"):
        grad(loss)(signal)
    assert routes[0].backend == "cpu"
    assert routes[0].reasons == ("auto: transformed calls are not measured",)


#: By what is known of the window when it is asked for its envelope.
VANISHING: dict[str, Callable[[torch.Tensor, torch.Tensor], Any]] = {
    "plain": lambda z, w: torch.istft(z, 16, 4, window=w),
    "of a leaf": lambda z, w: torch.istft(z.clone().requires_grad_(), 16, 4, window=w),
    "in a leaf": lambda z, w: torch.istft(z, 16, 4, window=w.clone().requires_grad_()),
    "transformed": lambda z, w: vjp(lambda w: torch.istft(z, 16, 4, window=w), w),
}


@pytest.mark.parametrize("call", VANISHING.values(), ids=VANISHING)
def test_vanishing_envelopes_raise_torchs_error(call: Callable[..., Any]) -> None:
    spectrum = stft(SIGNALS[0])
    errors = []
    for backend in ("native", "mlx", "cpu"):
        with tms.patch(backend=backend), pytest.raises(RuntimeError) as raised:
            call(spectrum, torch.zeros(16))
        errors.append(str(raised.value).partition("\nException raised")[0])
    assert errors[0] == errors[1] == errors[2]


@pytest.mark.usefixtures("strict_mlx")
def test_no_gradients_no_graph() -> None:
    leaf = SIGNALS[0].clone().requires_grad_()
    with torch.no_grad():
        assert not stft(leaf).requires_grad
    with torch.inference_mode():
        assert stft(leaf).is_inference()
    assert stft(leaf.detach()).grad_fn is None
    assert stft(leaf).requires_grad
    assert accelerated_calls() == 4


@pytest.mark.usefixtures("strict_mlx")
def test_inference_tensors_cannot_be_saved_as_natively() -> None:
    with torch.inference_mode():
        window = WINDOW.clone()
    leaf = SIGNALS[0].clone().requires_grad_()
    for choice in ("native", "mlx", "cpu"):
        with (
            tms.backend(choice, strict=True),
            pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward"),
        ):
            stft(leaf, window)


@pytest.mark.usefixtures("accelerated")
def test_gradients_have_natives_strides() -> None:
    """What accumulates into a leaf has the leaf's layout, and what is asked for is contiguous."""
    spectrum = stft(SIGNALS[0]).detach().requires_grad_()
    torch.istft(spectrum, 16, 4, window=WINDOW).square().sum().backward()
    assert spectrum.grad is not None
    assert spectrum.grad.stride() == spectrum.stride()
    assert gradient_of(stft).stride() == SIGNALS[0].stride()


@pytest.mark.usefixtures("strict_mlx")
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_backward_leaves_no_lock_held(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = natively(HABITS["round trip"])

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        raise error

    with monkeypatch.context() as broken:
        spectrum = stft(SIGNALS[0].clone().requires_grad_())
        broken.setattr(maps, "invert_spectra", interrupted)
        with pytest.raises(error):
            spectrum.abs().sum().backward()
    assert not runtime().lock.locked()
    close(gradient_of(HABITS["round trip"]), expected, 5e-6)
