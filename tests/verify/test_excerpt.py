"""Parts of large calls: native's answers to them are parts of native's answer to the whole."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from needs import ONCE_ONLY
from reference import istft_params, stft_params

from torch_mlx_spectro.calls.kind import Route
from torch_mlx_spectro.calls.operation import ISTFT, STFT
from torch_mlx_spectro.native import functions as native
from torch_mlx_spectro.verify import excerpt as excerpts
from torch_mlx_spectro.verify.comparison import Check, Outcome
from torch_mlx_spectro.verify.excerpt import Excerpt, cut_excerpts
from torch_mlx_spectro.verify.ledger import make_case

pytestmark = ONCE_ONLY
NATIVE = {"stft": native.stft, "istft": native.istft}


@pytest.fixture(autouse=True)
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(excerpts, "FRAMED_SAMPLES", 128)


def noise(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)), dtype=dtype)


def bound_stft(signal: torch.Tensor, n_fft: int, **more: Any) -> Any:
    bound = STFT.bind(signal, n_fft, **more)
    window = more.pop("window", None)
    return bound, stft_params(signal, window, n_fft=n_fft, **more)


def bound_istft(spectrum: torch.Tensor, n_fft: int, **more: Any) -> Any:
    bound = ISTFT.bind(spectrum, n_fft, **more)
    window = more.pop("window", None)
    return bound, istft_params(spectrum, window, n_fft=n_fft, **more)


def check(op: str, bound: Mapping[str, Any], params: Any) -> list[Excerpt]:
    """Assert that each part is the whole's; returns them."""
    given = {name: value for name, value in bound.items() if value is not None}
    whole = NATIVE[op](**given)
    found = list(cut_excerpts(params, bound))
    for excerpt in found:
        part = excerpt.cut_part(NATIVE[op](**excerpt.given))
        expected = excerpt.cut_whole(whole)
        assert part.shape == expected.shape
        assert part.numel() > 0
        torch.testing.assert_close(part, expected, rtol=1e-4, atol=1e-5)
    return found


def reached(found: list[Excerpt]) -> tuple[int, int]:
    """Where in the result the first part begins and the last one ends."""
    return min(part.at for part in found), max(part.at + part.length for part in found)


MODES = ("reflect", "constant", "replicate", "circular")
SIZES = [(16, 4, 700), (16, 7, 705), (15, 5, 700), (16, 16, 999), (16, 1, 300), (32, 5, 90)]


