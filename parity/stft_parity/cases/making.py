"""From a choice of named values to the call that has them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from stft_parity.cases import PARAMETERS, Case, signals
from stft_parity.cases.choices import Choice, shares_memory
from stft_parity.cases.faults import ISTFT_FAULTS, STFT_FAULTS
from stft_parity.cases.uses import BEFORE_BACKWARD, USES

#: Arguments of which a choice names the expression itself.
_LITERAL = (
    "center",
    "normalized",
    "onesided",
    "return_complex",
    "align_to_window",
)

#: Samples of a long signal, and frames of a long spectrum.
LONG = 200_000
LONG_FRAMES = 4000


def size(name: str, n_fft: int) -> int | None:
    """The hop or window length that a value's name stands for; None where it is not passed."""
    return {
        "default": None,
        "None": None,
        "n_fft": n_fft,
        "n_fft-1": max(1, n_fft - 1),
        "n_fft/2": max(1, n_fft // 2),
        "n_fft/4": max(1, n_fft // 4),
        "n_fft/3+1": n_fft // 3 + 1,
        "n_fft+3": n_fft + 3,
    }.get(name, int(name) if name.isdigit() else None)


def hop_label(hop: int, n_fft: int) -> str:
    """The name of a hop, by which tables group it."""
    named = {f"n_fft/{part}": n_fft / part for part in (2, 4, 8)} | {"1": 1, "n_fft": n_fft}
    return next((name for name, value in named.items() if value == hop), "other")


def make_call(op: str, choice: Choice, *, more: Mapping[str, str] | None = None) -> Case | None:
    """The call that a choice names; None where its values do not go together.

    Args:
        op: ``"stft"`` or ``"istft"``.
        choice: a value for every argument of ``choices.VALUES[op]``; sizes may be numbers, too.
        more: further labels.
    """
    n_fft = int(choice["n_fft"])
    hop = size(choice["hop"], n_fft) or max(1, n_fft // 4)
    win = size(choice["win_length"], n_fft) or n_fft
    tensor = _signal(choice, n_fft, hop) if op == "stft" else _spectrum(choice, n_fft, hop)
    if tensor is None:
        return None
    window = signals.window(choice["window"], choice["window layout"], win)
    differentiate = _choose_differentiated(choice)
    bare = window is None and choice["window layout"] != "contiguous"
    if bare or differentiate is None or not _usable(choice, differentiate):
        return None
    given = _arguments(op, choice, n_fft, hop, window)
    fault = choice["fault"]
    if fault != "none":
        changes = (STFT_FAULTS if op == "stft" else ISTFT_FAULTS)[fault]
        sizes = {"n_fft": n_fft, "hop": hop, "win": win}
        given |= {name: text.format(**sizes) for name, text in changes.items() if text is not None}
        given = {name: text for name, text in given.items() if changes.get(name, "") is not None}
    labels = {"op": op, **choice, **(more or {})}
    if labels["hop"].isdigit() and labels["hop"] != "1":
        labels["hop"] = hop_label(hop, n_fft)
    return Case(
        op=op,
        x=tensor,
        w=window,
        arguments=tuple(given.items()),
        # Of the call alone: two choices that make the same call are one case.
        seed=zlib.crc32(repr((tensor, window, given)).encode()),
        positional=_positional(op, choice["passed"], given),
        fault="" if fault == "none" else fault,
        differentiate=differentiate,
        use=choice["use"],
        labels=tuple(labels.items()),
    )


def _positional(op: str, passed: str, given: Mapping[str, str]) -> int:
    """How many arguments are passed by position: those before the first that is left out."""
    wanted = {"by keyword": 0, "some by position": 1}.get(passed, len(PARAMETERS[op]))
    absent = [place for place, name in enumerate(PARAMETERS[op]) if name not in given]
    return min([wanted, *absent])


def _choose_differentiated(choice: Choice) -> tuple[str, ...] | None:
    """Tensors that require a gradient; None where one of them cannot."""
    names = {"none": (), "input": ("x",), "window": ("w",), "both": ("x", "w")}[choice["gradient"]]
    input_cannot = "x" in names and choice["dtype"] in ("int16", "bool")
    window_cannot = "w" in names and choice["window"] in ("none", "integers")
    return None if input_cannot or window_cannot else names


def _usable(choice: Choice, differentiate: tuple[str, ...]) -> bool:
    """Whether the tensors of a call can be used so: made, changed, and batched."""
    name = choice["use"]
    use = USES[name]
    layout = {"": "", "x": choice["layout"], "w": choice["window layout"]}[use.changed]
    return not (
        ("w" in (*use.inference, use.changed) and choice["window"] == "none")
        # Autograd takes no tensor of inference mode for a leaf.
        or shares_memory(layout)
        or set(use.inference) & set(differentiate)
        or (name in BEFORE_BACKWARD and not differentiate)
        or (name == "vmap of gradients" and len(differentiate) != 1)
        or (name == "vmap over rows" and choice["rows"] in ("no batch", "0"))
    )


def _arguments(op: str, choice: Choice, n_fft: int, hop: int, window: str | None) -> dict[str, str]:
    """Names and expressions, in torch's order so that they can be passed by position."""
    given: dict[str, str] = {"input": "x", "n_fft": _integer(n_fft, choice)}
    for argument, name in (("hop", "hop_length"), ("win_length", "win_length")):
        value = size(choice[argument], n_fft)
        if choice[argument] != "default":
            given[name] = "None" if value is None else _integer(value, choice)
    if window is not None:
        given["window"] = "w"
    elif choice["window"] == "none" and choice["win_length"] == "None":
        given["window"] = "None"
    given |= {name: choice[name] for name in _LITERAL if choice.get(name, "default") != "default"}
    if op == "stft" and choice["pad_mode"] != "default":
        given["pad_mode"] = repr(choice["pad_mode"])
    if op == "istft" and choice["length"] != "default":
        given["length"] = _length(choice, n_fft, hop)
    return {name: given[name] for name in ("input", *PARAMETERS[op]) if name in given}


def _integer(value: int, choice: Choice) -> str:
    kind = choice["integers"]
    return str(value) if kind == "int" else f"{kind.replace('numpy', 'np')}({value})"


def _rows(choice: Choice) -> tuple[int, ...]:
    return () if choice["rows"] == "no batch" else (int(choice["rows"]),)


def _signal(choice: Choice, n_fft: int, hop: int) -> str | None:
    centred = choice["center"] != "False"
    mode = choice["pad_mode"]
    # The fewest samples that torch accepts: as many as the padding mirrors, or a frame.
    padded = {"circular": max(1, n_fft // 2), "constant": 1, "replicate": 1}
    fewest = padded.get(mode, n_fft // 2 + 1) if centred else n_fft
    samples = fewest + {
        "shortest": 0,
        "too short": -1,
        "one frame more": hop,
        "some frames": 4 * hop + hop // 2,
        "many frames": min(40, 2 + 1500 // hop) * hop + hop // 3,
        "long": LONG if n_fft > 4 else LONG // 20,
    }.get(choice["samples"], 0)
    if choice["samples"].isdigit():
        samples = int(choice["samples"])
    if choice["samples"] == "long" and hop < 16:
        samples = fewest + 1000 * hop
    shape = (*_rows(choice), max(0, samples))
    return signals.signal(choice["signal"], choice["layout"], shape, choice["dtype"], n_fft)


def _frames(choice: Choice, n_fft: int) -> int:
    named = {
        "some": 7,
        "many": max(9, min(60, 4000 // n_fft)),
        "very many": LONG_FRAMES if n_fft <= 64 else 400,
    }
    return named.get(choice["frames"], 0) or int(choice["frames"])


def _spectrum(choice: Choice, n_fft: int, hop: int) -> str | None:
    bins = n_fft if choice["bins"] == "n_fft" else n_fft // 2 + 1
    shape = (*_rows(choice), bins, _frames(choice, n_fft))
    return signals.spectrum(choice["signal"], choice["layout"], shape, choice["dtype"], n_fft)


def _length(choice: Choice, n_fft: int, hop: int) -> str:
    """Shorter than the frames reach, exact, into the last window's tail, or beyond it."""
    centred = choice["center"] != "False"
    reach = n_fft + hop * (_frames(choice, n_fft) - 1) - (2 * (n_fft // 2) if centred else 0)
    natural = max(1, reach)
    lengths = {
        "shorter": max(1, natural - natural // 3),
        "exact": natural,
        "longer": natural + max(1, n_fft // 4),
        "too long": natural + 3 * n_fft,
    }
    name = choice["length"]
    return name if name == "None" else _integer(lengths.get(name, 0) or int(name), choice)
