from __future__ import annotations

import io
import re
from dataclasses import replace

from torch_mlx_spectro import Stats
from torch_mlx_spectro.cli.report import print_stats
from torch_mlx_spectro.dispatch.snapshot import Estimate

NONE = Stats(0, 0, {}, {}, {})


def printed(stats: Stats) -> str:
    stream = io.StringIO()
    print_stats(stats, stream)
    return stream.getvalue()


def test_everything_counted_is_printed_and_nothing_taken_for_markup():
    site = "/a/long/path/" + "x" * 90 + ".py:12"
    stats = Stats(
        accelerated=3,
        native=21,
        calls={("stft", "mlx"): 3, ("istft", "native"): 21},
        fallbacks={"shape [red] is odd": 20, "a :smile: reason": 1},
        choices={"auto: too [bold] small": 7},
        sites={site: {"accelerated": 3, "native": 21}},
        estimated={("stft", "mlx"): Estimate(2, 0.25, 90.0)},
    )
    text = printed(stats)
    assert text.startswith("torch_mlx_spectro: 3 calls accelerated, 21 native\n")
    rows = [line.split() for line in text.splitlines()]
    assert ["torch.stft", "mlx", "3", "250", "ms", "90", "s"] in rows
    assert ["torch.istft", "native", "21"] in rows
    assert rows.index(["shape", "[red]", "is", "odd", "20"]) < rows.index(
        ["a", ":smile:", "reason", "1"]
    )
    assert [site, "3", "21"] in rows
    assert ["auto:", "too", "[bold]", "small", "7"] in rows
    told = "estimated for 2 of 24 calls: 250 ms spent, 90 s saved (calls of kinds that auto timed)"
    assert told in text.splitlines()
    assert "est. saved" not in printed(replace(stats, estimated={}))


def test_refused_calls_and_names_that_are_left_are_told():
    stats = Stats(
        0,
        1,
        {("stft", "native"): 1, ("stft", "refused"): 2},
        {"why": 2},
        {"a.py:1": {"accelerated": 0, "native": 1, "refused": 2}},
        refused=2,
        left=("program.native", "other.old"),
    )
    lines = printed(stats).splitlines()
    assert lines[0] == "torch_mlx_spectro: 0 calls accelerated, 1 native, 2 refused"
    assert lines[1].startswith("left to torch")
    assert lines[1].endswith(": program.native, other.old")
    assert ["a.py:1", "0", "1", "2"] in [line.split() for line in lines]


def test_terminal_folds_and_loses_nothing():
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    site = "/a/" + "x" * 200 + ".py:12"
    sites = {site: {"accelerated": 1, "native": 0}}
    print_stats(replace(NONE, accelerated=1, calls={("stft", "mlx"): 1}, sites=sites), stream)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue()).splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.count("x") for line in lines) == 200 + sum(line.count("lx") for line in lines)


def test_no_call_is_said():
    assert "Neither torch.stft nor torch.istft was called" in printed(NONE)


def test_verified_calls_are_told():
    calls = {("stft", "mlx"): 3, ("stft", "native"): 1}
    stats = replace(NONE, accelerated=3, native=1, calls=calls)
    text = printed(replace(stats, verified=4, mismatches=1))
    assert "4 of them verified against native torch, 1 wrong\n" in text
    assert "verified" not in printed(stats)
