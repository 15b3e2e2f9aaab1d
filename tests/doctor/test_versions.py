"""The table of known problems: when an entry holds, and that each can be looked up and mended."""

from __future__ import annotations

import re
import shlex

import pytest
from checkout import ROOT

from torch_mlx_spectro.cli.main import build_parser
from torch_mlx_spectro.doctor import findings
from torch_mlx_spectro.doctor.findings import KNOWN_BAD, KnownBad, find_known_bad, list_versions
from torch_mlx_spectro.mlx import runtime

THREAD = re.compile(r"[\w.-]+/[\w.-]+#\d+")


def threads_of(mps: bool = True, **versions: str) -> set[str]:
    return {thread for bad in find_known_bad(versions, mps) for thread in bad.threads}


@pytest.mark.parametrize(
    ("package", "version", "thread", "holds"),
    [
        ("mlx", "0.32.3", "ml-explore/mlx#4497", True),
        ("mlx", "0.32.4", "ml-explore/mlx#4497", False),
        ("mlx", "0.33.0.dev20261001+gabc", "ml-explore/mlx#4497", False),
        ("mlx", "0.32.0", "ml-explore/mlx#4013", True),
        ("mlx", "0.32.1", "ml-explore/mlx#4013", False),
        ("mlx", "0.31.1", "ml-explore/mlx#3727", False),
        ("mlx", "0.31.2", "ml-explore/mlx#3727", True),
        ("mlx", "0.32.0", "ml-explore/mlx#3727", False),
        ("torch", "2.9.1", "pytorch/pytorch#169272", True),
        ("torch", "2.10.0", "pytorch/pytorch#169272", False),
        ("torch", "2.11.0+cu130", "pytorch/pytorch#175818", True),
        ("torch", "2.12.0", "pytorch/pytorch#175818", False),
        ("torch", "2.12.1", "pytorch/pytorch#174003", True),
        ("torch", "2.13.0+cpu", "pytorch/pytorch#174003", False),
        ("torch", "2.99", "pytorch/pytorch#126649", True),
        ("macos", "15.6", "actions/runner-images#14380", False),
        ("macos", "26.0.1", "actions/runner-images#14380", True),
    ],
)
def test_an_entry_holds_for_the_releases_that_have_it(package, version, thread, holds):
    assert (thread in threads_of(**{package: version})) is holds


def test_what_matters_on_mps_is_told_where_there_is_mps():
    assert "pytorch/pytorch#175818" not in threads_of(False, torch="2.11.0")
    assert "ml-explore/mlx#4497" in threads_of(False, mlx="0.32.3")


def test_a_package_that_is_missing_has_no_problem():
    assert find_known_bad({"torch": None}, True) == ()


def test_an_mlx_of_the_table_is_one_that_is_not_used():
    """Else a release known to be wrong would compute: the minimum is what keeps it out."""
    of_mlx = [bad for bad in KNOWN_BAD if bad.package == "mlx"]
    assert of_mlx
    assert all(bad.before <= runtime.MINIMUM_MLX for bad in of_mlx)


@pytest.mark.parametrize("bad", KNOWN_BAD, ids=lambda bad: bad.threads[0])
def test_every_entry_can_be_looked_up_and_has_a_command(bad: KnownBad):
    assert bad.package in list_versions("0")
    assert bad.level in findings.LEVELS
    assert bad.threads
    assert all(THREAD.fullmatch(thread) for thread in bad.threads)
    assert bad.fix
    assert not bad.what.endswith(".")
    assert not bad.before or bad.since < bad.before


def test_the_required_releases_are_those_of_the_package():
    """pip keeps out what the table calls an error of torch."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    worst = max(bad.before for bad in KNOWN_BAD if (bad.package, bad.level) == ("torch", "error"))
    assert f'"torch>={".".join(map(str, worst))}"' in text


def test_installed_versions_import_nothing():
    versions = list_versions("1.2.3")
    assert versions["torch_mlx_spectro"] == "1.2.3"
    assert versions["torch"]


def test_the_commands_of_entries_can_be_run():
    for bad in KNOWN_BAD:
        for command in bad.fix:
            program, *words = shlex.split(command)
            if program == "torch-mlx-spectro":
                build_parser().parse_args(words)
            else:
                assert [program, *words[:4]] == ["python", "-m", "pip", "install", "--upgrade"]
