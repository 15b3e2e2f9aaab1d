"""The wheel has every file, and what it installs runs without the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from checkout import ROOT as CHECKOUT

import torch_mlx_spectro

#: Folders of the packages that the wheel has.
PACKAGES = (CHECKOUT / "torch_mlx_spectro", CHECKOUT / "parity" / "stft_parity")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=CHECKOUT, check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """A new environment with the wheel alone; what it depends on is borrowed from this one.

    The borrowed folder comes in by a ``.pth`` file. Python does not read the ``.pth`` files of a
    folder that is added so, and thereby not the one of an editable install of the checkout.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    command += ["--no-deps", "--no-index", "--disable-pip-version-check", str(wheel)]
    subprocess.run(command, check=True)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    (site_packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def run(environment: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the environment in an unrelated folder."""
    unrelated = environment / "unrelated"
    unrelated.mkdir(exist_ok=True)
    hidden = ("PYTHONPATH", "VIRTUAL_ENV", "TORCH_MLX_SPECTRO_BACKEND")
    return subprocess.run(
        [str(environment / "bin" / program), *arguments],
        cwd=unrelated,
        env={key: value for key, value in os.environ.items() if key not in hidden},
        capture_output=True,
        text=True,
        check=False,
    )


def test_wheel_has_both_packages_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {
        path.relative_to(package.parent).as_posix()
        for package in PACKAGES
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    } | {f"torch_mlx_spectro/_metal_src/{path.name}" for path in (CHECKOUT / "metal_src").iterdir()}
    expected.add("torch_mlx_spectro_pytest.py")
    assert names == expected
    assert {"torch_mlx_spectro/py.typed", "torch_mlx_spectro/cli/__init__.py"} <= names
    assert {"stft_parity/py.typed", "stft_parity/__init__.py"} <= names


def test_wheel_has_the_version_of_the_package(wheel):
    assert wheel.name.startswith(f"torch_mlx_spectro-{torch_mlx_spectro.__version__}-py3-none-any")


def test_strict_stft_runs_from_the_wheel(environment):
    code = (
        "import json, sys, torch, torch_mlx_spectro as tms\n"
        "with tms.patch(backend='mlx', strict=True):\n"
        "    z = torch.stft(torch.ones(640), 64, window=torch.ones(64), return_complex=True)\n"
        "print(json.dumps([tms.__file__, sys.path, list(z.shape), tms.stats().accelerated]))\n"
    )
    ended = run(environment, "python", "-c", code)
    assert ended.stderr == ""
    file, path, shape, accelerated = json.loads(ended.stdout)
    assert Path(file).is_relative_to(environment)
    assert str(CHECKOUT) not in path
    assert (shape, accelerated) == ([33, 41], 1)


def test_parity_suite_runs_from_the_wheel_without_the_package(environment):
    code = (
        "import json, sys, torch, stft_parity as parity\n"
        "report = parity.run(torch.stft, torch.istft, select={'n_fft': '15'})\n"
        "counts = report.counts()\n"
        "ours = [name for name in sys.modules if name.startswith('torch_mlx_spectro')]\n"
        "print(json.dumps([parity.__file__, ours, report.ok, counts['pass']]))\n"
    )
    ended = run(environment, "python", "-c", code)
    assert ended.stderr == ""
    file, ours, ok, passed = json.loads(ended.stdout)
    assert Path(file).is_relative_to(environment)
    assert (ours, ok) == ([], True)
    assert passed > 10


def test_doctor_runs_from_the_wheel(environment):
    ended = run(environment, "torch-mlx-spectro", "doctor", "--json")
    assert ended.stderr == ""
    found = json.loads(ended.stdout)
    assert ended.returncode == 0
    assert Path(found["package"]).is_relative_to(environment)
    assert found["versions"]["torch_mlx_spectro"] == torch_mlx_spectro.__version__


def test_pytest_plugin_runs_from_the_wheel(environment, tmp_path):
    (tmp_path / "test_it.py").write_text(
        "import torch\n"
        "def test_it():\n"
        "    torch.stft(torch.ones(640), 64, window=torch.ones(64), return_complex=True)\n"
    )
    options = ("--torch-mlx-spectro", "--torch-mlx-spectro-strict", "-p", "no:cacheprovider")
    ended = run(environment, "python", "-m", "pytest", *options, str(tmp_path))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "1 calls accelerated, 0 native" in ended.stdout
