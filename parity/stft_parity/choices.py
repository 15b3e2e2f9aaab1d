"""The arguments that are varied and the values that each takes, by short names.

A choice maps each argument to one of its values' names. Not every choice is a call that torch
accepts, and some are no call at all; ``completed`` turns the part of a choice that matters into a
whole one in which nothing else speaks against it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from stft_parity.faults import ISTFT_FAULTS, STFT_FAULTS
from stft_parity.signals import (
    SIGNAL_DTYPES,
    SIGNAL_LAYOUTS,
    SIGNALS,
    SPECTRA,
    SPECTRUM_DTYPES,
    SPECTRUM_LAYOUTS,
    WINDOW_LAYOUTS,
    WINDOWS,
)

Choice = dict[str, str]
Values = Mapping[str, tuple[str, ...]]

#: Powers of two, smooth, odd and prime, from the shortest up; larger ones are in ``models``.
SIZES = (
    "16", "1", "2", "3", "4", "5", "8", "15", "31", "64", "100", "128", "210", "256", "400", "509",
    "512", "1000", "1024",
)  # fmt: skip

#: Of both functions; the first value of each argument is the plain one.
_COMMON: Values = {
    "n_fft": SIZES,
    "hop": ("n_fft/4", "default", "None", "1", "n_fft/2", "n_fft/3+1", "n_fft", "n_fft+3"),
    "win_length": ("default", "None", "n_fft", "n_fft/2", "n_fft-1", "1"),
    "window": WINDOWS,
    "window layout": WINDOW_LAYOUTS,
    "center": ("default", "True", "False"),
    "normalized": ("default", "True", "False"),
    "onesided": ("default", "None", "True", "False"),
    "rows": ("3", "no batch", "1", "2", "5", "0"),
    "gradient": ("none", "input", "window", "both"),
    "passed": ("by keyword", "some by position", "by position"),
    "integers": ("int", "numpy.int64", "numpy.int16"),
}

STFT: Values = {
    **_COMMON,
    "pad_mode": ("default", "reflect", "constant", "replicate", "circular"),
    "return_complex": ("True", "default", "None", "False"),
    "align_to_window": ("default", "None", "True", "False"),
    "samples": ("some frames", "shortest", "one frame more", "many frames", "too short", "long"),
    "signal": SIGNALS,
    "dtype": SIGNAL_DTYPES,
    "layout": SIGNAL_LAYOUTS,
    "fault": ("none", *STFT_FAULTS),
}

ISTFT: Values = {
    **_COMMON,
    "bins": ("n_fft/2+1", "n_fft"),
    "length": ("default", "None", "shorter", "exact", "longer", "too long", "1"),
    "return_complex": ("default", "True", "False"),
    "frames": ("some", "1", "2", "many", "very many"),
    "signal": SPECTRA,
    "dtype": SPECTRUM_DTYPES,
    "layout": SPECTRUM_LAYOUTS,
    "fault": ("none", *ISTFT_FAULTS),
}

VALUES: dict[str, Values] = {"stft": STFT, "istft": ISTFT}

#: What a background is drawn from, where that is not every value: nothing that torch rejects, or
#: that no accelerator is meant for, else every second call would show nothing about its argument.
_USUAL: Values = {
    "window": ("hann", "hann", "none", "symmetric hann", "hamming", "ones", "positive", "signed",
               "holes", "complex"),
    "rows": ("3", "no batch", "1", "2", "5"),
    "samples": ("some frames", "shortest", "one frame more", "many frames"),
    "frames": ("some", "2", "many"),
    "fault": ("none",),
    "gradient": ("none", "none", "none", "input", "window", "both"),
    "hop": ("n_fft/4", "default", "1", "n_fft/2", "n_fft/3+1"),
    "signal": ("noise",),
}  # fmt: skip
_USUAL_DTYPES = {"stft": ("float32", "float32", "complex64"), "istft": ("complex64",)}


def usual(op: str) -> Values:
    """The values that a drawn background takes."""
    return {**VALUES[op], **_USUAL, "dtype": _USUAL_DTYPES[op]}


def plain(op: str) -> Choice:
    """The plain value of every argument."""
    return {argument: values[0] for argument, values in VALUES[op].items()}


Repair = Callable[[Choice], Mapping[str, tuple[str, ...]]]


def _always(choice: Choice) -> Mapping[str, tuple[str, ...]]:
    """Of either function: what goes with the layouts, and with gradients."""
    wanted: dict[str, tuple[str, ...]] = {}
    if choice["layout"] in _OF_ROWS:
        wanted["rows"] = ("3", "1", "2", "5")
    if choice["window layout"] != "contiguous":
        wanted["window"] = tuple(name for name in WINDOWS if name != "none")
    if choice["gradient"] in ("window", "both"):
        wanted["window"] = tuple(name for name in WINDOWS if name not in ("none", "integers"))
    if choice["fault"] != "none":
        wanted["gradient"] = ("none",)
    return wanted


_OF_ROWS = (
    "transposed", "every second row", "expanded rows", "overlapping rows", "permuted",
)  # fmt: skip


def _for_stft(choice: Choice) -> Mapping[str, tuple[str, ...]]:
    wanted: dict[str, tuple[str, ...]] = {}
    complex_values = choice["dtype"].startswith("complex")
    if choice["layout"] == "conjugated":
        wanted["dtype"] = ("complex64", "complex128")
    if choice["layout"] == "part of complex":
        wanted["dtype"] = ("float32",)
    if choice["layout"] == "negated":
        wanted["dtype"] = ("float32", "complex64", "complex128")
    if choice["gradient"] in ("input", "both"):
        wanted["dtype"] = tuple(name for name in SIGNAL_DTYPES if name not in ("int16", "bool"))
    if choice["align_to_window"] in ("True", "False"):
        wanted["center"] = ("False",)
    if complex_values or choice["window"] == "complex":
        wanted["onesided"] = ("default", "None", "False")
    else:
        wanted["return_complex"] = ("True", "False")
    return wanted


def _for_istft(choice: Choice) -> Mapping[str, tuple[str, ...]]:
    wanted: dict[str, tuple[str, ...]] = {}
    if choice["window"] == "complex":
        wanted["return_complex"] = ("True",)
    if choice["return_complex"] == "True":
        wanted["onesided"] = ("False", "default", "None")
        wanted["bins"] = ("n_fft",)
    if choice["onesided"] == "True":
        wanted["bins"] = ("n_fft/2+1",)
        wanted["return_complex"] = ("default", "False")
    if choice["onesided"] == "False":
        wanted["bins"] = ("n_fft",)
    if choice["bins"] == "n_fft" and choice["onesided"] == "True":
        wanted["onesided"] = ("default", "None", "False")
    if choice["center"] == "False":
        # What starts near zero fails torch's check of the overlap-added window.
        wanted["window"] = ("hamming", "none", "ones", "positive")
        wanted["win_length"] = ("default", "None", "n_fft")
    if choice["win_length"] in ("1", "n_fft/2"):
        wanted["hop"] = ("1",) if choice["win_length"] == "1" else ("n_fft/4", "1", "default")
    return wanted


_REPAIRS: dict[str, tuple[Repair, ...]] = {
    "stft": (_always, _for_stft),
    "istft": (_always, _for_istft),
}


def completed(op: str, background: Choice, forced: Mapping[str, str]) -> Choice:
    """A choice with the forced values, and the background's where nothing speaks against it.

    Where forced values need another value of an argument that is not forced itself, as
    ``align_to_window`` needs ``center=False``, the first that does is taken.
    """
    choice = {**background, **forced}
    # One change may ask for another; there is no circle, and few arguments.
    for _ in range(4):
        before = dict(choice)
        for repair in _REPAIRS[op]:
            for argument, values in repair(choice).items():
                if argument not in forced and choice[argument] not in values:
                    choice[argument] = values[0]
        if choice == before:
            break
    return choice