@pytest.mark.parametrize(("n_fft", "hop", "samples"), SIZES)
@pytest.mark.parametrize("shape", [(), (1,), (5,)])
@pytest.mark.filterwarnings("ignore:.*stft with return_complex=False is deprecated")
def test_parts_of_an_stft(n_fft: int, hop: int, samples: int, shape: tuple[int, ...]) -> None:
    signal, window = noise(*shape, samples), noise(n_fft - 3)
    for mode, center, as_complex in itertools.product(MODES, (True, False), (True, False)):
        bound, params = bound_stft(
            signal,
            n_fft,
            hop_length=hop,
            win_length=n_fft - 3,
            window=window,
            center=center,
            pad_mode=mode,
            normalized=not center,
            return_complex=as_complex,
        )
        found = check("stft", bound, params)
        if mode != "circular" or not center:
            assert reached(found) == (0, params.frames)
        elif params.frames > 3 * max(128 // n_fft, 4 * -(-n_fft // hop)):
            assert len(found) == len({0, params.rows // 2, params.rows - 1})


@pytest.mark.parametrize(("n_fft", "hop", "frames"), [(16, 4, 99), (15, 5, 80), (16, 7, 77)])
@pytest.mark.parametrize("shape", [(), (1,), (5,)])
@pytest.mark.parametrize("length", [None, 250, 2000])
@pytest.mark.filterwarnings("ignore:.*The length of signal is shorter")
def test_parts_of_an_istft(
    n_fft: int, hop: int, frames: int, shape: tuple[int, ...], length: int | None
) -> None:
    for center, two_sided in itertools.product((True, False), (True, False)):
        bins = n_fft if two_sided else n_fft // 2 + 1
        bound, params = bound_istft(
            noise(*shape, bins, frames, dtype=torch.complex64),
            n_fft,
            hop_length=hop,
            window=noise(n_fft).abs() + 1,
            center=center,
            onesided=not two_sided,
            length=length,
            return_complex=two_sided,
        )
        found = check("istft", bound, params)
        begin, end = reached(found)
        assert begin == 0
        natural = (frames - 1) * hop + n_fft - 2 * params.start
        assert end >= min(natural, params.kept) or length == 250


def test_a_hann_window_needs_no_more_than_the_whole_does() -> None:
    spectrum = noise(2, 9, 200, dtype=torch.complex64)
    bound, params = bound_istft(spectrum, 16, hop_length=4, window=torch.hann_window(16))
    found = check("istft", bound, params)
    assert len(found) == 6


def test_calls_whose_parts_are_other_calls_have_none() -> None:
    bound, params = bound_stft(noise(500), 16, return_complex=True)
    assert list(cut_excerpts(params, bound))
    assert not list(cut_excerpts(params, {**bound, "align_to_window": True}))


def checked(op: str, bound: Any, params: Any, wrong: Any) -> Outcome:
    """The verdict on native's own result, with what ``wrong`` does to it."""
    given = {name: value for name, value in bound.items() if value is not None}
    actual = NATIVE[op](**given).clone()
    wrong(actual)
    route = Route(op, "mlx", "a kernel")
    case = make_case(route, params, bound["input"], bound["window"])
    check = Check(NATIVE[op], case, bound, (), given, in_parts=True)
    return check.compare(params, actual)


@pytest.mark.parametrize("row", [0, 2, 4])
@pytest.mark.parametrize("frame", [0, 3, 60, -1])
def test_what_is_wrong_in_a_part_is_found(row: int, frame: int) -> None:
    bound, params = bound_stft(
        noise(5, 480), 16, hop_length=4, window=torch.hann_window(16), return_complex=True
    )

    def wrong(spectrum: torch.Tensor) -> None:
        spectrum[row, 5, frame] += 1e-2

    assert checked("stft", bound, params, lambda spectrum: None) == (True, "", True)
    compared, found, conclusive = checked("stft", bound, params, wrong)
    assert compared
    assert conclusive
    assert "largest error" in found
    back, params = bound_istft(
        native.stft(**{name: value for name, value in bound.items() if value is not None}),
        16,
        hop_length=4,
        window=torch.hann_window(16),
    )

    def wrong_signal(signal: torch.Tensor) -> None:
        signal[row, 4 * frame] += 1e-2

    assert checked("istft", back, params, lambda signal: None) == (True, "", True)
    assert checked("istft", back, params, wrong_signal)[1]


@pytest.mark.parametrize(
    "part", ["[..., 0]", "[..., :50]", "[:1]", "[:, :8]", "[:0]"], ids=lambda part: part
)
def test_a_result_of_another_shape_is_wrong_and_raises_nothing(part: str) -> None:
    bound, params = bound_stft(noise(2, 480), 16, window=torch.ones(16), return_complex=True)
    given = {name: value for name, value in bound.items() if value is not None}
    actual = eval(f"whole{part}", {"whole": NATIVE["stft"](**given)})
    case = make_case(Route("stft", "mlx", "a kernel"), params, bound["input"], None)
    check = Check(NATIVE["stft"], case, bound, (), given, in_parts=True)
    assert check.compare(params, actual)[:2] == (True, f"its shape is {tuple(actual.shape)}")


def test_parts_that_native_refuses_are_wrong_and_without_memory_nothing_is() -> None:
    bound, params = bound_stft(noise(2, 480), 16, window=None, return_complex=True)
    route = Route("stft", "mlx", "a kernel")
    case = make_case(route, params, bound["input"], None)
    for error, verdict in (
        (ValueError("no"), (True, "native torch raises ValueError for a part: no")),
        (MemoryError(), (False, "")),
    ):

        def refuse(*args: Any, error: Exception = error, **kwargs: Any) -> torch.Tensor:
            raise error

        refused = Check(refuse, case, bound, (), {}, in_parts=True)
        assert refused.compare(params, torch.zeros(0))[:2] == verdict
