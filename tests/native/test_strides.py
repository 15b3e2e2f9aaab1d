"""The predicted memory order of a spectrum is the one that this torch gives."""

from __future__ import annotations

from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
import torch
from reference import drawn, native_stft, random_tensor, stft_params

from torch_mlx_spectro.core.params import StftParams
from torch_mlx_spectro.errors import UnresolvedArguments
from torch_mlx_spectro.native import strides
from torch_mlx_spectro.native.strides import frames_in_order, frames_outermost, spectrum_strides


def laid_out(name: str, rows: int, samples: int, complex_values: bool) -> torch.Tensor:
    """A signal of that layout; shapes are the same, strides are not."""
    plain = random_tensor(0, rows, samples, complex_values=complex_values)
    if name == "transposed":
        return plain.t().contiguous().t()
    if name == "every second sample":
        return plain.repeat_interleave(2, dim=1)[:, ::2]
    if name == "every second row":
        return plain.repeat_interleave(2, dim=0)[::2]
    if name == "sliced":
        return torch.cat([plain, plain], dim=1)[:, 1 : samples + 1]
    if name == "expanded rows":
        return plain[:1].expand(rows, samples)
    if name == "expanded samples":
        return plain[:, :1].expand(rows, samples)
    if name == "overlapping rows":
        return random_tensor(0, rows + samples).unfold(0, samples, 1)[:rows]
    if name == "odd strides":
        # Sizes of one may carry any stride: torch calls such tensors contiguous all the same.
        return plain.as_strided((rows, samples), (samples if rows > 1 else 1, 1))
    return plain


LAYOUTS = [
    "contiguous",
    "transposed",
    "every second sample",
    "every second row",
    "sliced",
    "expanded rows",
    "expanded samples",
    "overlapping rows",
    "odd strides",
]


def predicted(signal: torch.Tensor, window: torch.Tensor | None, params: StftParams) -> Any:
    """As ``mlx_backend`` asks: native multiplies by ones where a short window is missing."""
    multiplied = None if window is None else window.dtype
    if multiplied is None and params.win_length < params.n_fft:
        multiplied = signal.dtype
    outermost = frames_outermost(params, signal.stride(), signal.dtype, multiplied)
    return spectrum_strides(params, outermost)


def check(signal: torch.Tensor, window: torch.Tensor | None, **arguments: Any) -> bool:
    """Compare with native; whether frames are outermost. Strides along size one are free."""
    params = stft_params(signal, window, **arguments)
    native = native_stft(signal, window=window, **arguments)
    native = native if params.batched else native.unsqueeze(0)
    if not params.return_complex:
        native = torch.view_as_complex(native)
    ours = predicted(signal, window, params)
    for size, wanted, got in zip(native.shape, native.stride(), ours, strict=True):
        assert size == 1 or wanted == got, f"{native.shape}: {native.stride()}, not {ours}"
    return bool(ours[0] == params.bins and ours[2] == params.rows * params.bins)


@st.composite
def calls(draw: Any) -> tuple[torch.Tensor, torch.Tensor | None, dict[str, Any]]:
    n_fft = draw(st.sampled_from([1, 1, 2, 3, 4, 7, 8, 16]))
    # Beyond n_fft, beyond the row's length, and where a hop equals the rows' stride.
    hop = draw(st.sampled_from([1, 1, 2, 3, n_fft, 20, 40, 100]))
    win = draw(st.integers(1, n_fft))
    rows = draw(st.sampled_from([None, 1, 2, 2, 3, 5]))
    samples = draw(st.integers(n_fft, 60))
    complex_values = draw(st.booleans())
    signal = laid_out(draw(st.sampled_from(LAYOUTS)), rows or 1, samples, complex_values)
    signal = signal if rows else signal[0]
    window = torch.ones(win) if draw(st.booleans()) else None
    if window is not None and draw(st.booleans()):
        window = window.to(torch.complex64)
    arguments: dict[str, Any] = {
        "n_fft": n_fft,
        "hop_length": hop,
        "win_length": win,
        "center": draw(st.booleans()),
        "pad_mode": draw(st.sampled_from(["reflect", "constant", "replicate", "circular"])),
        "onesided": draw(st.sampled_from([None, False])),
        "return_complex": draw(st.sampled_from([True, True, False])),
    }
    if not arguments["center"]:
        arguments["align_to_window"] = draw(st.sampled_from([None, False, True]))
    return signal, window, arguments


@drawn(250)
@hypothesis.given(calls())
def test_strides_of_drawn_calls(
    call: tuple[torch.Tensor, torch.Tensor | None, dict[str, Any]],
) -> None:
    signal, window, arguments = call
    try:
        stft_params(signal, window, **arguments)
    except UnresolvedArguments:
        hypothesis.reject()
    check(signal, window, **arguments)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("windowed", [True, False])
@pytest.mark.parametrize("n_fft", [1, 16])
def test_strides_of_every_layout(layout: str, center: bool, windowed: bool, n_fft: int) -> None:
    for rows, hop in [(3, 1), (3, 5), (3, 60), (1, 4), (40, 3)]:
        signal = laid_out(layout, rows, 50, False)
        window = torch.ones(n_fft) if windowed else None
        check(signal, window, n_fft=n_fft, hop_length=hop, center=center)


def test_both_orders_occur() -> None:
    """Else the prediction could be a constant."""
    if not torch.backends.mkl.is_available():
        pytest.skip("builds without MKL write every spectrum in one order")
    transposed = laid_out("transposed", 3, 50, False)
    assert check(transposed, torch.ones(8), n_fft=8, hop_length=2, center=False)
    assert not check(transposed, torch.ones(8), n_fft=8, hop_length=2)
    assert not check(transposed.contiguous(), torch.ones(8), n_fft=8, hop_length=2, center=False)


def test_usual_order_has_bins_innermost_and_rows_outermost() -> None:
    params = stft_params(torch.zeros(3, 50), None, n_fft=8, hop_length=2)
    assert spectrum_strides(params, False) == (params.frames * 5, 1, 5)
    assert spectrum_strides(params, True) == (5, 1, 15)


def test_builds_without_mkl_have_one_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strides, "_torch_uses_mkl", lambda: False)
    signal = laid_out("transposed", 3, 50, False)
    params = stft_params(signal, None, n_fft=8, hop_length=2, center=False)
    assert not frames_outermost(params, signal.stride(), signal.dtype, torch.float32)
    assert frames_in_order(params, signal.stride(), signal.dtype, torch.float32)


@drawn(300)
@hypothesis.given(
    st.tuples(*[st.integers(1, 5)] * 3), st.tuples(*[st.sampled_from([0, 1, 2, 3, 5, 8, 40])] * 3)
)
def test_a_products_strides_are_those_that_torch_gives_it(
    shape: tuple[int, int, int], between: tuple[int, int, int]
) -> None:
    product = torch.zeros(600).as_strided(shape, between) * torch.zeros(shape[2])
    assert strides._find_product_strides(shape, between) == product.stride()
