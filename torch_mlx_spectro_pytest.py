"""The pytest plugin's door: ``pytest --torch-mlx-spectro`` runs a test suite under ``patch()``.

pytest imports this module in every project of an environment where torch_mlx_spectro is installed.
It lies beside the package, not in it, because importing the package imports torch: only with the
option given is the package, and :mod:`torch_mlx_spectro.cli.pytest_plugin` in it, imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import argparse

OPTION = "--torch-mlx-spectro"
#: Attributes of the options that say how; they need OPTION itself.
_HOW = {
    "torch_mlx_spectro_backend": f"{OPTION}-backend",
    "torch_mlx_spectro_strict": f"{OPTION}-strict",
    "torch_mlx_spectro_verify": f"{OPTION}-verify",
    "torch_mlx_spectro_known": f"{OPTION}-known",
    "torch_mlx_spectro_emulate_metal": f"{OPTION}-emulate-metal",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    group = parser.getgroup("torch_mlx_spectro")
    group.addoption(
        OPTION,
        action="store_true",
        help="run these tests with torch.stft and torch.istft computed by torch_mlx_spectro",
    )
    group.addoption(
        f"{OPTION}-backend", metavar="NAME", help="who computes: mlx (default), auto or native"
    )
    group.addoption(
        f"{OPTION}-strict", action="store_true", help="a call that falls back to native torch fails"
    )
    group.addoption(
        f"{OPTION}-verify",
        type=int,
        metavar="N",
        help="compare every Nth accelerated call of a kind with native torch",
    )
    group.addoption(
        f"{OPTION}-known",
        metavar="FILE",
        help="TOML list of tests that are known to fail so, each with a reason",
    )
    group.addoption(
        f"{OPTION}-emulate-metal",
        action="store_true",
        help="compute CPU tensors by the Metal kernels, emulated (slow)",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Patch before the first conftest is read: it may keep torch's functions where none looks."""
    options: argparse.Namespace = early_config.known_args_namespace
    if options.torch_mlx_spectro:
        from torch_mlx_spectro.cli import pytest_plugin

        pytest_plugin.begin(early_config, options)
        return
    for name, option in _HOW.items():
        if getattr(options, name) not in (None, False):
            raise pytest.UsageError(f"{option} does nothing without {OPTION}")
