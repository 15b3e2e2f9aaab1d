"""The wheels have every file, and what they install runs without the checkout."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Sequence
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest
from checkout import ROOT as CHECKOUT

import torch_mlx_spectro

PARITY = CHECKOUT / "parity"
#: What a reader of the page of PyPI wants to know; there is no address yet.
TOLD = ("Author", "Classifier", "Description-Content-Type", "Keywords", "License-Expression")
TOLD += ("License-File", "Requires-Python", "Summary")


def build(folder: Path, root: Path) -> Path:
    """Build a wheel of the project in ``root``, as a release is."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=root, check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("dist"), CHECKOUT)


@pytest.fixture(scope="module")
def parity_wheel(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("dist"), PARITY)


def make_environment(folder: Path, borrowed: Path, wheels: Sequence[Path]) -> Path:
    """Make a new environment with the wheels alone; what they depend on is borrowed.

    The borrowed folder comes in by a ``.pth`` file. Python does not read the ``.pth`` files of a
    folder that is added so, and thereby not those of editable installations of the checkout.
    """
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    command += ["--no-deps", "--no-index", "--disable-pip-version-check", *map(str, wheels)]
    subprocess.run(command, check=True)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    (site_packages / "borrowed.pth").write_text(f"{borrowed}\n")
    return folder


@pytest.fixture(scope="module")
def environment(wheel, parity_wheel, tmp_path_factory) -> Path:
    """An environment with both wheels."""
    borrowed = Path(sysconfig.get_path("purelib"))
    return make_environment(tmp_path_factory.mktemp("environment"), borrowed, (wheel, parity_wheel))


@pytest.fixture(scope="module")
def lone_environment(parity_wheel, tmp_path_factory) -> Path:
    """An environment with the parity suite, without this package and without MLX."""
    borrowed = tmp_path_factory.mktemp("borrowed")
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not path.name.startswith(("mlx", "stft_parity", "torch_mlx_spectro")):
            (borrowed / path.name).symlink_to(path)
    return make_environment(tmp_path_factory.mktemp("environment"), borrowed, (parity_wheel,))


def read_metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


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


