"""Small calls on a CPU that come again: the graphs that a transform keeps of them."""

from __future__ import annotations

import gc
import io
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_cases import close, noise

from torch_mlx_spectro import SpectralTransform, clear_caches
from torch_mlx_spectro.mlx_api import functions
from torch_mlx_spectro.mlx_api import ops as mlx_maps
from torch_mlx_spectro.mlx_api.graphs import Graphs

pytestmark = pytest.mark.filterwarnings("ignore:istft. the window overlap-add:RuntimeWarning")


def repeat(call: Callable[[], Any]) -> tuple[Any, Any]:
    """The results of a call without a graph, and by the graph that it has then."""
    first = call()
    call()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(functions, "COMPUTATIONS", None)
        return first, call()


def name_operations(result: Any) -> str:
    file = io.StringIO()
    mx.export_to_dot(file, result)
    return file.getvalue()


@st.composite
def transforms(draw: st.DrawFn) -> SpectralTransform:
    n_fft = draw(st.sampled_from([1, 2, 8, 15, 64, 101]))
    center, onesided = draw(st.booleans()), draw(st.booleans())
    mode = draw(st.sampled_from(["reflect", "constant", "replicate", "circular"]))
    minimal = mode == "constant" and draw(st.booleans())
    return SpectralTransform(
        n_fft,
        draw(st.integers(1, n_fft + 3)),
        draw(st.integers(max(1, n_fft // 2), n_fft)),
        draw(st.sampled_from(["hamming", ("kaiser", 6.0)])),
        center=center,
        normalized=draw(st.booleans()),
        onesided=onesided,
        pad_mode=mode,
        center_tail_pad="minimal" if minimal else "symmetric",
        leading=draw(st.sampled_from(["batch", "any"])),
    )


@settings(max_examples=150)
@given(transforms(), st.integers(0, 99), st.sampled_from(["bfn", "bnf"]), st.data())
def test_graphs_compute_what_the_maps_compute(
    transform: SpectralTransform, seed: int, layout: str, data: st.DataObject
) -> None:
    shapes = [(300,), (2, 201)] + [(2, 3, 130)] * (transform.leading == "any")
    shape = data.draw(st.sampled_from(shapes))
    is_complex = not transform.onesided and data.draw(st.booleans())
    signal = mx.array(noise(seed, *shape, kind=np.complex64 if is_complex else np.float32))
    first, again = repeat(lambda: transform.stft(signal, layout))
    assert np.array_equal(first, again)
    assert "Compiled" not in name_operations(transform.stft(signal, layout))
    length = data.draw(st.sampled_from([shape[-1], shape[-1] - 30, shape[-1] + 200]))

    def istft() -> Any:
        return transform.istft(
            first, length, input_layout=layout, return_complex=is_complex, safety="off"
        )

    one, two = repeat(istft)
    assert one.shape == two.shape
    assert one.dtype == two.dtype
    close(two, np.array(one), 2e-6)
    assert "Compiled" not in name_operations(istft())


@pytest.fixture
def transform() -> SpectralTransform:
    """A transform that keeps graphs of one signal of 400 samples, and of its spectrum."""
    made = SpectralTransform(64, 16)
    signal = mx.array(noise(0, 400))
    repeat(lambda: made.stft(signal))
    spectrum = made.stft(signal)
    repeat(lambda: made.istft(spectrum, 400))
    return made


def test_transformed_calls_are_left_to_the_maps(transform: SpectralTransform) -> None:
    signal, fresh = mx.array(noise(1, 400)), SpectralTransform(64, 16)
    weights = mx.array(noise(2, 1, 400))

    def there_and_back(made: SpectralTransform) -> Callable[[Any], Any]:
        return lambda x: (made.istft(made.stft(x) * 2.0, 400) * weights).sum()

    ours, theirs = there_and_back(transform), there_and_back(fresh)
    close(mx.grad(ours)(signal), np.array(mx.grad(theirs)(signal)), 1e-6)
    (found,), (expected,) = (mx.jvp(each, [signal], [signal])[1] for each in (ours, theirs))
    close(found, np.array(expected), 1e-5)
    both = mx.stack([signal, signal * 3.0])
    close(mx.vmap(ours)(both), np.array(mx.vmap(theirs)(both)), 1e-5)
    close(mx.compile(transform.stft)(signal), np.array(fresh.stft(signal)), 1e-6)


def list_derivatives(made: SpectralTransform, signal: Any, spectrum: Any) -> list[Any]:
    """Gradients, tangents and second derivatives of both functions, also of many cotangents."""
    found = []
    for call, x in ((made.stft, signal), (lambda z: made.istft(z, 380), spectrum)):

        def measure(x: Any, call: Any = call) -> Any:
            return mx.square(mx.abs(call(x))).sum() + mx.abs(call(x * x)).sum()

        def pull(cotangent: Any, call: Any = call, x: Any = x) -> Any:
            return mx.vjp(call, [x], [cotangent])[1][0]

        def push(tangent: Any, call: Any = call, x: Any = x) -> Any:
            return mx.jvp(call, [x], [tangent])[1][0]

        y = call(x)
        found += [
            mx.grad(measure)(x),
            pull(y),
            push(x),
            mx.grad(lambda c: mx.abs(pull(c)).sum())(y),
        ]
        slope = mx.grad(measure)
        found += [mx.grad(lambda x, slope=slope: mx.square(mx.abs(slope(x))).sum())(x)]
        found += [mx.vmap(pull)(mx.stack([y, y * 2.0])), mx.vmap(push)(mx.stack([x, x * 2.0]))]
        found += [mx.compile(slope)(x), mx.vmap(slope)(mx.stack([x, x * 2.0]))]
    return found


@pytest.mark.parametrize("mode", ["reflect", "constant", "replicate", "circular"])
@pytest.mark.parametrize("layout", ["one", "two"])
def test_derivatives_of_graphs_are_those_of_the_maps(mode: str, layout: str) -> None:
    sizes: dict[str, Any] = {"pad_mode": mode, "normalized": True}
    signal = mx.array(noise(4, 400) if layout == "one" else noise(4, 2, 400))
    spectrum = SpectralTransform(64, 24, 50, **sizes).stft(signal) * 1.5
    with_graphs, without = (SpectralTransform(64, 24, 50, **sizes) for _ in range(2))
    repeat(lambda: with_graphs.stft(signal))
    repeat(lambda: with_graphs.istft(spectrum, 380))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Graphs, "compute", lambda *_: None)
        patch.setattr(Graphs, "note", lambda *_: None)
        expected = [np.array(each) for each in list_derivatives(without, signal, spectrum)]
    for found, wanted in zip(
        list_derivatives(with_graphs, signal, spectrum), expected, strict=True
    ):
        assert found.shape == wanted.shape
        close(found, wanted, 1e-5 * np.abs(wanted).max())


def test_a_gradient_that_comes_again_is_not_of_the_maps(transform: SpectralTransform) -> None:
    signal = mx.array(noise(0, 400))
    spectrum = transform.stft(signal)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(functions, "COMPUTATIONS", None)
        mx.eval(mx.grad(lambda x: mx.abs(transform.stft(x)).sum())(signal))
        mx.eval(mx.grad(lambda z: mx.abs(transform.istft(z, 400)).sum())(spectrum))


def test_a_backward_pass_builds_no_gradient_of_a_window_by_name() -> None:
    signal, seen = mx.array(noise(1, 400)), []
    correlate = mlx_maps.compute_correlation

    def note(*arguments: Any) -> Any:
        seen.append(arguments)
        return correlate(*arguments)

    whole = {**functions.COMPUTATIONS, "correlation": (note, None)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(functions, "COMPUTATIONS", whole)
        for window, wanted in (("hann", 0), (mx.ones(64), 1)):
            made = SpectralTransform(64, 16, window=window)
            mx.grad(lambda x, made=made: mx.square(mx.abs(made.stft(x))).sum())(signal)
            assert len(seen) == wanted


def test_the_gradient_in_a_given_window_is_not_lost() -> None:
    signal, window = mx.array(noise(3, 400)), mx.array(np.hanning(64).astype(np.float32))
    made = SpectralTransform(64, 16, window=window)
    repeat(lambda: made.stft(signal))

    def loss(window: Any) -> Any:
        other = made.with_window(window)
        return sum(mx.square(mx.abs(other.stft(signal))).sum() for _ in range(3))

    assert float(mx.abs(mx.grad(loss)(window)).max()) > 0.0


def test_a_graph_is_lazy(transform: SpectralTransform) -> None:
    never = mx.broadcast_to(mx.flatten(mlx_maps._make_refused(mx))[:1], (400,))
    with pytest.raises(RuntimeError, match="without a primitive"):
        mx.eval(never)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(functions, "COMPUTATIONS", None)
        transform.stft(never)


def test_a_graph_is_of_the_stream_that_is_current(transform: SpectralTransform) -> None:
    signal = mx.array(noise(0, 400))
    expected = np.array(transform.stft(signal))
    with mx.stream(mx.new_stream(mx.cpu)):
        assert np.array_equal(transform.stft(signal), expected)
    mx.eval(signal)
    with ThreadPoolExecutor(1) as elsewhere:
        assert np.array_equal(
            elsewhere.submit(lambda: np.array(transform.stft(signal))).result(), expected
        )


def test_another_window_has_other_graphs(transform: SpectralTransform) -> None:
    signal = mx.array(noise(0, 400))
    transform.window = "hamming"
    for _ in range(4):
        close(
            transform.stft(signal),
            np.array(SpectralTransform(64, 16, window="hamming").stft(signal)),
            1e-6,
        )


def test_a_graph_of_an_unsafe_istft_does_not_serve_one_that_has_to_raise() -> None:
    made = SpectralTransform(8, 8, center=False)  # a periodic Hann window begins with a zero
    spectrum = made.stft(mx.array(noise(0, 40)))
    repeat(lambda: made.istft(spectrum, safety="off"))
    with pytest.raises(RuntimeError, match="degenerate"):
        made.istft(spectrum, torch_like=True)


def test_graphs_are_forgotten(transform: SpectralTransform) -> None:
    assert len(transform._graphs._calls) == 2
    clear_caches()
    assert len(transform._graphs._calls) == 0


def test_graphs_do_not_keep_their_transform(transform: SpectralTransform) -> None:
    made = SpectralTransform(64, 16)
    for _ in range(3):
        mx.eval(made.stft(mx.array(noise(0, 400))))
    gone = weakref.ref(made)
    del made
    gc.collect()
    assert gone() is None


def test_large_calls_and_calls_that_came_once_have_no_graph() -> None:
    made = SpectralTransform(64, 16)
    small, large = mx.array(noise(0, 400)), mx.array(noise(0, 1 << 17))
    made.stft(small)
    for _ in range(3):
        made.stft(large)
    assert len(made._graphs._calls) == 1
    for signal in (small, large):
        assert made._graphs.compute(("stft", signal.shape, signal.dtype, "bfn"), signal) is None
