"""Three STFTs of strangers, from an empty folder to a right verdict, and what that took a person.

`make test-candidates` has their packages; elsewhere these tests are skipped.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from stft_parity.__main__ import main

#: What a person writes between the marks of ``stft``, and above; there is no way back here.
WRITTEN = {
    "torchlibrosa": (
        "torch",
        "from torchlibrosa import stft as theirs",
        """\
    if signal.ndim == 1 or window.requires_grad or pad_mode not in ("reflect", "constant"):
        raise Unsupported("one signal, gradients of windows, other paddings")
    module = theirs.STFT(n_fft, hop_length, None, window.numpy(), center, pad_mode)
    real, imaginary = module(signal)
    return torch.complex(real, imaginary)[:, 0].transpose(1, 2)
""",
    ),
    "torch_stft": (
        "torch",
        "import torch_stft",
        """\
    if signal.ndim == 1 or not center or pad_mode != "reflect":
        raise Unsupported("one signal, uncentred ones, other paddings")
    if not torch.equal(window, torch.hann_window(n_fft)):
        raise Unsupported("other windows")
    return torch.polar(*torch_stft.STFT(n_fft, hop_length).transform(signal))
""",
    ),
    "onnxruntime": (
        "numpy",
        """\
import onnxruntime
from onnx import helper

names = ("signal", "step", "window", "y")
kinds, shapes = (1, 7, 1, 1), ([None, None, 1], [], [None], [None, None, None, 2])
infos = [helper.make_tensor_value_info(*one) for one in zip(names, kinds, shapes)]
node = helper.make_node("STFT", names[:3], names[3:])
graph = helper.make_graph([node], "stft", infos[:3], infos[3:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
session = onnxruntime.InferenceSession(model.SerializeToString())
""",
        """\
    if signal.dtype != np.float32 or signal.ndim == 1 or not window.size:
        raise Unsupported("other dtypes, one signal, empty windows")
    if center:
        signal = np.pad(signal, [(0, 0), (n_fft // 2, n_fft // 2)], mode="reflect")
    step, window = np.array(hop_length), window.astype(np.float32)
    (y,) = session.run(None, {"signal": signal[..., None], "step": step, "window": window})
    spectrum = y[..., 0] + np.complex64(1j) * y[..., 1]
""",
    ),
}
#: How many lines each took a person.
LINES = {"torchlibrosa": 6, "torch_stft": 6, "onnxruntime": 16}


@pytest.fixture(params=WRITTEN)
def compared(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The name of a package, and what the command found of it."""
    name = request.param
    pytest.importorskip(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    arrays, above, within = WRITTEN[name]
    assert main(["--new", "mine.py", "--arrays", arrays]) == 0
    text = Path("mine.py").read_text()
    text = re.sub(r"(?s)(    # ---- yours, .*?\n).*?(    # ---- to here)",
                  lambda found: found[1] + within + found[2], text, count=1)  # fmt: skip
    text = text.replace("\n\nfrom stft_parity", f"\n{above}\n\nfrom stft_parity", 1)
    text = re.sub(r"(?m)^istft = .*\n", "", text)
    Path("mine.py").write_text(text)
    capsys.readouterr()
    code = main(["mine", "--json", "--no-gradients"])
    report = json.loads(capsys.readouterr().out)
    assert code == report["exit_code"]
    yield name, report
    torch.set_num_threads(threads)
    sys.modules.pop("mine", None)


@pytest.mark.filterwarnings("ignore")
def test_the_verdict_is_right(compared: tuple[str, dict[str, Any]]) -> None:
    name, report = compared
    said = {one["diagnosis"] for result in report["results"] for one in result["differences"]}
    accepted = [one for one in report["results"] if one["accepted"] and one["differences"]]
    if name == "torchlibrosa":
        # Its values are right, and each call consumes random numbers.
        assert report["values_compared"] > 40
        assert any("random numbers" in text for text in said)
        assert not any("values" in _aspects(one) for one in accepted)
    elif name == "torch_stft":
        # Its call of today's librosa is broken, and the report names it.
        assert report["values_compared"] == 0
        assert report["exit_code"] == 1
        assert any("TypeError" in text and "pad_center" in text for text in said)
    else:
        # Its values are right for powers of two, and hundreds of times less exact for others.
        wrong = {one["labels"]["n_fft"] for one in accepted if "values" in _aspects(one)}
        assert wrong == {"100", "210", "400", "509", "1000"}
        assert report["values_compared"] > 50
        assert report["exit_code"] == 1


def _aspects(result: dict[str, Any]) -> list[str]:
    return [difference["aspect"] for difference in result["differences"]]


@pytest.mark.parametrize("name", WRITTEN)
def test_so_many_lines_were_written(name: str) -> None:
    _, above, within = WRITTEN[name]
    lines = [line for line in (above + "\n" + within).splitlines() if line.strip()]
    assert len(lines) == LINES[name]
