"""GitHub's workflows say what can be run: their commands are the Makefile's and the package's."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from checkout import ROOT

from torch_mlx_spectro.cli import main as cli

FOLDER = ROOT / ".github"
WORKFLOWS = sorted((FOLDER / "workflows").glob("*.yml"))
#: Programs that a step may call beside make and ours.
OTHERS = {"sudo", "echo", "cat", "tee", "python"}
#: Words of the shell, in front of a command or alone.
SHELL = {"if", "then", "else", "fi"}


def read(path: Path) -> dict[Any, Any]:
    """The file as an object; YAML 1.1 takes the key ``on`` for a truth value."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def steps(path: Path) -> Iterator[dict[str, Any]]:
    for job in read(path)["jobs"].values():
        yield from job["steps"]


def simple_commands(line: str) -> Iterator[list[str]]:
    """The words of every command of a line: without redirections and words of the shell."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|;&<>")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in lexer:
        if set(word) <= set("|;&"):
            yield words
            words = []
        elif set(word) <= set("<>&"):
            next(lexer)  # where to
            if words and words[-1].isdigit():
                words.pop()
        elif word not in SHELL or words:
            words.append(word)
    yield words


def commands() -> Iterator[list[str]]:
    """Every command of every step."""
    for path in WORKFLOWS:
        for step in steps(path):
            for line in step.get("run", "").splitlines():
                yield from filter(None, simple_commands(line))


def test_commands_are_found_in_lines():
    line = 'if python a.py > b.txt 2>&1; then echo "c | d" | tee -a "$E"; fi'
    assert list(filter(None, simple_commands(line))) == [
        ["python", "a.py"],
        ["echo", "c | d"],
        ["tee", "-a", "$E"],
    ]


def test_there_are_workflows():
    assert [path.name for path in WORKFLOWS] == [
        "candidates.yml",
        "ci.yml",
        "dependants.yml",
        "macos.yml",
    ]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_only_read_and_ends(path: Path):
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert "cancel-in-progress" in workflow["concurrency"]
    assert workflow["defaults"]["run"]["shell"] == "bash"  # with pipefail
    for job in workflow["jobs"].values():
        assert 0 < job["timeout-minutes"] <= 120
        assert "permissions" not in job
        assert "continue-on-error" not in job
    for step in steps(path):
        assert "continue-on-error" not in step
        assert ("uses" in step) != ("run" in step)
        if "uses" in step:
            assert re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"])
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"] == {"persist-credentials": False}
        # Text of a pull request in a script would be run.
        assert "${{" not in step.get("run", "")


def test_every_make_target_is_one():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: ((?:.*\\\n)*.*)$", makefile, re.MULTILINE)
    assert phony
    targets = {*phony[1].split(), ".venv-make/installed"}
    assert "INSTALLED := $(VENV)/installed" in makefile
    told = re.findall(r'^\t@echo "(make (\S+) .*)"$', makefile, re.MULTILINE)
    assert {target for _, target in told} == set(phony[1].replace("\\", "").split()) - {"help"}
    assert [line for line, _ in told if len(line) > 80] == []
    named = [word for words in commands() if words[0] == "make" for word in words[1:]]
    assert set(named) <= targets
    assert {"lint", "test", "demo", "test-wheels", "test-pipelines", "test-dependants"} <= set(
        named
    )


def test_every_command_of_ours_is_one():
    found = [words for words in commands() if words[0].endswith("torch-mlx-spectro")]
    assert {words[1] for words in found} >= {"doctor", "parity", "bench"}
    for words in found:
        cli.build_parser().parse_args(words[1:])


def test_every_other_command_is_known():
    for words in commands():
        if not words[0].endswith("torch-mlx-spectro") and words[0] != "make":
            assert words[0] in OTHERS


def test_supported_pythons_are_tested():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    supported = re.findall(r"Python :: (3\.\d+)", text)
    workflow = read(FOLDER / "workflows" / "ci.yml")
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == supported


def test_cached_requirements_exist():
    for path in WORKFLOWS:
        for step in steps(path):
            for name in step.get("with", {}).get("cache-dependency-path", "").split():
                assert list(ROOT.glob(name)), name


def test_the_probe_says_no_without_a_device(monkeypatch, capsys):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert runpy.run_path(str(FOLDER / "gpu_probe.py"))["main"]() == 1
    assert "torch finds no MPS device" in capsys.readouterr().out


def test_the_probe_fails_where_the_first_allocation_does(monkeypatch):
    """As on virtual machines that report a device; here torch is built without."""
    if torch.backends.mps.is_available():
        pytest.skip("there may be one")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises((RuntimeError, NotImplementedError), match=r"(?i)mps"):
        runpy.run_path(str(FOLDER / "gpu_probe.py"))["main"]()


@pytest.mark.parametrize("name", ["wrong_result.yml", "numbers.yml"])
def test_issue_forms_ask_for_what_a_command_writes(name: str):
    form = read(FOLDER / "ISSUE_TEMPLATE" / name)
    ids = [part["id"] for part in form["body"] if part["type"] != "markdown"]
    assert len(set(ids)) == len(ids)
    text = (FOLDER / "ISSUE_TEMPLATE" / name).read_text(encoding="utf-8")
    for command in re.findall(r"`torch-mlx-spectro ([^`]+)`", text):
        cli.build_parser().parse_args(shlex.split(command))


XCRUN = """#!{python}
import sys
standard, path = sys.argv[4], sys.argv[6]
text = open(path, encoding="ascii").read()
assert sys.argv[1:4] == ["-sdk", "macosx", "metal"]
assert standard.startswith("-std=metal")
if standard == "-std=metal4.0":
    sys.exit("error: invalid value 'metal4.0'")
if "wrong" in text:
    sys.exit("error: wrong")
"""


@pytest.mark.parametrize("texts", [["fine"], ["fine", "wrong"], []])
def test_every_text_is_compiled_in_every_known_standard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, texts: list[str]
):
    """By a stand-in for Xcode's compiler that does not know Metal 4."""
    program = tmp_path / "bin" / "xcrun"
    program.parent.mkdir()
    program.write_text(XCRUN.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    folder, report = tmp_path / "kernels", tmp_path / "compiled.json"
    folder.mkdir()
    for text in texts:
        (folder / f"{text}.metal").write_text(text)
    main = runpy.run_path(str(FOLDER / "compile_kernels.py"))["main"]
    assert main(str(folder), str(report)) == (0 if texts == ["fine"] else 1)
    found = json.loads(report.read_text())
    assert [one["known"] for one in found.values()] == [True, True, False]
    assert found["metal3.1"]["compiled"] == texts.count("fine")
    assert found["metal3.2"]["refused"] == {f"{t}.metal": "error: wrong" for t in texts[1:]}
    assert "metal4.0: this compiler does not know it" in capsys.readouterr().out
