"""Windows by name: formulas against the definitions, names, parameters, shapes."""

from __future__ import annotations

import math

import mlx.core as mx
import numpy as np
import pytest
import torch

from torch_mlx_spectro.mlx_api.windows import ALIASES, WINDOWS, make_window, window_values

PARAMETERS: dict[str, tuple[object, ...]] = {
    "chebwin": (60.0,),
    "dpss": (3.0,),
    "gaussian": (9.0,),
    "general_cosine": ([0.5, 0.3, 0.2],),
    "general_gaussian": (1.5, 12.0),
    "general_hamming": (0.6,),
    "kaiser": (14.0,),
    "kaiser_bessel_derived": (5.0,),
}

#: Values 0, 1, 2 and 7 of the symmetric windows of 16 values, as scipy 1.17.1 gives them.
SCIPYS: dict[str, tuple[float, float, float, float]] = {
    "barthann": (0.0, 0.06485272609581166, 0.18973036958363382, 0.9756960882788461),
    "blackmanharris": (
        6.0000000000001025e-05,
        0.00360034205977455,
        0.02670175342487845,
        0.974884712712356,
    ),
    "bohman": (0.0, 0.007662233545221567, 0.058115516453420196, 0.9791181073253657),
    "boxcar": (1.0, 1.0, 1.0, 1.0),
    "chebwin": (0.024081690519883896, 0.07891123990926792, 0.18234224744383848, 1.0),
    "dpss": (0.007108564598608844, 0.03620713721864448, 0.10884378648437773, 0.9884169884169884),
    "flattop": (
        -0.0004210510000000013,
        -0.00606118508170593,
        -0.0313626464257775,
        0.9486641139868783,
    ),
    "general_gaussian": (
        0.8850861336959348,
        0.9236119599465321,
        0.9529994863103456,
        0.9999638316726083,
    ),
    "kaiser_bessel_derived": (
        0.09158966954160515,
        0.2471224069879899,
        0.43289670509851086,
        0.9957968329098359,
    ),
    "lanczos": (
        3.8981718325193755e-17,
        0.14938649372796345,
        0.32256865202152135,
        0.9927051996072067,
    ),
    "parzen": (0.00048828125, 0.01318359375, 0.06103515625, 0.97802734375),
    "taylor": (0.252321041674507, 0.3222510447908465, 0.4436003839885074, 0.9938522715770962),
    "triang": (0.0625, 0.1875, 0.3125, 0.9375),
    "tukey": (0.0, 0.16543469682057088, 0.5522642316338268, 1.0),
}

TORCHS = {
    "bartlett": {},
    "blackman": {},
    "cosine": {},
    "exponential": {"tau": 1.0},
    "gaussian": {"std": 9.0},
    "general_cosine": {"a": [0.5, 0.3, 0.2]},
    "general_hamming": {"alpha": 0.6},
    "hamming": {},
    "hann": {},
    "kaiser": {"beta": 14.0},
    "nuttall": {},
}


def named(name: str) -> tuple[object, ...]:
    return (name, *PARAMETERS.get(name, ()))


@pytest.mark.parametrize("name", sorted(TORCHS))
@pytest.mark.parametrize("length", [2, 5, 16, 101])
@pytest.mark.parametrize("periodic", [True, False])
def test_windows_that_torch_has_are_torchs(name: str, length: int, periodic: bool) -> None:
    function = getattr(torch.signal.windows, name)
    expected = function(length, sym=not periodic, dtype=torch.float64, **TORCHS[name])
    found = window_values(named(name), length, periodic)
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-12)


def test_every_name_of_torch_is_known() -> None:
    assert set(torch.signal.windows.__all__) <= set(WINDOWS)


@pytest.mark.parametrize("name", sorted(SCIPYS))
def test_the_others_are_scipys(name: str) -> None:
    values = window_values(named(name), 16, periodic=False)
    np.testing.assert_allclose(values[[0, 1, 2, 7]], SCIPYS[name], rtol=1e-9, atol=1e-12)


def test_every_window_was_compared_with_torchs_or_scipys() -> None:
    assert set(WINDOWS) == set(TORCHS) | set(SCIPYS)


