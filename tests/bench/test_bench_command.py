"""``bench`` from the command line, on tables that take a moment."""

from __future__ import annotations

import importlib.util
import json
import sys
import types

import pytest
from bench_reports import TINY_TABLES, report
from needs import needs_mlx

import torch_mlx_spectro as tms
from torch_mlx_spectro.backends import registry
from torch_mlx_spectro.bench import cases, comparing, pipeline, running, session
from torch_mlx_spectro.bench import tables as bench_tables
from torch_mlx_spectro.bench.schema import ParityFacts, Submission, check, read_report, to_json
from torch_mlx_spectro.cli import main as cli
from torch_mlx_spectro.errors import Problem

QUIET = {"samples": 0.03, "passes": 0.01, "pauses": 0.0}


@pytest.fixture
def tiny(monkeypatch):
    """Tables of one small case, measured with few samples."""
    monkeypatch.setattr(cases, "TABLES", TINY_TABLES)
    monkeypatch.setattr(cases, "PUBLISHED", TINY_TABLES)
    few = running.Settings("cpu", (), passes=2, samples=2, warm_up=1)
    monkeypatch.setattr(
        running, "Settings", lambda device, backends: running.replace(few, backends=backends)
    )


def run(capsys, *arguments):
    """Exit code and both outputs."""
    code = cli.main(["bench", *map(str, arguments)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.fixture
def files(tmp_path):
    """Two reports of the same, and one with a planted regression of 30 %."""
    made = {"old": report(1, **QUIET), "same": report(2, **QUIET), "slow": report(3, 0.3, **QUIET)}
    for name, content in made.items():
        (tmp_path / f"{name}.json").write_text(to_json(content))
    return {name: tmp_path / f"{name}.json" for name in made}


@needs_mlx
def test_tables_are_printed_and_written(tiny, capsys, tmp_path):
    path, picture = tmp_path / "b.json", tmp_path / "b.svg"
    code, out, err = run(
        capsys, "--device", "cpu", "--json", path, "--plot", picture, "--backends", "mlx"
    )
    assert (code, err) == (0, "")
    assert "B=2 T=1600 n_fft=64 hop=16" in out
    assert "istft(stft(x)) - x" in out
    assert "threads of torch; tensors on cpu" in out
    written = read_report(path.read_text())
    assert [timing["backend"] for timing in written["timings"]] == ["native", "mlx"]
    assert written["timings"][1]["computed_by"] == ["mlx"]
    assert picture.read_text().startswith("<?xml")


def test_json_on_standard_output_is_alone_there(tiny, capsys):
    code, out, err = run(capsys, "--device", "cpu", "--table", "stft", "--threads", "1", "--json")
    assert (code, err) == (0, "")
    written = read_report(out)
    assert written["settings"]["tables"] == ["stft"]
    assert written["machine"]["threads"] == 1


def test_what_failed_is_told_and_ends_with_1(tiny, capsys, monkeypatch):
    right = tms.stft
    monkeypatch.setattr(tms, "stft", lambda *args, **kwargs: right(*args, **kwargs) * 2)
    code, out, _ = run(capsys, "--device", "cpu", "--backends", "auto", "--table", "stft")
    assert code == 1
    assert "FAILED: stft, B=2 T=1600 n_fft=64 hop=16, auto: differs from native" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backends", "cuda", "--device", "cpu"], "--backends cuda: for tensors on cpu there"),
        (["--backends", "native", "--device", "cpu"], "--backends native: for tensors on cpu"),
        (["--table", "stft,forth"], "--table forth: there are stft"),
        (["--table", ""], "--table '': there are stft"),
        (["--table", "stft,"], "--table '': there are stft"),
        (["--backends", "", "--device", "cpu"], "--backends '': for tensors on cpu"),
        (["--pipeline", "--table", ""], "--pipeline has no tables"),
        (["--threads", "0"], "--threads 0: at least 1"),
        (["--json", "no/such/folder.json"], "--json no/such/folder.json: there is no such folder"),
        (["--plot", "a.txt"], "--plot a.txt: the name ends in"),
        (["--compare", "1", "2", "3"], "--compare takes one report, or two"),
        (["--compare", "no-file.json"], "--compare no-file.json: No such file"),
        (["--force"], "--force is for --compare"),
        (["--pipeline", "--plot", "a.png"], "--pipeline is a measurement of its own"),
        (["--pipeline", "--table", "stft"], "--pipeline has no tables"),
        (["--submit-file", "a.json", "--table", "stft"], "--submit-file is of all four"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_measured(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr(running, "measure", None)
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert f"error: {message}" in err


def test_device_that_is_not_here_is_told(capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    code, _, err = run(capsys, "--device", "cuda")
    assert code == 2
    assert "torch has no such device here" in err


def test_a_device_is_the_default_where_there_is_one(monkeypatch):
    options = types.SimpleNamespace(device=None, backends=None, quick=False)
    monkeypatch.setattr(running, "find_backends", lambda device: (("auto",), {}))
    monkeypatch.setattr("torch.mps.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert session._choose_settings(options).device == "cpu"
    monkeypatch.setattr("torch.mps.is_available", lambda: True)
    assert session._choose_settings(options).device == "mps"


def test_missing_matplotlib_is_told_first(capsys, monkeypatch, tmp_path):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name)
    )
    code, _, err = run(capsys, "--plot", tmp_path / "a.png")
    assert code == 2
    assert "pip install matplotlib" in err


def test_planted_regression_ends_with_1_and_names_it(files, capsys):
    code, out, _ = run(capsys, "--compare", files["old"], files["slow"])
    assert code == 1
    assert "1 regressions, 1 changes in 48 measurements; 47 are the same to 10%" in out
    (row,) = (line for line in out.splitlines() if line.endswith("regression  "))
    assert "B=1 T=16000 n_fft=512 hop=128" in row
    assert " mlx " in row


def test_noise_ends_with_0(files, capsys):
    code, out, _ = run(capsys, "--compare", files["old"], files["same"])
    assert code == 0
    assert "0 regressions, 0 changes in 48 measurements" in out


def test_comparison_as_json(files, capsys, tmp_path):
    code, out, _ = run(capsys, "--compare", files["old"], files["slow"], "--json")
    told = json.loads(out)
    assert (code, told["ok"], told["regressions"]) == (1, False, 1)
    assert told["changes"][0]["verdict"] == "regression"
    path = tmp_path / "c.json"
    code, out, _ = run(capsys, "--compare", files["old"], files["slow"], "--json", path)
    assert json.loads(path.read_text()) == told
    assert "1 regressions" in out


def test_other_machines_are_compared_by_force_only(files, capsys):
    other = json.loads(files["same"].read_text())
    other["machine"]["processor"] = "Another"
    files["same"].write_text(json.dumps(other))
    code, _, err = run(capsys, "--compare", files["old"], files["same"])
    assert code == 2
    assert "different machines" in err
    code, out, _ = run(capsys, "--compare", files["old"], files["same"], "--force")
    assert code == 0
    assert "only ratios mean something" in out


def test_a_file_that_is_no_report_is_told(files, capsys, tmp_path):
    (tmp_path / "x.json").write_text("{}")
    code, _, err = run(capsys, "--compare", tmp_path / "x.json", files["old"])
    assert code == 2
    assert "no report of bench" in err


@pytest.mark.parametrize(("second", "code"), [("slow", 1), ("same", 0)])
def test_regression_of_a_run_made_now_has_to_show_twice(second, code, files, capsys, monkeypatch):
    asked = []
    results = iter([read_report(files["slow"].read_text()), read_report(files[second].read_text())])

    def measure(settings, tables, progress):
        asked.append({name: len(table.cases) for name, table in tables.items()})
        return next(results)

    monkeypatch.setattr(running, "measure", measure)
    # The files are of no machine that there is.
    code_of_strangers, _, err = run(capsys, "--device", "cpu", "--compare", files["old"])
    assert (code_of_strangers, asked) == (2, [])
    assert "different machines" in err
    monkeypatch.setattr(comparing, "list_differences", lambda old, new: [])
    found, out, _ = run(capsys, "--device", "cpu", "--compare", files["old"])
    assert found == code
    assert asked == [{"stft": 5, "istft": 5, "roundtrip": 5, "accuracy": 3}, {"stft": 1}]
    assert ("regression" if code else "unclear") in out


def test_a_busy_machine_is_told(capsys):
    made = report(1)
    made["machine"]["load"] = 3.0
    from torch_mlx_spectro.terminal import make_console

    bench_tables.print_report(made, make_console(sys.stdout))
    assert "no numbers to publish" in capsys.readouterr().out


@pytest.fixture
def submitted(tiny, monkeypatch):
    """A submission whose parity takes no time."""
    facts = {"ok": True, "counts": {"pass": 3, "known": 0}, "routes": {}, "problems": []}
    monkeypatch.setattr(
        session,
        "_run_parity",
        lambda name, device: {"backend": name, "failures": [], **facts},
    )
    return facts


@needs_mlx
def test_submission_is_valid_and_names_nobody(submitted, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("platform.node", lambda: "janes-laptop")
    path = tmp_path / "result.json"
    code, out, _ = run(capsys, "--device", "cpu", "--submit-file", path)
    assert code == 0
    assert "open an issue in this project's tracker" in out
    text = path.read_text()
    found = json.loads(text)
    check(found, Submission, "submission")
    backends = [facts["backend"] for facts in found["parity"]]
    assert backends == list(registry.list_backends("cpu"))
    assert found["doctor"]["versions"]["torch"]
    assert str(tmp_path) not in text
    assert sys.prefix not in text
    assert "janes-laptop" not in text


@needs_mlx
def test_submission_with_a_failure_is_written_and_ends_with_1(submitted, capsys, tmp_path):
    submitted["ok"] = False
    path = tmp_path / "result.json"
    assert run(capsys, "--device", "cpu", "--submit-file", path)[0] == 1
    assert path.exists()


def test_submission_that_would_tell_a_name_is_not_written(monkeypatch):
    monkeypatch.setattr(session, "anonymise", lambda value: value)
    with pytest.raises(Problem, match=r"not written, it would have '/home/jane/x\.py' in it"):
        session.write_submission(report(1), [], {"where": "/home/jane/x.py"})


def test_submission_that_would_not_be_valid_is_not_written():
    with pytest.raises(Problem, match=r"not written, it would not be valid: submission\.parity"):
        session.write_submission(report(1), [{"backend": "mlx"}], {})


@needs_mlx
def test_parity_of_a_submission_is_strict_and_counted(monkeypatch):
    import stft_parity
    from stft_parity.cases.grid import quick

    run_all = stft_parity.run
    few = quick()[:12]
    monkeypatch.setattr(
        stft_parity, "run", lambda **options: run_all(**(options | {"cases": few, "known": ()}))
    )
    facts = session._run_parity("mlx", "cpu")
    check(facts, ParityFacts, "parity")
    assert facts["ok"]
    assert facts["counts"]["pass"] == 12
    assert all(route.startswith("mlx") for route in facts["routes"])


def test_pipeline_without_audio_separator_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setattr(pipeline, "list_missing", lambda: ["audio_separator", "julius"])
    code, _, err = run(capsys, "--pipeline", "--device", "cpu")
    assert code == 2
    assert "--pipeline needs audio_separator, julius: in a checkout, pip install -r" in err


def test_costs_are_a_table_of_their_own(tiny, capsys, monkeypatch):
    from torch_mlx_spectro.bench import costs

    found = [{"what": "import", "value": 12.34, "unit": "ms", "native": None}]
    monkeypatch.setattr(costs, "measure_costs", lambda: found)
    code, out, _ = run(capsys, "--device", "cpu", "--table", "costs")
    assert code == 0
    assert "12.3 ms" in out
    assert "B=2" not in out


def test_machines_of_one_kind_do_not_differ():
    where = running.describe_machine("cpu")
    assert comparing.list_differences(where, {**where, "load": 9.0}) == []
