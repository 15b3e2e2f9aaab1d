"""The systematic grid: every value of every argument with every value of every other.

One product of all arguments would have more calls than can be made. What goes wrong in practice is
a combination of two values, sometimes of three: so every pair is in the grid twice, with all other
arguments plain and with the others drawn; and the arguments which the transforms themselves
combine are in it with their full products.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import combinations, product

from stft_parity.cases import Case
from stft_parity.cases.choices import VALUES, Choice, complete_choice, plain, usual
from stft_parity.cases.making import make_call
from stft_parity.cases.uses import USES

#: What uses are made of in the quick cases: rows, center, gradient.
USED_WITH = (("no batch", "3"), ("True", "False"), ("none", "input", "window", "both"))

#: Arguments that one step of a transform combines; of some only the values that are named.
PRODUCTS: dict[str, tuple[Mapping[str, tuple[str, ...]], ...]] = {
    "stft": (
        # Frames: where they begin and what the padding shows.
        {
            "n_fft": ("1", "2", "3", "4", "5", "8", "15", "16", "31", "64", "100"),
            "pad_mode": ("reflect", "constant", "replicate", "circular"),
            "samples": ("shortest", "one frame more", "some frames", "too short"),
            "hop": ("1", "n_fft/4", "n_fft/3+1", "n_fft", "n_fft+3"),
        },
        {
            "center": ("False", "True"),
            "align_to_window": ("default", "True", "False"),
            "win_length": VALUES["stft"]["win_length"],
            "n_fft": ("1", "2", "15", "16", "100"),
            "samples": ("shortest", "some frames", "too short"),
        },
        # Spectra: bins, and how they are returned.
        {
            "dtype": ("float32", "complex64"),
            "window": ("none", "hann", "complex"),
            "onesided": VALUES["stft"]["onesided"],
            "return_complex": VALUES["stft"]["return_complex"],
            "normalized": ("False", "True"),
            "n_fft": ("1", "15", "16"),
        },
        # Memory: the order of a result follows from that of the signal.
        {
            "layout": VALUES["stft"]["layout"],
            "rows": ("no batch", "1", "2", "5"),
            "center": ("True", "False"),
            "window": ("none", "hann"),
            "hop": ("1", "n_fft/4"),
        },
        # Derivatives.
        {
            "gradient": ("input", "window", "both"),
            "dtype": ("float32", "complex64"),
            "window": ("hann", "signed", "complex"),
            "pad_mode": ("reflect", "constant", "replicate", "circular"),
            "center": ("True", "False"),
            "onesided": ("default", "False"),
            "normalized": ("False", "True"),
        },
    ),
    "istft": (
        {
            "n_fft": ("1", "2", "3", "4", "5", "8", "15", "16", "31", "64", "100"),
            "hop": ("1", "n_fft/4", "n_fft/2", "n_fft/3+1", "n_fft"),
            "length": ("None", "shorter", "exact", "longer", "too long"),
            "center": ("True", "False"),
        },
        {
            "center": ("False", "True"),
            "window": ("none", "hann", "hamming", "ones", "holes", "complex"),
            "win_length": VALUES["istft"]["win_length"],
            "hop": ("1", "n_fft/4", "n_fft/2"),
            "frames": ("1", "2", "some"),
        },
        {
            "bins": VALUES["istft"]["bins"],
            "window": ("none", "hann", "complex"),
            "onesided": VALUES["istft"]["onesided"],
            "return_complex": VALUES["istft"]["return_complex"],
            "normalized": ("False", "True"),
            "n_fft": ("1", "15", "16"),
        },
        {
            "layout": VALUES["istft"]["layout"],
            "rows": ("no batch", "1", "2", "5"),
            "bins": ("n_fft/2+1", "n_fft"),
            "frames": ("1", "some"),
            "n_fft": ("15", "16"),
        },
        {
            "gradient": ("input", "window", "both"),
            "window": ("hamming", "positive", "complex"),
            "center": ("True", "False"),
            "length": ("None", "shorter", "longer"),
            "onesided": ("default", "False"),
            "normalized": ("False", "True"),
            "n_fft": ("15", "16"),
        },
    ),
}


def distinct(cases: Iterable[Case | None]) -> tuple[Case, ...]:
    """The cases in their order, without those that are no call and those that come again.

    What the fault of a call is called does not make it another one.
    """
    found: dict[Case, Case] = {}
    for case in cases:
        if case is not None:
            found.setdefault(replace(case, fault=""), case)
    return tuple(found.values())


def background(op: str, generator: random.Random) -> Choice:
    """Values of every argument, drawn from those that do not speak against a call."""
    drawn = {
        argument: generator.choice(values)
        for argument, values in usual(op).items()
        if argument != "use"
    }
    return {**drawn, "use": "plain"}


def one_at_a_time(op: str) -> Iterator[Choice]:
    """Every value of every argument, all others plain."""
    for argument, values in VALUES[op].items():
        for value in values:
            yield complete_choice(op, plain(op), {argument: value})


def pairs(op: str, generator: random.Random | None) -> Iterator[Choice]:
    """Every two values of two arguments; all others plain, or drawn where there is a generator.

    A fault speaks for itself: with plain arguments it is in ``one_at_a_time``. Uses have pairs of
    their own.
    """
    for (first, of_first), (second, of_second) in combinations(VALUES[op].items(), 2):
        if "use" in (first, second) or (generator is None and "fault" in (first, second)):
            continue
        for value, other in product(of_first, of_second):
            around = plain(op) if generator is None else background(op, generator)
            yield complete_choice(op, around, {first: value, second: other})


def pairs_of_uses(op: str, generator: random.Random | None) -> Iterator[Choice]:
    """Every use of a call with every value of every argument; a call that is rejected has none."""
    for argument, values in VALUES[op].items():
        if argument in ("use", "fault"):
            continue
        for use, value in product(tuple(USES)[1:], values):
            around = plain(op) if generator is None else background(op, generator)
            yield complete_choice(op, around, {"use": use, argument: value})


def products(op: str) -> Iterator[Choice]:
    """Full products of the arguments that go together."""
    for values in PRODUCTS[op]:
        for chosen in product(*values.values()):
            yield complete_choice(op, plain(op), dict(zip(values, chosen, strict=True)))


def grid() -> tuple[Case, ...]:
    """Every case of the grid; the same ones in every run."""
    # Not the run's seed: the grid is systematic, and what was found in it is found again.
    generator, for_uses = random.Random("grid"), random.Random("grid of uses")
    return distinct(
        make_call(op, choice)
        for op in VALUES
        for choices in (
            one_at_a_time(op),
            pairs(op, None),
            pairs(op, generator),
            products(op),
            pairs_of_uses(op, None),
            pairs_of_uses(op, for_uses),
        )
        for choice in choices
    )


def quick() -> tuple[Case, ...]:
    """Every value of every argument of both functions, and gradients of each kind of call."""
    generator, for_uses = random.Random("quick"), random.Random("quick uses")
    cases: list[Case | None] = []
    for op in VALUES:
        cases += [make_call(op, choice) for choice in one_at_a_time(op)]
        for gradient in ("input", "window", "both"):
            for _ in range(12):
                forced = {"gradient": gradient, "n_fft": generator.choice(("15", "16"))}
                cases.append(make_call(op, complete_choice(op, background(op, generator), forced)))
        for use, rows, center, gradient in product(tuple(USES)[1:], *USED_WITH):
            forced = {"use": use, "rows": rows, "center": center, "gradient": gradient}
            forced["n_fft"] = for_uses.choice(("15", "16"))
            around = {
                argument: for_uses.choice(usual(op)[argument])
                for argument in ("layout", "return_complex")
            }
            cases.append(make_call(op, complete_choice(op, plain(op) | around, forced)))
    return distinct(cases)
