"""``import mlx_spectro`` gives this package's names, once the program asks for it."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path

import mlx.core as mx
import pytest
from cli_process import RUN, python

import torch_mlx_spectro as tms
from torch_mlx_spectro.mlx_api import predecessor

#: The names of mlx-spectro 0.2.2, and those that mlx-audio-separator 0.1.20 and demucs-mlx
#: 1.6.1 import.
NAMES_OF_0_2_2 = {
    "ISTFTBackendPolicy",
    "STFTOutputLayout",
    "SpectralTransform",
    "WindowLike",
    "get_cache_debug_stats",
    "get_transform_mlx",
    "make_window",
    "reset_cache_debug_stats",
    "resolve_fft_params",
    "spec_mlx_device_key",
}

PROGRAM = """\
import sys
import mlx.core as mx
import mlx_spectro
from mlx_spectro import SpectralTransform, WindowLike, get_transform_mlx, resolve_fft_params

n_fft, hop, win = resolve_fft_params(512, None, None, 0)
transform = get_transform_mlx(
    n_fft=n_fft, hop_length=hop, win_length=win, window_fn="hann", periodic=True, center=True,
    normalized=False, window=None,
)
stft, istft = transform.compiled_pair(length=4096, layout="bfn", warmup_batch=1)
signal = mx.random.normal((1, 4096))
error = mx.abs(istft(stft(signal)) - signal).max().item()
print(type(transform).__module__, error < 1e-5, mlx_spectro.__version__)
try:
    from mlx_spectro import hybrid_cqt
except ImportError as error:
    print("predecessor.py" in str(error))
"""


@pytest.fixture
def unimported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "mlx_spectro", raising=False)


def test_the_module_has_the_names_and_is_found_again(unimported: None) -> None:
    module = tms.as_mlx_spectro()
    import mlx_spectro

    assert mlx_spectro is module is tms.as_mlx_spectro()
    assert set(module.__all__) >= NAMES_OF_0_2_2
    for name in module.__all__:
        assert getattr(module, name) is getattr(tms, name)
    with pytest.raises(AttributeError, match=r"stands in for mlx_spectro, and has no 'hybrid_cqt'"):
        _ = module.hybrid_cqt


def test_it_refuses_where_the_real_one_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    real = types.ModuleType("mlx_spectro")
    real.__file__ = "/somewhere/mlx_spectro/__init__.py"
    monkeypatch.setitem(sys.modules, "mlx_spectro", real)
    with pytest.raises(RuntimeError, match="imported already, from /somewhere/mlx_spectro"):
        tms.as_mlx_spectro()
    assert sys.modules["mlx_spectro"] is real


def test_a_program_runs_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    ended = python(*RUN, "--as-mlx-spectro", str(path), cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    home = "torch_mlx_spectro.mlx_api.transform"
    assert ended.stdout == f"{home} True {predecessor.VERSION}\nTrue\n"
    without = python(*RUN, str(path), cwd=tmp_path)
    assert without.returncode == 1
    assert "No module named 'mlx_spectro'" in without.stderr


def test_run_refuses_where_the_real_one_is_imported(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, types; sys.modules['mlx_spectro'] = types.ModuleType('mlx_spectro')\n"
    )
    command = (*RUN, "--as-mlx-spectro", "-c", "print('ran')")
    path = os.pathsep.join((str(tmp_path), *map(str, Path(tms.__file__).parents[1:2])))
    ended = python(*command, cwd=tmp_path, variables={"PYTHONPATH": path})
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "--as-mlx-spectro: mlx_spectro is imported already" in ended.stderr


def test_no_torch_is_loaded(tmp_path: Path) -> None:
    program = (
        "import sys, torch_mlx_spectro; torch_mlx_spectro.as_mlx_spectro();"
        "from mlx_spectro import SpectralTransform as S; import mlx.core as mx;"
        "mx.eval(S(16, 4).stft(mx.zeros(40))); assert 'torch' not in sys.modules"
    )
    ended = python("-W", "error", "-c", program, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("given", ["hamming", ("kaiser", 8.0)])
def test_a_window_may_be_given_by_name(given: str | tuple[str, float]) -> None:
    named = tms.SpectralTransform(64, 16, 50, window_fn=given)
    changed = tms.SpectralTransform(64, 16, 50)
    changed.set_window(given)
    for transform in (
        tms.SpectralTransform(64, 16, 50, window=given),
        tms.SpectralTransform(64, 16, 50).with_window(given),
        tms.get_transform_mlx(n_fft=64, hop_length=16, win_length=50, window=given),
        changed,
    ):
        assert transform.window_fn == given
        assert transform.has_window_by_name
        assert mx.array_equal(transform.window, named.window)
    assert mx.array_equal(tms.make_window(given, "hann", 50, 64, True), named.window)


def test_a_shared_transform_whose_window_was_named_anew_is_made_anew() -> None:
    arguments = {"n_fft": 64, "hop_length": 12, "win_length": 64, "window_fn": "hann"}
    shared = tms.get_transform_mlx(**arguments, window=None)
    assert tms.get_transform_mlx(**arguments, window="hann") is shared
    shared.set_window("hamming")
    other = tms.get_transform_mlx(**arguments, window=None)
    assert other is not shared
    assert other.window_fn == "hann"


def test_set_window_takes_values_too() -> None:
    transform, window = tms.SpectralTransform(16, 4), mx.random.uniform(0.5, 1.0, (16,))
    transform.set_window(window)
    assert mx.array_equal(transform.window, window)
    assert not transform.has_window_by_name
    transform.set_window(None)
    assert mx.array_equal(transform.window, tms.SpectralTransform(16, 4).window)


@pytest.mark.parametrize("layout", ["bfn", "bnf"])
@pytest.mark.parametrize("leading", [(3,), (2, 3), (1, 2, 2)])
def test_compiled_pairs_of_more_dimensions(layout: str, leading: tuple[int, ...]) -> None:
    transform = tms.SpectralTransform(64, 16)
    stft, istft = transform.compiled_pair_nd(length=300, leading_shape=leading, layout=layout)
    signal = mx.random.normal((*leading, 300))
    spectrum = stft(signal)
    expected = transform.stft(signal.reshape(-1, 300), output_layout=layout)
    assert spectrum.shape == (*leading, *expected.shape[1:])
    assert mx.array_equal(spectrum.reshape(expected.shape), expected)
    assert mx.abs(istft(spectrum) - signal).max().item() < 1e-5
    slope = mx.grad(lambda x: mx.square(istft(stft(x))).sum())(signal)
    assert mx.abs(slope - 2 * signal).max().item() < 1e-4


def test_the_counts_of_caches_have_mlx_spectros_keys() -> None:
    kernels = tms.get_cache_debug_stats()["kernel_cache"]
    assert {
        "ola_kernel_compiled",
        "ola_norm_kernel_compiled",
        "envelope_kernel_compiled",
        "tgx_entries",
        "tgx_loaded",
        "tgx_dirty",
    } <= set(kernels)
    assert kernels["ola_norm_kernel_compiled"] is False  # no GPU, no emulator
