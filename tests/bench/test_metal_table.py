"""``bench --table metal``: what kernels move is counted by the emulator, and nothing is timed."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
import types
from typing import Any

import mlx.core as mx
import pytest
import torch
from needs import needs_emulator
from rich.console import Console

from torch_mlx_spectro.bench import cases, metal, tables
from torch_mlx_spectro.bench.cases import Case, make_case
from torch_mlx_spectro.cli import main as cli
from torch_mlx_spectro.emulator import Machine
from torch_mlx_spectro.errors import Problem
from torch_mlx_spectro.mlx.launcher import MetalKernels

pytestmark = needs_emulator

SMALL = (make_case(2, 6_000, 512),)
#: A kernel of somebody else's: frames by hand, transformed by MLX.
CUT = """
    uint i = thread_position_in_grid.x, frame = i / 512, place = i % 512;
    int at = int(frame * 128 + place) - 256, last = SAMPLES - 1;
    at = at < 0 ? -at : at > last ? 2 * last - at : at;
    frames[thread_position_in_grid.y * FRAMES * 512 + i] =
        signal[thread_position_in_grid.y * SAMPLES + at] * window[place];
"""


def show(done: int, total: int, remark: str) -> None:
    assert done < total


@pytest.fixture
def no_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metal, "find_peer", lambda: None)


class SpectralTransform:
    """In the place of mlx-spectro's."""

    def __init__(self, n_fft: int, hop_length: int, window_fn: str) -> None:
        assert (n_fft, hop_length, window_fn) == (512, 128, "hann")
        self._window = mx.array(torch.hann_window(512).numpy())
        self._cut = mx.fast.metal_kernel(
            name="cut", input_names=["signal", "window"], output_names=["frames"], source=CUT
        )

    def stft(self, signal: Any) -> Any:
        rows, samples = signal.shape
        count = 1 + samples // 128
        (frames,) = self._cut(
            inputs=[signal, self._window],
            template=[("SAMPLES", samples), ("FRAMES", count)],
            grid=(count * 512, rows, 1),
            threadgroup=(512, 1, 1),
            output_shapes=[(rows, count, 512)],
            output_dtypes=[mx.float32],
        )
        return mx.fft.rfft(mx.contiguous(frames)).swapaxes(1, 2)

    def istft(self, spectrum: Any, length: int) -> Any:
        frames = mx.fft.irfft(spectrum.swapaxes(1, 2)) * self._window
        rows, count, _ = frames.shape
        places = mx.arange(count)[:, None] * 128 + mx.arange(512)
        ends = mx.zeros((rows, 128 * (count - 1) + 512))
        envelope = ends[0].at[places].add(mx.broadcast_to(self._window**2, (count, 512)))
        sums = ends.at[:, places].add(frames)
        return (sums / mx.maximum(envelope, 1e-11))[:, 256 : 256 + length]


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("mlx_spectro")
    module.SpectralTransform = SpectralTransform  # type: ignore[attr-defined]
    module.spectral_ops = types.SimpleNamespace()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlx_spectro", module)
    monkeypatch.setattr(metal, "find_peer", lambda: "0.0")


@pytest.mark.usefixtures("no_peer")
def test_our_calls_are_one_launch_whose_bytes_are_told() -> None:
    found = metal.measure_metal(show, SMALL)
    assert found["unavailable"] == {"mlx-spectro": "is not installed"}
    sides = [(one["operation"], one["side"]) for one in found["counts"]]
    assert sides == [
        ("stft", "ours, 10 cores"),
        ("stft", "ours, 40 cores"),
        ("istft", "ours, 10 cores"),
        ("istft", "ours, 40 cores"),
    ]
    for one in found["counts"]:
        assert (one["launches"], one["operations"]) == (1, [])
        moved = one["read"] + one["written"]
        assert one["floor"] == moved / SMALL[0].nbytes > 1.0
        assert one["memory"] > 0
        assert one["barriers"] + one["simd_barriers"] > 0
        is_small = "10 cores" in one["side"]
        assert set(one["predicted"]) == ({"M2", "M4"} if is_small else {"M4 Max"})
    written = [one["written"] for one in found["counts"]]
    spectrum = 2 * 8 * 257 * SMALL[0].frames
    assert written == [spectrum, spectrum, 2 * 4 * 6_000, 2 * 4 * 6_000]
    assert found["counts"][0]["predicted"]["M4"] == pytest.approx(
        (found["counts"][0]["read"] + spectrum) / 120e9
    )


