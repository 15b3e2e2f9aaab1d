"""The arguments that are varied and the values that each takes, by short names.

A choice maps each argument to one of its values' names. Not every choice is a call that torch
accepts, and some are no call at all; ``complete_choice`` turns the part of a choice that matters
into a whole one in which nothing else speaks against it.
"""

from __future__ import annotations

from collections.abc import Mapping

from stft_parity.cases.faults import ISTFT_FAULTS, STFT_FAULTS
from stft_parity.cases.signals import (
    SIGNAL_DTYPES,
    SIGNAL_LAYOUTS,
    SIGNALS,
    SPECTRA,
    SPECTRUM_DTYPES,
    SPECTRUM_LAYOUTS,
    WINDOW_LAYOUTS,
    WINDOWS,
)
from stft_parity.cases.uses import BEFORE_BACKWARD, USES

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
    "integers": ("int", "numpy.int64", "numpy.int32"),
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
    "use": tuple(USES),
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
    "use": tuple(USES),
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


_OF_ROWS = (
    "transposed", "every second row", "expanded rows", "overlapping rows", "permuted",
)  # fmt: skip
_BATCHES = ("3", "1", "2", "5")
_COMPLEX = ("complex64", "complex128")

#: Where an argument has one of these values, another has one of those: else there is no such call,
#: or torch rejects it for the combination alone.
Rule = tuple[str, tuple[str, ...], str, tuple[str, ...]]

_WINDOWS = (WINDOWS[0], *WINDOWS[2:])


def shares_memory(layout: str) -> bool:
    """Whether elements lie on each other, so that torch lets none be changed in place."""
    return layout.startswith(("expanded", "overlapping"))


def _changeable(layouts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(layout for layout in layouts if not shares_memory(layout))


_FOR_BOTH: tuple[Rule, ...] = (
    ("use", BEFORE_BACKWARD, "gradient", ("both", "input", "window")),
    ("use", ("window changed before backward", "window of inference mode"), "window", _WINDOWS),
    ("use", ("window changed before backward",), "window layout", _changeable(WINDOW_LAYOUTS)),
    ("use", ("input of inference mode",), "gradient", ("window", "none")),
    ("use", ("window of inference mode",), "gradient", ("input", "none")),
    ("use", ("vmap over rows",), "rows", _BATCHES),
    ("use", ("vmap of gradients",), "gradient", ("input", "window")),
    ("layout", _OF_ROWS, "rows", _BATCHES),
    ("layout", ("conjugated",), "dtype", _COMPLEX),
    ("window layout", WINDOW_LAYOUTS[1:], "window", _WINDOWS),
    ("gradient", ("window", "both"), "window", (WINDOWS[0], *WINDOWS[2:-1])),
    ("gradient", ("input", "both"), "dtype", (*SIGNAL_DTYPES[:-2],)),
    ("window", ("complex",), "onesided", ("default", "None", "False")),
)

_FOR_STFT: tuple[Rule, ...] = (
    ("use", ("input changed before backward",), "layout", _changeable(SIGNAL_LAYOUTS)),
    ("layout", ("part of complex",), "dtype", ("float32",)),
    ("layout", ("negated",), "dtype", ("float32", *_COMPLEX)),
    ("align_to_window", ("True", "False"), "center", ("False",)),
    ("dtype", _COMPLEX, "onesided", ("default", "None", "False")),
)

_FOR_ISTFT: tuple[Rule, ...] = (
    ("use", ("input changed before backward",), "layout", _changeable(SPECTRUM_LAYOUTS)),
    ("layout", ("negated",), "dtype", _COMPLEX),
    ("window", ("complex",), "return_complex", ("True",)),
    ("return_complex", ("True",), "bins", ("n_fft",)),
    ("onesided", ("True",), "return_complex", ("default", "False")),
    ("onesided", ("True",), "bins", ("n_fft/2+1",)),
    ("onesided", ("False",), "bins", ("n_fft",)),
    # What starts near zero fails torch's check of the overlap-added window.
    ("center", ("False",), "window", ("hamming", "none", "ones", "positive")),
    ("center", ("False",), "win_length", ("default", "None", "n_fft")),
    ("win_length", ("1",), "hop", ("1",)),
    ("win_length", ("n_fft/2",), "hop", ("n_fft/4", "1", "default", "None")),
)

#: In the order of their weight: the last ones have the last word.
_RULES = {"stft": (*_FOR_STFT, *_FOR_BOTH), "istft": (*_FOR_ISTFT, *_FOR_BOTH)}


def complete_choice(op: str, background: Choice, forced: Mapping[str, str]) -> Choice:
    """A choice with the forced values, and the background's where nothing speaks against it.

    Where forced values need another value of an argument that is not forced itself, as
    ``align_to_window`` needs ``center=False``, the first that does is taken.
    """
    choice = {**background, **forced}
    # One change may ask for another; rules are few, and what is left is a call that torch rejects.
    for _ in range(4):
        before = dict(choice)
        for argument, values, other, wanted in _RULES[op]:
            if choice[argument] not in values or choice[other] in wanted:
                continue
            if other not in forced:
                choice[other] = wanted[0]
            elif argument not in forced:
                free = [value for value in VALUES[op][argument] if value not in values]
                choice[argument] = free[0]
        # A real signal's spectrum has to be asked for one way or the other.
        real = op == "stft" and choice["dtype"] not in _COMPLEX and choice["window"] != "complex"
        if real and "return_complex" not in forced and choice["return_complex"] not in _ASKED:
            choice["return_complex"] = _ASKED[0]
        if choice == before:
            break
    return choice


_ASKED = ("True", "False")
