"""The forms of what was found: Markdown that renders and names nobody, commands that are lines."""

from __future__ import annotations

import io
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest

from torch_mlx_spectro.doctor import anonymous, show
from torch_mlx_spectro.doctor import command as doctor
from torch_mlx_spectro.doctor.anonymous import cut_paths


@pytest.fixture(scope="module")
def found() -> dict:
    examined = doctor.examine(self_check=False)
    examined["findings"] = [
        {
            "level": "error",
            "text": "dlopen(/Users/jane/lib|x.so)\nnot found",
            "fix": ["python -m pip install 'mlx'", "unset X"],
            "threads": ["ml-explore/mlx#4497"],
        }
    ]
    return examined | {"ok": False}


def test_markdown_has_tables_of_one_width_and_no_paths(found):
    text = show.write_markdown(found)
    assert text.startswith("### torch-mlx-spectro doctor: not all is well\n")
    assert str(Path(doctor.__file__).parents[2]) not in text
    assert "jane" not in text
    assert "- error: dlopen(…/lib\\|x.so) not found [ml-explore/mlx#4497]" in text.splitlines()
    for block in text.split("\n\n"):
        rows = [line.replace("\\|", "") for line in block.splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) <= 1
    assert "| stft, n_fft 1024 |" in text
    assert f"| torch | {found['versions']['torch']} |" in text


def test_commands_are_lines_and_comments(found):
    stream = io.StringIO()
    show.print_commands(found, stream)
    assert stream.getvalue().splitlines() == [
        "# error: dlopen(/Users/jane/lib|x.so) not found [ml-explore/mlx#4497]",
        "python -m pip install 'mlx'",
        "unset X",
    ]


def test_without_findings_there_are_no_commands(found):
    stream = io.StringIO()
    show.print_commands(found | {"findings": []}, stream)
    assert stream.getvalue() == "# nothing to mend\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("dlopen(/Users/jane/x/lib.so, 2): not found", "dlopen(…/lib.so, 2): not found"),
        ("see ~/x/y/z.json.", "see …/z.json."),
        ("'/home/jane/.cache/v.json'", "'…/v.json'"),
        (r"C:\Users\jane\a.txt", "…/a.txt"),
        ("file:///home/jane/x", "…/x"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("ml-explore/mlx#4497 and/or 3/4", "ml-explore/mlx#4497 and/or 3/4"),
        ("(bins, frames)/x", "(bins, frames)/x"),
        ("native: auto: being measured", "native: auto: being measured"),
    ],
)
def test_paths_are_cut_and_nothing_else(text, shown):
    assert cut_paths(text) == shown


def test_a_home_folder_with_blanks_is_cut(monkeypatch):
    monkeypatch.setattr(anonymous.Path, "home", lambda: Path("/Users/jane doe"))
    assert cut_paths("at /Users/jane doe/x/lib.so") == "at …/lib.so"


NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789._-", min_size=1, max_size=8)


@hypothesis.settings(max_examples=60)
@hypothesis.given(
    st.lists(NAMES, min_size=2, max_size=6), st.sampled_from(["", "at ", "'", "(", "x=", "`", '"'])
)
def test_of_a_path_only_the_last_name_is_left(names, before):
    assert cut_paths(f"{before}/{'/'.join(names)}") == f"{before}…/{names[-1]}"
