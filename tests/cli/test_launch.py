"""A program under ``run`` sees, prints, raises and returns what it does under plain Python.

Most of these tests replace the package's own ``__init__`` by one that does not import torch, which
takes most of the time; ``test_run.py`` and the test of spawned processes run the real one.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import zipfile
from pathlib import Path

import pytest
from cli_process import RUN, python

from torch_mlx_spectro import interrupts
from torch_mlx_spectro.cli import launch
from torch_mlx_spectro.errors import Problem

# Prints all that a program can see of how it was started. The annotation would become a string if
# the launcher's own __future__ imports got into the program.
VIEW = """\
"the program's own docstring"
import json, sys
value: int = 1
main = sys.modules["__main__"]
print(json.dumps({
    "argv": sys.argv, "path": sys.path, "names": sorted(vars(main)), "name": __name__,
    "file": globals().get("__file__"), "spec": getattr(__spec__, "name", None),
    "package": __package__, "loader": getattr(__loader__, "__name__", type(__loader__).__name__),
    "doc": __doc__, "main": vars(main) is globals(), "stdin": sys.stdin.read(),
    "annotations": repr(main.__annotations__), "builtins": type(__builtins__).__name__,
}))
"""

# Ends in the way that its argument names, after an atexit function of its own.
ENDING = """\
import atexit, sys, threading, time
kind = sys.argv[1]
atexit.register(print, "atexit", kind)

def end(number):
    if kind == "chained":
        try:
            1 / number
        except ZeroDivisionError as error:
            raise RuntimeError("wrapped") from error
    if kind == "interrupt":
        raise KeyboardInterrupt
    if kind == "text":
        sys.exit("last words")
    if kind == "code":
        sys.exit(7)
    if kind == "hook":
        sys.excepthook = lambda kind, error, trace: print(
            "hook", kind, error, trace.tb_lineno, trace.tb_frame.f_code.co_name
        )
        raise OSError("for the hook")
    if kind == "thread":
        def late():
            time.sleep(0.2)
            print("late", sys.modules["__main__"].end is end)
        threading.Thread(target=late).start()

end(0)
"""

WITHOUT_TORCH = """\
__path__.append({package!r})
__version__ = "0"
def patch(backend, *, strict): pass
"""

SPAWN = """\
import multiprocessing, pickle

class Box:
    def __init__(self, value):
        self.value = value

def double(box):
    return Box(2 * box.value)

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        # with a limit: a pool waits for ever for a result that it cannot unpickle
        print(pool.map_async(double, [Box(4)]).get(60)[0].value)
    print(type(pickle.loads(pickle.dumps(Box(1)))) is Box)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "view.py").write_text(VIEW)
    (tmp_path / "ending.py").write_text(ENDING)
    (tmp_path / "link.py").symlink_to(tmp_path / "package" / "module.py")
    for name in ("package/__init__.py", "package/__main__.py", "package/module.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("" if name.endswith("__init__.py") else VIEW)
    with zipfile.ZipFile(tmp_path / "app.zip", "w") as archive:
        archive.writestr("__main__.py", VIEW)
    return tmp_path


@pytest.fixture(scope="module")
def without_torch(tmp_path_factory) -> dict[str, str]:
    """The variable by which a process finds the package without its ``__init__``."""
    path = tmp_path_factory.mktemp("light")
    (path / "torch_mlx_spectro").mkdir()
    source = WITHOUT_TORCH.format(package=str(Path(launch.__file__).parents[1]))
    (path / "torch_mlx_spectro" / "__init__.py").write_text(source)
    return {"PYTHONPATH": str(path)}


def assert_same_as_plain(
    folder: Path, *arguments: str, stdin: str = "typed", variables: dict[str, str] | None = None
) -> str:
    plain = python(*arguments, cwd=folder, stdin=stdin, variables=variables)
    ours = python(*RUN, "--strict", *arguments, cwd=folder, stdin=stdin, variables=variables)
    assert ours.stderr == plain.stderr
    assert ours.stdout == plain.stdout
    # A signal's number by another program, its exit code to a shell.
    interrupted = plain.returncode == -signal.SIGINT
    assert ours.returncode == (interrupts.EXIT_CODE if interrupted else plain.returncode)
    return ours.stdout + ours.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("./view.py", "--stats", "-m", "x"),
        ("link.py",),
        ("./package", "a b"),
        ("app.zip", "--json"),
        ("-m", "package", "--backend", "native"),
        ("-m", "package.module"),
        ("-c", VIEW, "-c"),
    ],
    ids=lambda arguments: arguments[0] if len(arguments[0]) > 2 else arguments[1].split("\n")[0],
)
def test_program_sees_what_it_sees_under_plain_python(folder, arguments, without_torch):
    seen = assert_same_as_plain(folder, *arguments, variables=without_torch)
    assert '"main": true' in seen


