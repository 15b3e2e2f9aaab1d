"""mlx-spectro 0.2.2's own tests, run against our names; they are not ours, and are not kept here.

``MLX_SPECTRO_TESTS`` names its ``tests/test_spectral_ops.py``, of the source distribution on PyPI.
Every test that is left out is listed with the reason, and has to fail.
"""

from __future__ import annotations

import os
from itertools import product
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import torch
from cli_process import python

from torch_mlx_spectro import SpectralTransform

FILE = os.environ.get("MLX_SPECTRO_TESTS")

PRIVATE = "imports private functions or kernels of mlx_spectro.spectral_ops"
LEFT_OUT = {
    "TestEdgeCases::test_reflect_pad_correctness": PRIVATE,
    "TestEdgeCases::test_fused_frame_extract_matches_fallback": PRIVATE,
    "TestEdgeCases::test_tiled_frame_extract_matches_simple": PRIVATE,
    "TestNumericalGradCheck::test_istft_numerical_grad": (
        "differences of sums in single precision, which MLX's CPU sum rounds too coarsely: it "
        "fails for exact signals, too (test_the_numerical_gradient_is_lost_in_the_sum)"
    ),
}
TESTS = 54

#: Makes ``import mlx_spectro`` give our names.
ALIAS = """\
import sys, torch_mlx_spectro
torch_mlx_spectro.as_mlx_spectro()
import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""


def run(*arguments: str, cwd: Path) -> str:
    assert FILE is not None
    options = ("-q", "-p", "no:cacheprovider", "--rootdir", str(cwd), "-rA", "--tb=no")
    return python("-c", ALIAS, *options, *arguments, FILE, cwd=cwd).stdout


@pytest.mark.skipif(FILE is None, reason="MLX_SPECTRO_TESTS names no file")
def test_its_tests_pass_but_for_those_that_are_listed(tmp_path: Path) -> None:
    output = run(cwd=tmp_path)
    failed = {
        line.split("::", 1)[1].split(" - ")[0]
        for line in output.splitlines()
        if line.startswith(("FAILED", "ERROR"))
    }
    assert failed == set(LEFT_OUT), output[-3000:]
    assert f"{TESTS - len(LEFT_OUT)} passed" in output


def test_the_numerical_gradient_is_lost_in_the_sum() -> None:
    """Its differences, of exact signals by MLX's sum, and of our signals by a sum in double."""
    transform, window = SpectralTransform(128, 32), torch.hann_window(128, dtype=torch.float64)
    signal = torch.tensor(np.random.default_rng(0).standard_normal((1, 256)))
    spectrum = torch.stft(signal, 128, 32, window=window, return_complex=True).to(torch.complex64)
    truth, of_exact, of_ours = [], [], []
    for bin_index, frame in product(range(0, 65, 2), range(9)):
        wide, narrow, ours = [], [], []
        for step in (1e-3, -1e-3):
            moved = spectrum.clone()
            moved[0, bin_index, frame] += step
            exact = torch.istft(moved.to(torch.complex128), 128, 32, window=window, length=256)
            wide.append(float(exact.square().sum()))
            narrow.append(float(mx.square(mx.array(exact.float().numpy())).sum()))
            found = np.array(transform.istft(mx.array(moved.numpy()), 256), np.float64)
            ours.append(float(np.sum(found**2)))
        for differences, ends in ((truth, wide), (of_exact, narrow), (of_ours, ours)):
            differences.append(ends[0] - ends[1])
    assert np.corrcoef(truth, of_exact)[0, 1] < 0.99  # what the file asks for
    assert np.corrcoef(truth, of_ours)[0, 1] > 0.999
