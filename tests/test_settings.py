"""Environment variables: what they may hold, and that a wrong value is told by its name."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import torch_mlx_spectro
from torch_mlx_spectro import settings as environment
from torch_mlx_spectro.backends import registry
from torch_mlx_spectro.dispatch.choice import environment_settings
from torch_mlx_spectro.settings import (
    ANY_KERNEL,
    RECOGNISED,
    autotune_settings,
    check_verify,
    mlx_settings,
    settings,
    verify_setting,
)

VARIABLE = "TORCH_MLX_SPECTRO_BACKEND"
VERIFY = "TORCH_MLX_SPECTRO_VERIFY"
THREADS = "SPEC_MLX_TGX"


@pytest.mark.parametrize("name", ["auto", *registry.names()])
def test_every_backend_can_be_asked_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, name)
    assert settings().backend == name
    assert environment_settings().backend == name
    assert registry.check_name(name, "backend") == name


@pytest.mark.parametrize("value", [None, ""])
def test_unset_and_empty_mean_auto(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if value is None:
        monkeypatch.delenv(VARIABLE, raising=False)
    else:
        monkeypatch.setenv(VARIABLE, value)
    assert settings().backend == "auto"


@pytest.mark.parametrize("value", ["CUDA", "MLX", " mlx", "metal", "0"])
def test_unknown_value_names_variable_value_and_choices(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(ValueError, match=VARIABLE) as raised:
        environment_settings()
    assert repr(value) in str(raised.value)
    for name in ("auto", *registry.names()):
        assert name in str(raised.value)


def test_an_unknown_name_is_told_with_its_source() -> None:
    known = ", ".join(registry.names())
    with pytest.raises(ValueError, match=rf"^--backend must be one of auto, {known}; got 'x'$"):
        registry.check_name("x", "--backend")


@pytest.mark.parametrize(("value", "every"), [(None, 0), ("", 0), ("0", 0), ("1", 1), ("100", 100)])
def test_number_of_calls_to_verify(
    value: str | None, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VERIFY, raising=False)
    if value is not None:
        monkeypatch.setenv(VERIFY, value)
    assert verify_setting() == settings().verify == every


@pytest.mark.parametrize("value", ["-1", "1.5", "yes", " 1", "1_0", "\u0661"])
def test_wrong_number_of_calls_names_variable_and_value(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VERIFY, value)
    for read in (settings, verify_setting):
        with pytest.raises(ValueError, match=rf"^{VERIFY} must be 0 .* or a positive") as raised:
            read()
        assert repr(value) in str(raised.value)


@pytest.mark.parametrize("value", [-1, 1.0, True, "1", [3]])
def test_wrong_number_of_calls_names_the_argument(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^verify must be 0") as raised:
        check_verify(value, "verify")
    assert repr(value) in str(raised.value)


def test_environment_is_read_when_asked_not_when_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "native")
    first = settings()
    monkeypatch.setenv(VARIABLE, "mlx")
    assert (first.backend, settings().backend) == ("native", "mlx")
    assert dataclasses.asdict(first) == {"backend": "native", "verify": 0}


def test_flags_of_the_mlx_api(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLX_OLA_FUSE_NORM", "SPEC_MLX_CACHE_STATS"):
        monkeypatch.delenv(name, raising=False)
    assert dataclasses.asdict(mlx_settings()) == {"fuse_norm": True, "cache_stats": False}
    for value, meant in (("1", True), ("off", False), ("YES", True), ("False", False)):
        monkeypatch.setenv("MLX_OLA_FUSE_NORM", value)
        monkeypatch.setenv("SPEC_MLX_CACHE_STATS", value)
        assert dataclasses.asdict(mlx_settings()) == {"fuse_norm": meant, "cache_stats": meant}
    monkeypatch.setenv("SPEC_MLX_CACHE_STATS", "2")
    with pytest.raises(ValueError, match=r"SPEC_MLX_CACHE_STATS must be one of 1, .*; got '2'"):
        mlx_settings()


def test_measurements_by_default_and_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("", "_PERSIST", "_CACHE_PATH"):
        monkeypatch.delenv(f"SPEC_MLX_AUTOTUNE{name}", raising=False)
    monkeypatch.delenv(THREADS, raising=False)
    found = autotune_settings()
    assert (found.measure, found.persist, found.cache_path) == (True, True, None)
    assert found.threads == {}
    monkeypatch.setenv("SPEC_MLX_AUTOTUNE", "0")
    monkeypatch.setenv("SPEC_MLX_AUTOTUNE_PERSIST", "off")
    monkeypatch.setenv("SPEC_MLX_AUTOTUNE_CACHE_PATH", "somewhere")
    found = autotune_settings()
    assert (found.measure, found.persist, found.cache_path) == (False, False, "somewhere")
    for name in ("SPEC_MLX_AUTOTUNE", "SPEC_MLX_AUTOTUNE_PERSIST"):
        monkeypatch.setenv(name, "2")
        for read in (autotune_settings, settings):
            with pytest.raises(ValueError, match=rf"^{name} must be one of .*; got '2'$"):
                read()
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("", {}),
        ("256", {ANY_KERNEL: 256}),
        ("analysis:1024", {"analysis": 1024}),
        ("analysis:64, synthesis : 32,128", {"analysis": 64, "synthesis": 32, ANY_KERNEL: 128}),
    ],
)
def test_threads_of_a_group(
    text: str, meant: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(THREADS, text)
    assert autotune_settings().threads == meant
    with pytest.raises(TypeError):
        autotune_settings().threads["analysis"] = 1  # type: ignore[index]


@pytest.mark.parametrize(
    "text",
    ["0", "1025", "-1", "x", "a:", ":64", "a:b:", "64,", "64,32", "a:1,a:2", "1_0", "\u0661"],
)
def test_wrong_threads_name_variable_and_value(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(THREADS, text)
    with pytest.raises(ValueError, match=rf"^{THREADS} must be a number .* to 1024") as raised:
        settings()
    assert repr(text) in str(raised.value)


def test_only_this_module_reads_variables_and_each_is_described() -> None:
    """``doctor`` prints the table: a variable that is read elsewhere would be missing there."""
    package = Path(torch_mlx_spectro.__file__).parent
    readers = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if "os.environ" in path.read_text() or "getenv" in path.read_text()
    }
    # They write variables for children, read torchrun's rank, or run before the package can.
    children = {"cli/run.py", "cli/children/parent.py", "cli/children/site/sitecustomize.py"}
    assert readers == {"settings.py", "dispatch/recording.py", *children}
    source = Path(environment.__file__).read_text()
    assert set(RECOGNISED) == {
        VARIABLE,
        VERIFY,
        "TORCH_MLX_SPECTRO_RESULT_MEMORY",
        "TORCH_MLX_SPECTRO_CHILDREN",
        "TORCH_MLX_SPECTRO_EMULATED_CONTRACTION",
        "TORCH_MLX_SPECTRO_EMULATED_DENORMALS",
        "MLX_OLA_FUSE_NORM",
        "SPEC_MLX_CACHE_STATS",
        "SPEC_MLX_AUTOTUNE",
        "SPEC_MLX_AUTOTUNE_PERSIST",
        "SPEC_MLX_AUTOTUNE_CACHE_PATH",
        THREADS,
        "PYTORCH_MPS_FAST_MATH",
    }
    assert all(name in source and meaning for name, meaning in RECOGNISED.items())
