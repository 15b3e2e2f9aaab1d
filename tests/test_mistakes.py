"""What people get wrong in their first ten minutes, and what they are told.

Each message names what was given and what was expected. What torch refuses too is torch's to say.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from checkout import ROOT
from needs import needs_mlx

import torch_mlx_spectro as tms
from torch_mlx_spectro.cli import main as cli
from torch_mlx_spectro.errors import suggest

#: Command lines, and what the last line of the message has.
COMMAND_LINES = {
    "bnech": "'bnech' (choose from {any}); did you mean 'bench'?",
    "--json": "no command: give one of run, doctor, demo, parity, bench|unrecognized arguments",
    "doctor --jsno": "unrecognized arguments: --jsno; did you mean '--json'?",
    "doctor --verbos": "unrecognized arguments: --verbos; did you mean '--verbose'?",
    "run": "no program named: give a script, -m module, -c code or a console script",
    "run --bakend mlx x.py": "unrecognized arguments: --bakend; did you mean '--backend'?",
    "run --back mlx x.py": "unrecognized arguments: --back; did you mean '--backend'?",
    "run --backend metal x.py": "--backend: invalid choice: 'metal' {any}; did you mean 'mps'?",
    "run --backend": "argument --backend: expected one argument",
    "run missing.py": "'missing.py' is neither a file nor a console script of this Python",
    "run -m": "-m needs a module after it",
    "run --stats-file no/folder/a -c 1": "--stats-file {any}no/folder/a: not a file name in an",
    "demo a.wav": "unrecognized arguments: a.wav",
    "demo --input missing.wav": "--input missing.wav: No such file or directory",
    "parity --cases quik": "--cases: invalid choice: 'quik' {any}; did you mean 'quick'?",
    "parity --select 512": "--select 512: write it as argument=value",
    "bench --table sttf": "--table sttf: there are {any}; did you mean 'stft'?",
    "bench --backends mxl --device cpu": "--backends mxl: {any}; did you mean 'mlx'?",
    "bench --threads two": "argument --threads: invalid int value: 'two'",
    "bench --plot speed.gif": "--plot speed.gif: the name ends in .png, .svg or .pdf",
    "bench --device npu": "--device: invalid choice: 'npu' (choose from {any}",
    "bench --compare missing.json": "--compare missing.json: No such file or directory",
}

#: What a message says to install.
HINT = re.compile(r"pip install (?:-[-\w]+ )*'?([\w.{-]+)")

NAMES = "auto, native, cpu, mlx, mps, cuda"
VERIFY = "verify must be 0 (verify nothing) or a positive integer N (every Nth accelerated call)"
#: What our own functions are called with, and what they say.
CALLS: dict[str, tuple[Callable[[], Any], str]] = {
    "patch by a device's nickname": (
        lambda: tms.patch("metal"),  # type: ignore[arg-type]
        f"backend must be one of {NAMES}; got 'metal'; did you mean 'mps'?",
    ),
    "patch by a device's kind": (
        lambda: tms.patch("gpu"),  # type: ignore[arg-type]
        f"backend must be one of {NAMES}; got 'gpu'; did you mean '{{any}}'?",
    ),
    "a backend mistyped": (
        lambda: tms.backend("metall").__enter__(),  # type: ignore[arg-type]
        f"backend must be one of {NAMES}; got 'metall'; did you mean 'mps'?",
    ),
    "a backend by torch's device": (
        lambda: tms.patch(torch.device("cpu")),  # type: ignore[arg-type]
        f"backend must be one of {NAMES}; got device(type='cpu'); did you mean 'cpu'?",
    ),
    "a bool in words": (
        lambda: tms.patch(strict="no"),  # type: ignore[arg-type]
        "strict must be True or False; got 'no'",
    ),
    "a bool in words, in a context": (
        lambda: tms.backend("cpu", strict="no").__enter__(),  # type: ignore[arg-type]
        "strict must be True or False; got 'no'",
    ),
    "verify of none": (lambda: tms.patch(verify=-1), f"{VERIFY}; got -1"),
    "verify as a share": (
        lambda: tms.patch(verify=0.1),  # type: ignore[arg-type]
        f"{VERIFY}; got 0.1",
    ),
    "explain another function": (
        lambda: tms.explain(torch.fft.rfft, torch.ones(8)),
        "function must be stft or istft; got ",
    ),
    "memory in words": (
        lambda: tms.set_result_memory("1 GB"),  # type: ignore[arg-type]
        "limit must be a number of bytes, 0 or more; got '1 GB'",
    ),
    "a name mistyped": (
        lambda: tms.sftf,  # type: ignore[attr-defined]
        "module 'torch_mlx_spectro' has no attribute 'sftf'",
    ),
}
#: The same of the functions for MLX's arrays.
MLX_CALLS: dict[str, tuple[Callable[[], Any], str]] = {
    "a tensor for MLX's functions": (
        lambda: tms.SpectralTransform(n_fft=16).stft(torch.ones(64)),
        "stft expects an MLX array (mlx.core.array); got torch.Tensor",
    ),
    "an array of numpy for MLX's functions": (
        lambda: tms.SpectralTransform(n_fft=16).stft(np.ones(64)),
        "stft expects an MLX array (mlx.core.array); got numpy.ndarray: mx.array(...) makes one",
    ),
    "no frame": (lambda: tms.SpectralTransform(n_fft=0), "n_fft must be positive; got 0"),
    "a window mistyped": (
        lambda: tms.SpectralTransform(n_fft=16, window_fn="hannn"),
        "Unknown window_fn: 'hannn'; known are ",
    ),
}
#: What torch refuses: the same exception with the same words as torch's own function.
TORCHS_OWN: dict[str, Callable[[Any], Any]] = {
    "numpy": lambda module: module.stft(np.ones(64, np.float32), 16, return_complex=True),
    "nothing": lambda module: module.stft(None, 16, return_complex=True),
    "a list": lambda module: module.stft([0.5] * 64, 16, return_complex=True),
    "no frame": lambda module: module.stft(torch.ones(64), 0, return_complex=True),
    "a frame that is too long": lambda module: module.stft(
        torch.ones(64), 512, return_complex=True
    ),
    "a window's name": lambda module: module.stft(
        torch.ones(64), 16, window="hann", return_complex=True
    ),
    "a window of another size": lambda module: module.stft(
        torch.ones(64), 16, window=torch.ones(8), return_complex=True
    ),
    "a window on another device": lambda module: module.stft(
        torch.ones(64), 16, window=torch.ones(16, device="meta"), return_complex=True
    ),
    "librosa's argument": lambda module: module.stft(torch.ones(64), 16, hop=4),
    "no return_complex": lambda module: module.stft(torch.ones(64), 16),
    "a padding of another library": lambda module: module.stft(
        torch.ones(64), 16, pad_mode="edge", return_complex=True
    ),
    "istft of a signal": lambda module: module.istft(torch.ones(64), 16),
    "istft of other bins": lambda module: module.istft(torch.ones(8, 5, dtype=torch.complex64), 16),
}
#: What no message may have: names of our modules and of what is private in them.
INTERNAL = re.compile(
    r"torch_mlx_spectro\.(?!patch|stft|istft)\w|\b_[a-z]\w*|dispatch|registry|argparse|Traceback"
)


def check_message(said: str, expected: str) -> None:
    """Compare, where ``{any}`` stands for some words and ``|`` separates what may be said."""
    pattern = "|".join(
        re.escape(one).replace(re.escape("{any}"), ".*") for one in expected.split("|")
    )
    assert re.search(pattern, said), said
    assert not INTERNAL.search(said), said


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_a_mistaken_command_line_is_told(
    line: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code = cli.main(line.split())
    except SystemExit as ended:
        code = int(ended.code or 0)
    printed = capsys.readouterr()
    assert code == 2
    assert printed.out == ""
    check_message(printed.err.splitlines()[-1], COMMAND_LINES[line])
    assert not tms.is_patched()


def test_the_bare_command_shows_the_help_and_ends_with_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main([]) == 2
    printed = capsys.readouterr()
    for name in ("run", "doctor", "demo", "parity", "bench"):
        assert re.search(rf"^ +{name} +\w", printed.err, re.M)


@pytest.mark.parametrize("mistake", CALLS)
def test_a_mistaken_call_is_told(mistake: str) -> None:
    call, expected = CALLS[mistake]
    with pytest.raises((ValueError, AttributeError)) as raised:
        call()
    check_message(str(raised.value), expected)
    assert not tms.is_patched()


@needs_mlx
@pytest.mark.parametrize("mistake", MLX_CALLS)
def test_a_mistaken_call_with_mlx_is_told(mistake: str) -> None:
    call, expected = MLX_CALLS[mistake]
    with pytest.raises((ValueError, TypeError)) as raised:
        call()
    check_message(str(raised.value), expected)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mistake", TORCHS_OWN)
def test_what_torch_refuses_is_told_by_torch(mistake: str) -> None:
    call = TORCHS_OWN[mistake]
    with pytest.raises(Exception) as theirs:  # noqa: PT011
        call(torch)
    with tms.patch(), pytest.raises(type(theirs.value)) as patched:
        call(torch)
    with pytest.raises(type(theirs.value)) as ours:
        call(tms)
    assert str(patched.value) == str(ours.value) == str(theirs.value)
    assert not INTERNAL.search(str(ours.value))


def test_a_similar_name_is_suggested_and_no_other() -> None:
    assert suggest("STFT", ("stft", "istft")) == "; did you mean 'stft'?"
    assert suggest("--plto", ("--plot", "--json")) == "; did you mean '--plot'?"
    assert suggest("metal", ("mps", "mlx")) == "; did you mean 'mps'?"
    assert suggest("metal", ("stft",)) == ""  # what it is called elsewhere is not meant here
    assert suggest("x.py", ("run", "doctor")) == ""
    assert suggest(None, ("auto",)) == ""


def test_a_hint_installs_what_is_missing_itself():
    """pip may not know this package by its name: it is installed from a checkout, or not at all."""
    sources = [*ROOT.glob("torch_mlx_spectro/**/*.py"), *ROOT.glob("parity/**/*.py")]
    told = [(path.name, text) for path in sources for text in HINT.findall(path.read_text())]
    assert len(told) > 8
    ours = ("torch-mlx-spectro", "stft-parity", "torch_mlx_spectro")
    assert [(name, text) for name, text in told if text.startswith(ours)] == []