def list_files(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def list_sources(package: Path) -> set[str]:
    return {
        path.relative_to(package.parent).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_each_wheel_has_its_own_package_and_nothing_else(wheel, parity_wheel):
    names = list_files(wheel)
    kernels = {f"torch_mlx_spectro/_metal_src/{p.name}" for p in (CHECKOUT / "metal_src").iterdir()}
    expected = list_sources(CHECKOUT / "torch_mlx_spectro") | kernels
    assert names == expected | {"torch_mlx_spectro_pytest.py"}
    assert {"torch_mlx_spectro/py.typed", "torch_mlx_spectro/cli/__init__.py"} <= names
    names = list_files(parity_wheel)
    assert names == list_sources(PARITY / "stft_parity")
    assert {"stft_parity/py.typed", "stft_parity/__init__.py"} <= names


def test_a_release_requires_the_parity_suite_by_name(wheel, parity_wheel):
    required = read_metadata(wheel).get_all("Requires-Dist", [])
    assert [line for line in required if "parity" in line] == ["stft-parity>=0.1"]
    assert not [line for line in required if "@" in line]
    others = read_metadata(parity_wheel).get_all("Requires-Dist", [])
    assert not [line for line in others if "mlx" in line]


@pytest.mark.parametrize("name", ["wheel", "parity_wheel"])
def test_metadata_is_complete_and_has_no_path(name, request):
    built = request.getfixturevalue(name)
    metadata = read_metadata(built)
    assert [field for field in TOLD if not metadata[field]] == []
    # Of tools that a developer needs and a program does not there is no extra.
    assert "dev" not in metadata.get_all("Provides-Extra", [])
    with zipfile.ZipFile(built) as archive:
        assert not [n for n in archive.namelist() if str(CHECKOUT).encode() in archive.read(n)]


def find_parity(root: Path) -> list[str]:
    """What the hook of the build makes of the dependency on the parity suite."""
    hook = runpy.run_path(str(CHECKOUT / "hatch_build.py"))["Dependencies"]
    metadata: dict[str, Any] = {}
    hook(str(root), {"dependencies": ["numpy", "stft-parity>=0.1"]}).update(metadata)
    assert metadata["dependencies"][0] == "numpy"
    return [str(line) for line in metadata["dependencies"][1:]]


@pytest.fixture(params=["PIP_BUILD_TRACKER", "PIP_REQ_TRACKER"])  # the second before pip 22.2
def pip_builds(request, monkeypatch) -> None:
    monkeypatch.setenv(request.param, "")
    monkeypatch.setattr(sys, "argv", ["_in_process.py", "prepare_metadata_for_build_wheel"])


@pytest.mark.usefixtures("pip_builds")
def test_pip_finds_the_parity_suite_beside_the_package(monkeypatch, tmp_path):
    assert find_parity(CHECKOUT) == [f"stft-parity @ {PARITY.as_uri()}"]
    # An editable installation has the folder on its path.
    monkeypatch.setattr(sys, "argv", ["_in_process.py", "build_editable"])
    assert find_parity(CHECKOUT) == []
    # An unpacked source distribution has no such folder.
    assert find_parity(tmp_path) == ["stft-parity>=0.1"]


@pytest.mark.usefixtures("pip_builds")
def test_pip_finds_the_parity_suite_in_a_repository(tmp_path):
    clone = tmp_path / "pip-req-build-x"
    (clone / "parity").mkdir(parents=True)
    (clone / "parity" / "pyproject.toml").touch()
    by_folder = [f"stft-parity @ {(clone / 'parity').as_uri()}"]
    assert find_parity(clone) == by_folder
    git = ("git", "-C", str(clone), "-c", "user.name=x", "-c", "user.email=x@example.org")
    for command in (
        "init -q",
        "add .",
        "commit -qm x",
        "remote add origin https://a.example/b.git",
    ):
        subprocess.run([*git, *command.split()], check=True)
    (found,) = find_parity(clone)
    assert re.fullmatch(
        r"stft-parity @ git\+https://a\.example/b\.git@[0-9a-f]{40}#subdirectory=parity", found
    )
    for secret in ("https://token@a.example/b.git", "https://me:word@a.example/b.git"):
        subprocess.run([*git, "remote", "set-url", "origin", secret], check=True)
        assert find_parity(clone) == by_folder


def test_versions_agree(wheel, parity_wheel):
    version = torch_mlx_spectro.__version__
    assert wheel.name.startswith(f"torch_mlx_spectro-{version}-py3-none-any")
    citation = (CHECKOUT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall("^version: (.*)$", citation, re.MULTILINE) == [version]
    assert (
        parity_wheel.name
        == f"stft_parity-{read_metadata(parity_wheel)['Version']}-py3-none-any.whl"
    )


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


def test_parity_suite_runs_alone(lone_environment):
    """By its command, where neither this package nor MLX can be found."""
    code = (
        "from importlib.util import find_spec\n"
        "for name in ('mlx', 'stft_parity', 'torch_mlx_spectro'):\n"
        "    print(name, getattr(find_spec(name), 'origin', None))\n"
    )
    ended = run(lone_environment, "python", "-c", code)
    found = dict(line.split() for line in ended.stdout.splitlines())
    assert Path(found.pop("stft_parity")).is_relative_to(lone_environment)
    assert found == {"mlx": "None", "torch_mlx_spectro": "None"}
    ended = run(lone_environment, "stft-parity", "torch", "--select", "n_fft=15", "--json")
    assert ended.stderr == ""
    report = json.loads(ended.stdout)
    assert report["ok"]
    assert ended.returncode == 0


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
