"""The STFT operator of ONNX, computed by onnxruntime, as a candidate of the parity suite.

    torch-mlx-spectro parity --candidate parity_onnxruntime --known parity_onnxruntime.toml

from this folder. The operator takes frames of a signal and a window, nothing else: centring is a
padding before it, here NumPy's, and a window that is shorter than a frame is filled with zeros, as
programs do that export torch's stft to ONNX. There is no operator for the way back.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from stft_parity import Unsupported, from_numpy, with_arguments

PAD_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
TYPES = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}


@lru_cache
def _session(dtype: str, onesided: bool, parts: int) -> onnxruntime.InferenceSession:
    """A model that is this one operator, of numbers with one or two parts."""
    kind = TYPES[dtype]
    inputs = [
        helper.make_tensor_value_info("signal", kind, [None, None, parts]),
        helper.make_tensor_value_info("step", TensorProto.INT64, []),
        helper.make_tensor_value_info("window", kind, [None]),
    ]
    node = helper.make_node("STFT", [one.name for one in inputs], ["y"], onesided=int(onesided))
    output = helper.make_tensor_value_info("y", kind, [None, None, None, 2])
    graph = helper.make_graph([node], "stft", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what it raises is enough
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def _stft(
    x: Any,
    n_fft: Any,
    hop_length: Any = None,
    win_length: Any = None,
    window: Any = None,
    center: Any = True,
    pad_mode: Any = "reflect",
    onesided: Any = None,
) -> Any:
    if np.iscomplexobj(window):
        raise Unsupported("a complex window")
    length = n_fft if win_length is None else win_length
    real = x.real.dtype
    if real.name not in TYPES:
        raise Unsupported(f"dtype {x.dtype}")
    given = np.ones(length, real) if window is None else window.astype(real)
    left = (n_fft - length) // 2
    if not given.size:
        raise Unsupported("an empty window: the process ends by a floating-point exception")
    given = np.pad(given, (left, n_fft - length - left))
    if center:
        sides = [(0, 0)] * (x.ndim - 1) + [(n_fft // 2, n_fft // 2)]
        x = np.pad(x, sides, mode=PAD_MODES.get(pad_mode, pad_mode))
    parts = np.ascontiguousarray(np.atleast_2d(x)).view(real).reshape(*np.atleast_2d(x).shape, -1)
    if onesided is None:
        onesided = parts.shape[-1] == 1
    step = np.array(n_fft // 4 if hop_length is None else hop_length, np.int64)
    feed = {"signal": parts, "step": step, "window": given}
    (pairs,) = _session(real.name, bool(onesided), parts.shape[-1]).run(None, feed)
    spectrum = (pairs[..., 0] + 1j * pairs[..., 1]).astype(np.result_type(real, np.complex64))
    spectrum = spectrum.swapaxes(-1, -2)
    return spectrum if x.ndim == 2 else spectrum[0]


stft = from_numpy(with_arguments(_stft))
