"""``%%stft_stats`` in a session of IPython: the statistics of one cell alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

import torch_mlx_spectro as tms
from torch_mlx_spectro.dispatch.run import counters

IPython = pytest.importorskip("IPython")

CELL = """\
import torch
signal, window = torch.ones(400), torch.ones(16)
spectrum = torch.stft(signal, 16, window=window, return_complex=True)
"""
CALLS = {"stft/cpu": 1}


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[Any]:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    shell = IPython.core.interactiveshell.InteractiveShell.instance(
        history_manager=None, colors="nocolor"
    )
    shell.history_manager.enabled = False
    shell.run_line_magic("load_ext", "torch_mlx_spectro")
    yield shell
    shell.clear_instance()


def show(shell: Any, line: str, cell: str = CELL) -> list[dict[str, str]]:
    """Run a cell under the magic, and return what it showed."""
    with IPython.utils.capture.capture_output() as captured:
        shell.run_cell_magic("stft_stats", line, cell)
    return [output.data for output in captured.outputs]


def test_a_cell_is_counted_alone_and_shown_as_text_and_table(shell: Any) -> None:
    with tms.patch("cpu"):
        torch.stft(torch.ones(400), 16, window=torch.ones(16), return_complex=True)
        (shown,) = show(shell, "")
        assert tms.stats().accelerated == 2
    assert shown["text/plain"].startswith("torch_mlx_spectro: 1 calls accelerated, 0 native")
    assert "torch.stft" in shown["text/html"]
    assert "<table" in shown["text/html"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("cpu", "1 calls accelerated, 0 native"),
        ("", "0 calls accelerated, 1 native"),
        ("native", "0 calls accelerated, 1 native"),
        ("--as-is", "0 calls accelerated, 0 native"),
    ],
)
def test_torch_is_patched_for_the_cell_as_asked(shell: Any, line: str, told: str) -> None:
    (shown,) = show(shell, line)
    assert told in shown["text/plain"]
    assert not tms.is_patched()


def test_a_patch_that_is_in_force_stays(shell: Any) -> None:
    with tms.patch("cpu"):
        (shown,) = show(shell, "", CELL + "tms_is_here = True")
        assert "1 calls accelerated" in shown["text/plain"]
        assert tms.is_patched()
    assert shell.user_ns["tms_is_here"]


def test_a_cell_that_resets_the_statistics_is_counted_from_there(shell: Any) -> None:
    with tms.patch("cpu", verify=1):
        exec(CELL, {})
        cell = f"{CELL}\nimport torch_mlx_spectro as tms; tms.reset_stats()\n{CELL}\n{CELL}"
        (shown,) = show(shell, "", cell)
    assert "2 calls accelerated, 0 native\n2 of them verified" in shown["text/plain"]


def test_what_a_cell_raises_is_shown_once_and_raised_on(shell: Any) -> None:
    cell = f"{CELL}\nraise KeyError('of the cell')"
    with IPython.utils.capture.capture_output() as captured:
        result = shell.run_cell(f"%%stft_stats cpu\n{cell}")
    assert isinstance(result.error_in_exec, KeyError)
    assert captured.stdout.count("KeyError: 'of the cell'") == 1
    assert "1 calls accelerated" in captured.outputs[0].data["text/plain"]
    assert not tms.is_patched()


@pytest.mark.parametrize(
    ("line", "told"), [("odd", "must be one of auto, native"), ("cpu mlx", "one word at most")]
)
def test_other_words_are_told(shell: Any, line: str, told: str) -> None:
    with pytest.raises(IPython.core.error.UsageError, match=told):
        shell.run_cell_magic("stft_stats", line, CELL)


def test_in_a_notebook_texts_are_returned_and_nothing_is_shown_besides(
    shell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The name by which rich knows that it is in a notebook.
    monkeypatch.setattr(shell, "__class__", type("ZMQInteractiveShell", (type(shell),), {}))
    (shown,) = show(shell, "cpu")
    assert shown["text/plain"].startswith("torch_mlx_spectro: 1 calls accelerated, 0 native")


def test_call_sites_in_cells_are_named_as_in_tracebacks(shell: Any) -> None:
    with tms.patch("cpu"):
        before = counters.mark()
        shell.run_cell(CELL, store_history=True)
        text = str(tms.functional.stats_since(before))
        assert "Cell In[1], line 3  " in text
        with IPython.utils.capture.capture_output() as captured:
            shell.run_cell(f"%%stft_stats cpu\n{CELL}", store_history=True)
    (shown,) = captured.outputs
    assert "Cell In[2], line 3  " in shown.data["text/plain"]
    assert shell.execution_count == 3