def test_one_row_counts_for_all() -> None:
    """What one row of a launch moves, as often as there are rows, is what the launch moves."""
    case = Case(3, 6_000, 512, 128)
    machine = Machine(("ascending",), checked=True)
    window, signal, spectrum = metal._make_tensors(case, 3)
    kernels = MetalKernels(mx, machine.metal_kernel, cores=10)
    facts = metal.TensorFacts((512,), False)
    for operation in ("stft", "istft"):
        counted = metal._count_ours(machine, operation, case, 10)
        machine.launches.clear()
        values = mx.array(window.numpy())
        if operation == "stft":
            params = metal.resolve_stft(
                metal.TensorFacts((3, 6_000), False), 512, 128, window=facts, return_complex=True
            )
            mx.eval(kernels.compute_analysis(params, mx.array(signal.numpy()), values))
        else:
            resolved = metal.resolve_istft(
                metal.TensorFacts(tuple(spectrum.shape), True), 512, 128, window=facts, length=6_000
            )
            given = mx.array(spectrum.mT.contiguous().numpy())
            mx.eval(kernels.compute_synthesis(resolved, given, values))
        (launch,) = machine.launches
        assert counted["read"] == (launch.device_read or 0) + (launch.constant_read or 0)
        assert counted["written"] == launch.device_written


@pytest.mark.usefixtures("peer")
def test_a_peers_kernels_are_counted_and_mlxs_operations_by_their_shapes() -> None:
    found = metal.measure_metal(show, SMALL, cores=())
    assert found["peer"] == "0.0"
    stft, istft = found["counts"]
    assert (stft["side"], stft["kernels"], stft["operations"]) == ("mlx-spectro", ["cut"], ["FFT"])
    frames, spectrum = (2 * SMALL[0].frames * size for size in (4 * 512, 8 * 257))
    assert stft["launches"] == 2
    assert stft["written"] == frames + spectrum
    # Each group reads the window and a frame, whose ends overlap where the padding reflects.
    assert 2.8 * frames < stft["read"] <= 3 * frames + 100
    assert set(stft["predicted"]) == {"M2", "M4", "M4 Max"}
    assert istft["kernels"] == []
    assert "FFT" in istft["operations"]


@pytest.mark.usefixtures("peer")
def test_a_wrong_result_is_no_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SpectralTransform, "istft", lambda self, z, length: mx.zeros((2, length)))
    with pytest.raises(Problem, match=r"mlx-spectro, istft, B=2 .* differs from native"):
        metal.measure_metal(show, SMALL, cores=())


@pytest.mark.usefixtures("peer")
def test_the_table_fits_a_terminal_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    found = metal.measure_metal(show, SMALL)
    for one in found["counts"]:  # as long as numbers get
        one["case"] = cases.describe_case(make_case(16, 1_320_000, 1024))
        one.update(read=430_000_000, written=169_000_000, memory=32_768, barriers=100.0)
        one["predicted"] = dict.fromkeys(one["predicted"], 0.001)
    text = io.StringIO()
    tables.print_metal(found, Console(file=text, width=80, force_terminal=True, no_color=True))
    lines = text.getvalue().splitlines()
    assert "ours, 10 cores" in text.getvalue()
    assert "a prediction, not a measurement" in text.getvalue()
    rows = [line for line in lines if "430+169" in line]
    assert len(rows) == 6
    assert max(map(len, rows)) <= 80
    assert "…" not in text.getvalue()


@pytest.mark.usefixtures("no_peer")
def test_the_command_prints_it_and_writes_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        metal, "measure_metal", lambda show, real=metal.measure_metal: real(show, SMALL)
    )
    assert cli.main(["bench", "--table", "metal"]) == 0
    out = capsys.readouterr().out
    assert "stft, B=2 T=6000 n_fft=512 hop=128" in out
    assert "without mlx-spectro: it is not installed" in out
    assert cli.main(["bench", "--table", "metal", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["schema"] == "torch-mlx-spectro-metal"


@pytest.mark.parametrize("more", [["--quick"], ["--device", "cpu"], ["--threads", "1"]])
def test_the_command_refuses_what_is_for_measurements(
    more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", "--table", "metal", *more]) == 2
    assert "--table metal is no measurement" in capsys.readouterr().err


def test_it_goes_with_no_other_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--table", "metal,stft"]) == 2
    assert "metal goes with no other" in capsys.readouterr().err


def test_without_an_emulator_it_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(metal, "explain_no_emulator", lambda: "there is no clang")
    assert cli.main(["bench", "--table", "metal"]) == 2
    assert "there is no clang" in capsys.readouterr().err


def test_an_absent_peer_is_found_to_be_absent() -> None:
    assert (metal.find_peer() is None) == (importlib.util.find_spec("mlx_spectro") is None)


@pytest.mark.parametrize("cores", [10, 40])
def test_a_large_istft_moves_little_more_than_signal_and_spectrum(cores: int) -> None:
    machine = Machine(("ascending",), checked=True)
    counted = metal._count_ours(machine, "istft", make_case(4, 160_000, 1024), cores)
    assert counted["floor"] <= 1.3