@pytest.mark.parametrize("name", sorted(set(WINDOWS) - {"kaiser_bessel_derived"}))
@pytest.mark.parametrize("length", [9, 64])
def test_periodic_windows_are_symmetric_ones_cut_short(name: str, length: int) -> None:
    periodic = window_values(named(name), length, periodic=True)
    symmetric = window_values(named(name), length + 1, periodic=False)
    np.testing.assert_array_equal(periodic, symmetric[:-1])
    np.testing.assert_allclose(symmetric, symmetric[::-1], atol=1e-9)
    assert window_values(named(name), 1).tolist() == [1.0]


def test_kaiser_bessel_derived_windows_satisfy_princen_and_bradley() -> None:
    values = window_values(("kaiser_bessel_derived", 5.0), 32)
    np.testing.assert_allclose(values[:16] ** 2 + values[16:] ** 2, 1.0, atol=1e-12)
    with pytest.raises(ValueError, match="even"):
        window_values(("kaiser_bessel_derived", 5.0), 31)


def test_slepians_window_is_the_most_concentrated_one() -> None:
    """It is the eigenvector of the sinc kernel, whose eigenvalue is the energy in the band."""
    n, nw = 33, 2.5
    values = window_values(("dpss", nw), n, periodic=False)
    lag = np.subtract.outer(np.arange(n), np.arange(n))
    kernel = 2 * nw / n * np.sinc(2 * nw / n * lag)
    energy = values @ kernel @ values / (values @ values)
    assert energy == pytest.approx(np.linalg.eigvalsh(kernel)[-1], abs=1e-12)
    np.testing.assert_allclose(kernel @ values, energy * values, atol=1e-10)
    with pytest.raises(ValueError, match="nw must be"):
        window_values(("dpss", 20.0), n)


def test_aliases() -> None:
    for name, other in ALIASES.items():
        np.testing.assert_array_equal(window_values(name, 12), window_values(other, 12))


@pytest.mark.parametrize("name", ["Hann", "han", "", "kaiser ", 3, None])
def test_unknown_names_raise_and_name_the_known_ones(name: object) -> None:
    with pytest.raises(ValueError, match=r"Unknown window_fn.*barthann.*hann.*tukey"):
        window_values((name,), 16)


def test_parameters_that_are_missing_or_too_many_are_told() -> None:
    with pytest.raises(ValueError, match=r"Unknown window_fn: 'kaiser' .*\('kaiser', beta\)"):
        window_values("kaiser", 16)
    with pytest.raises(ValueError, match="hann"):
        window_values(("hann", 1.0), 16)
    with pytest.raises(ValueError, match="win_length must be positive; got 0"):
        window_values("hann", 0)


def test_made_windows_are_padded_as_torch_pads_them() -> None:
    window = make_window(None, "hamming", 5, 8, True)
    assert window.dtype == mx.float32
    expected = np.pad(torch.hamming_window(5).numpy(), (1, 2))
    np.testing.assert_allclose(np.array(window), expected, atol=1e-7)
    given = make_window(mx.ones(5), "hann", 5, 8, True)
    assert given.tolist() == [0, 1, 1, 1, 1, 1, 0, 0]
    assert make_window(np.ones(8), "hann", 5, 8, True).tolist() == [1.0] * 8


def test_windows_that_do_not_fit_raise() -> None:
    for window, match in (
        (mx.ones((2, 8)), "1D"),
        (mx.ones(7), r"win_length \(5\) or n_fft \(8\), got 7"),
        (mx.ones(8, mx.complex64), "real"),
    ):
        with pytest.raises(ValueError, match=match):
            make_window(window, "hann", 5, 8, True)
    with pytest.raises(ValueError, match=r"win_length \(9\) must be <= n_fft \(8\)"):
        make_window(None, "hann", 9, 8, True)


def test_values_are_computed_in_double_precision() -> None:
    found = window_values("hann", 1 << 12)
    exact = [0.5 - 0.5 * math.cos(2 * math.pi * m / (1 << 12)) for m in (1, 77)]
    np.testing.assert_allclose(found[[1, 77]], exact, rtol=1e-9)
