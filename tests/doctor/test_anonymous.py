"""What is submitted names no user, no host and no folder."""

from __future__ import annotations

import getpass
import platform
from pathlib import Path

import pytest

from torch_mlx_spectro.doctor.anonymous import anonymise, find_revealing, list_own_names

NAMES = ("jane", "janes-laptop")


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("in /home/jane/venv/lib/python3.11/site-packages", "in <path>"),
        ("/Users/jane/x.py:12", "<path>:12"),
        ("'/opt/thing/a.so' is missing", "'<path>' is missing"),
        (r"C:\Users\jane\x is missing", "<path> is missing"),
        ("~/cache/x.json", "<path>"),
        ("host janes-laptop, user Jane.", "host <name>, user <name>."),
        ("the janet window", "the janet window"),
        ("stft/mlx and 1/2 of a/b/c", "stft/mlx and 1/2 of a/b/c"),
        ("Linux-6.18-x86_64-with-glibc2.36", "Linux-6.18-x86_64-with-glibc2.36"),
        ("native / ours", "native / ours"),
        ("n_fft=400, hop_length=160", "n_fft=400, hop_length=160"),
    ],
)
def test_paths_and_names_are_replaced_and_nothing_else(text, clean):
    assert anonymise(text, NAMES) == clean
    assert find_revealing(clean, NAMES) == []
    assert bool(find_revealing(text, NAMES)) == (text != clean)


def test_keys_and_nests_are_cleaned_and_numbers_kept():
    value = {"/home/jane/a.py:3": [1, 2.5, None, True, {"x": "jane"}], "n": 3}
    assert anonymise(value, NAMES) == {"<path>:3": [1, 2.5, None, True, {"x": "<name>"}], "n": 3}


def test_own_names_are_those_of_user_and_host(monkeypatch):
    monkeypatch.setattr(platform, "node", lambda: "Janes-Mac.local")
    monkeypatch.setattr(getpass, "getuser", lambda: "jdoe")
    monkeypatch.setattr(Path, "home", lambda: Path("/Users/janedoe"))
    assert list_own_names() == ("Janes-Mac.local", "Janes-Mac", "janedoe", "jdoe")


def test_names_that_everybody_has_are_left(monkeypatch):
    monkeypatch.setattr(platform, "node", lambda: "localhost")
    monkeypatch.setattr(getpass, "getuser", lambda: "root")
    monkeypatch.setattr(Path, "home", lambda: Path("/root"))
    assert list_own_names() == ()


def test_a_user_without_an_account_has_no_name(monkeypatch):
    def fail():
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr(getpass, "getuser", fail)
    list_own_names()
