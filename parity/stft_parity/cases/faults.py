"""What may be wrong with a call, and what is only unusual: changes to its arguments.

Each entry maps argument names to expressions (None leaves the argument out), in which ``x`` and
``w`` are the call's tensors and {n_fft}, {hop}, {win} its sizes. A fault need not make torch raise
with every call: n_fft beyond the signal is fine once the padding makes up for it.
"""

from __future__ import annotations

from typing import Any

Changes = dict[str, dict[str, Any]]

#: Of the wrong kind, for either function.
_KINDS: Changes = {
    "n_fft is a float": {"n_fft": "{n_fft}.0"},
    "n_fft is a string": {"n_fft": "'{n_fft}'"},
    "n_fft is a bool": {"n_fft": "True"},
    "n_fft is None": {"n_fft": "None"},
    "n_fft is missing": {"n_fft": None},
    "n_fft overflows": {"n_fft": "2**70"},
    "hop_length overflows": {"hop_length": "2**70"},
    "hop_length is a string": {"hop_length": "'{hop}'"},
    "hop_length is a float": {"hop_length": "{hop}.0"},
    "hop_length is a bool": {"hop_length": "True"},
    "win_length is a NumPy float": {"win_length": "np.float64({win})"},
    "window is a list": {"window": "[1.0] * {win}"},
    "window is an array": {"window": "np.ones({win}, np.float32)"},
    "normalized is an integer": {"normalized": "1"},
    # Not a string: as an optional bool, torch takes any string for True.
    "onesided is an integer": {"onesided": "1"},
    "return_complex is an integer": {"return_complex": "1"},
    "unknown keyword": {"n_ftt": "{n_fft}"},
    "keyword of neither": {"dim": "-1"},
    "input is an array": {"input": "np.ones((3, 40), np.float32)"},
    "input is None": {"input": "None"},
    "input has no dimensions": {"input": "x.sum()"},
    "input is a batch of batches": {"input": "x[None, None]"},
    "input is empty": {"input": "x[..., :0]"},
    "input is half empty": {"input": "x[:0]"},
}

#: Of the wrong size, for either function.
_SIZES: Changes = {
    "n_fft is zero": {"n_fft": "0"},
    "n_fft is negative": {"n_fft": "-{n_fft}"},
    "hop_length is zero": {"hop_length": "0"},
    "hop_length is negative": {"hop_length": "-{hop}"},
    "win_length is zero": {"win_length": "0", "window": None},
    "win_length is negative": {"win_length": "-{win}", "window": None},
    "win_length beyond n_fft": {"win_length": "{n_fft} + 1", "window": None},
    "window is longer": {"window": "torch.ones({win} + 1)"},
    "window is shorter": {"window": "torch.ones({win} - 1)"},
    "window is a matrix": {"window": "torch.ones(1, {win})"},
    "window is empty": {"window": "torch.ones(0)"},
    "window is on another device": {"window": "torch.ones({win}, device='meta')"},
}

STFT_FAULTS: Changes = {
    **_KINDS,
    **_SIZES,
    "n_fft beyond the signal": {"input": "x[..., : {n_fft} // 2]"},
    "n_fft beyond the uncentred signal": {"input": "x[..., : {n_fft} - 1]", "center": "False"},
    "pad_mode is unknown": {"pad_mode": "'mirror'"},
    "pad_mode is None": {"pad_mode": "None"},
    "onesided of a complex signal": {
        "input": "torch.complex(x.real.float(), x.real.float())",
        "onesided": "True",
    },
    "onesided with a complex window": {"window": "torch.ones({win}) * 1j", "onesided": "True"},
    "return_complex is missing": {"input": "x.real", "return_complex": None},
    "align_to_window is centred": {"center": "True", "align_to_window": "True"},
    "length is not a parameter": {"length": "10"},
}

ISTFT_FAULTS: Changes = {
    **_KINDS,
    **_SIZES,
    "one bin too few": {"input": "x[..., 1:, :]"},
    "bins of another n_fft": {"n_fft": "{n_fft} + 3"},
    "onesided disagrees": {"onesided": "x.shape[-2] == {n_fft}"},
    "hop_length beyond win_length": {"hop_length": "{win} + 1"},
    "the window vanishes": {
        "window": "torch.hann_window({win})",
        "center": "False",
    },
    "the window is zero": {"window": "torch.zeros({win})"},
    "length is zero": {"length": "0"},
    # Far enough: from a small negative length torch makes the end of a slice, counted backwards.
    "length is negative": {"length": "-1000000"},
    "length is a float": {"length": "10.0"},
    "input is real": {"input": "x.real"},
    "input is viewed as real": {"input": "torch.view_as_real(x.resolve_conj().resolve_neg() + 0j)"},
    "center is an integer": {"center": "1"},
    "complex window, real signal": {
        "window": "torch.ones({win}) * 1j",
        "return_complex": "False",
    },
    "return_complex of a onesided spectrum": {"onesided": "True", "return_complex": "True"},
    "pad_mode is not a parameter": {"pad_mode": "'reflect'"},
}