def test_program_from_standard_input(folder, without_torch):
    seen = assert_same_as_plain(folder, "-", "x", stdin=VIEW, variables=without_torch)
    assert '"argv": ["-", "x"]' in seen


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has no -P")
def test_path_is_left_alone_under_safe_path(folder, without_torch):
    variables = without_torch | {"PYTHONSAFEPATH": "1"}
    seen = assert_same_as_plain(folder, "view.py", variables=variables)
    assert str(folder) not in json.loads(seen)["path"]


@pytest.mark.parametrize(
    ("kind", "printed"),
    [
        ("chained", "RuntimeError: wrapped"),
        ("interrupt", "KeyboardInterrupt"),
        ("text", "last words"),
        ("code", "atexit code"),
        ("hook", "hook <class 'OSError'> for the hook 28 <module>"),
        ("thread", "late True"),
    ],
)
def test_program_ends_as_under_plain_python(folder, kind, printed, without_torch):
    assert printed in assert_same_as_plain(folder, "ending.py", kind, variables=without_torch)


def test_code_on_the_command_line_is_shown_in_tracebacks_as_by_plain_python(folder, without_torch):
    told = assert_same_as_plain(folder, "-c", "x = 1\nx / 0", variables=without_torch)
    assert 'File "<string>", line 2' in told


def test_missing_module_is_told_as_by_plain_python(folder, without_torch):
    told = assert_same_as_plain(folder, "-m", "nowhere", variables=without_torch)
    assert "No module named nowhere" in told


def test_spawned_processes_find_what_the_program_defines(folder):
    (folder / "spawn.py").write_text(SPAWN)
    assert assert_same_as_plain(folder, "spawn.py") == "8\nTrue\n"


def test_console_script_of_an_installed_distribution(folder, without_torch):
    info = folder / "sample-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sample\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[console_scripts]\nsample-cli = sample:Tool.start\n")
    (folder / "sample.py").write_text(
        "import sys\nclass Tool:\n    @staticmethod\n    def start():\n"
        "        print(sys.argv[1:], __name__)\n        return 5\n"
    )
    variables = {"PYTHONPATH": f"{without_torch['PYTHONPATH']}{os.pathsep}{folder}"}
    ours = python(*RUN, "sample-cli", "--stats", cwd=folder, variables=variables)
    assert (ours.stdout, ours.stderr, ours.returncode) == ("['--stats'] sample\n", "", 5)


def write_script(path: Path, first_lines: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{first_lines}\nprint('ran')\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    "first_lines",
    [
        "#!/usr/bin/env python3",
        f"#!{sys.executable} -u",
        f"#!/bin/sh\n'''exec' {sys.executable} \"$0\" \"$@\"\n' '''",
    ],
)
def test_python_script_on_path_is_found(first_lines, tmp_path, monkeypatch):
    script = write_script(tmp_path / "bin" / "sample-tool", first_lines)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    found = launch.resolve(["sample-tool", "-m", "x"])
    assert found == launch.Program("script", str(script), str(script), ("-m", "x"))


@pytest.mark.parametrize(
    ("first_lines", "message"),
    [
        ("#!/bin/sh", "is not a Python script"),
        ("\x7fELF", "is not a Python script"),
        ("#!/somewhere/else/bin/python3", "belongs to another Python"),
    ],
)
def test_unusable_script_on_path_is_refused(first_lines, message, tmp_path, monkeypatch):
    write_script(tmp_path / "bin" / "sample-tool", first_lines)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(Problem, match=message):
        launch.resolve(["sample-tool"])


def test_console_script_wins_over_a_folder_of_its_name_but_not_over_a_file(tmp_path, monkeypatch):
    script = write_script(tmp_path / "bin" / "sample-tool", "#!/usr/bin/env python3")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sample-tool").mkdir()
    assert launch.resolve(["sample-tool"]).target == str(script)
    assert launch.resolve(["./sample-tool"]).kind == "folder"
    (tmp_path / "sample-tool").rmdir()
    (tmp_path / "sample-tool").write_text("pass")
    assert launch.resolve(["sample-tool"]).target == "sample-tool"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ([], "no program named"),
        (["-m"], "-m needs a module"),
        (["-c"], "-c needs code"),
        (["no/such.py"], "'no/such.py' is neither a file nor a console script"),
        (["no-such-program"], "'no-such-program' is neither a file nor a console script"),
    ],
)
def test_missing_program_is_named(command, message):
    with pytest.raises(Problem, match=message):
        launch.resolve(command)
