"""What is launched for a resolved call: which kernel, compiled for what, over which grid.

Pure arithmetic on ints. Everything that is compiled for is in ``template``; a new signal length,
hop or stride changes only ``integers`` and ``grid``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from ..params import PAD_MODES, IstftParams, StftParams
from .plans import (
    FASTEST_FRAMES,
    MAX_POINTS,
    FftPlan,
    analysis_plans,
    plans,
    radices_of,
    tile_samples,
)
from .sources import integers
from .tables import table_of
from .walks import END_SAMPLES, WalkPlan, walk_plan

#: MLX counts dimensions and grids, and the kernels frames, in 32 bits.
MAX_COUNT = (1 << 31) - 1
#: ml-explore/mlx#4013: larger transforms were silently wrong on Metal.
MAX_MLX_FFT = 1 << 20

#: Index in PadMode of signal.h.
_PAD_MODES = {"constant": 0, "reflect": 1, "replicate": 2, "circular": 3}
assert set(_PAD_MODES) == set(PAD_MODES)

Template = tuple[tuple[str, int], ...]
Size = tuple[int, int, int]


@dataclass(frozen=True)
class Launch:
    """One launch of one kernel.

    Attributes:
        kernel: name of its body in ``metal_src``.
        template: what it is compiled for.
        integers: its run-time integers, in the order of its header.
        grid: threads.
        threadgroup: threads of a group.
        shape: of its output.
        complex_output: whether the output is complex64 or float32.
        plan: of its Fourier transform, if it has one.
        resident: groups that one core should hold at once, if that is known: as many registers as
            that leaves are better used than spared (CUDA's ``__launch_bounds__``).
    """

    kernel: str
    template: Template
    integers: tuple[int, ...]
    grid: Size
    threadgroup: Size
    shape: tuple[int, ...]
    complex_output: bool
    plan: FftPlan | None = None
    resident: int | None = None


def in_order(header: str, enumeration: str, **values: int) -> tuple[int, ...]:
    """Named integers in their header's order; names that the header reserves are zero."""
    names = integers(header, enumeration)
    missing = [name for name in names if name not in values and not name.startswith("unused")]
    unknown = values.keys() - set(names)
    if missing or unknown:
        raise ValueError(f"{enumeration}: missing {missing}, unknown {sorted(unknown)}")
    return tuple(values.get(name, 0) for name in names)


def points_of(params: StftParams | IstftParams) -> tuple[int, bool] | None:
    """Points of the fused kernel's transform and whether it is packed; None: not covered."""
    is_complex = params.complex_fft if isinstance(params, StftParams) else params.return_complex
    packed = not is_complex and params.n_fft % 2 == 0
    points = params.n_fft // 2 if packed else params.n_fft
    if points > MAX_POINTS or radices_of(points) is None:
        return None
    return points, packed


def refusal(params: StftParams | IstftParams) -> str | None:
    """Why no kernel may compute this call; None where one does."""
    counts = [params.rows, params.frames, params.bins, params.frames + 2 * params.n_fft]
    if isinstance(params, StftParams):
        counts.append(params.samples + 2 * params.padding)
    else:
        counts.append(params.output_length)
    fused = points_of(params)
    if fused is None and params.n_fft > MAX_MLX_FFT:
        return f"n_fft above {MAX_MLX_FFT} is not computed by MLX on a GPU"
    threads = [params.frames * (fused[0] if fused else 1), counts[-1], params.n_fft]
    if max(*counts, *threads) > MAX_COUNT:
        return "a dimension exceeds what MLX's grids count"
    return None


@lru_cache(maxsize=256)
def analysis(
    params: StftParams, complex_signal: bool, complex_window: bool, enveloped: bool = False
) -> tuple[Launch, ...]:
    """Launches of the fused analysis kernel, best first; empty where it does not cover the call.

    Args:
        enveloped: the signal is multiplied by the inverse envelope of frames like these.
    """
    fused = points_of(params)
    if fused is None:
        return ()
    points, packed = fused
    return tuple(
        _analysis(params, plan, packed, complex_signal, complex_window, enveloped)
        for plan in analysis_plans(points, params.frames * params.rows)
    )


def _analysis(
    params: StftParams,
    plan: FftPlan,
    packed: bool,
    complex_signal: bool,
    complex_window: bool,
    enveloped: bool,
) -> Launch:
    flags = [
        ("PACKED", packed),
        ("COMPLEX_SIGNAL", complex_signal),
        ("COMPLEX_WINDOW", complex_window),
        ("TWO_SIDED", params.bins == params.n_fft),
        ("ENVELOPE", enveloped),
        ("HOP", params.hop_length if enveloped else 1),
    ]
    groups = -(-params.frames // plan.frames)
    return Launch(
        kernel="analysis",
        template=(*plan.template(), *flags),
        integers=in_order(
            "analysis.h",
            "AnalysisParameter",
            samples=params.samples,
            frames=params.frames,
            hop=params.hop_length,
            padding=params.padding,
            pad_mode=_PAD_MODES[params.pad_mode],
            n_fft=params.n_fft,
            bins=params.bins,
            overlap=-(-params.n_fft // params.hop_length),
            split_table=table_of(plan)[1],
        ),
        grid=(groups * plan.group, params.rows, 1),
        threadgroup=(plan.group, 1, 1),
        shape=(params.rows, params.frames, params.bins),
        complex_output=True,
        plan=plan,
    )


@dataclass(frozen=True)
class Adjoint:
    """What makes synthesis the adjoint of an analysis: the transpose of that one's padding."""

    padding: int
    pad_mode: str
    both_halves: bool


@lru_cache(maxsize=256)
def synthesis(
    params: IstftParams,
    complex_window: bool,
    frames_fastest: bool,
    adjoint: Adjoint | None = None,
) -> tuple[Launch, ...]:
    """Launches of the fused synthesis kernel, best first; empty where it does not cover the call.

    Args:
        frames_fastest: neighbouring frames of the spectrum are neighbours in memory.
        adjoint: leave the envelope out, and fold the padding of an analysis.
    """
    fused = points_of(params)
    if fused is None:
        return ()
    points, packed = fused
    least = FASTEST_FRAMES if frames_fastest else 1
    flags = [
        ("PACKED", packed),
        ("COMPLEX_SIGNAL", params.return_complex),
        ("COMPLEX_WINDOW", complex_window),
        ("FRAMES_FASTEST", frames_fastest),
        ("BOTH_HALVES", adjoint is not None and adjoint.both_halves),
        ("ENVELOPE", adjoint is None),
        ("FOLD", adjoint is not None and adjoint.padding > 0),
    ]
    general = [
        _synthesis(params, plan, flags, adjoint) for plan in plans(points, least_frames=least)
    ]
    walk = None
    if packed and not complex_window and not (adjoint is not None and adjoint.both_halves):
        walk = _walk(params, frames_fastest, adjoint)
    return tuple(general if walk is None else [walk, *general])


def _folded(params: IstftParams, adjoint: Adjoint | None) -> int:
    """Output samples at either end that padding's transpose may add to."""
    if adjoint is None or adjoint.padding == 0 or adjoint.pad_mode == "constant":
        return 0
    # Reflection repeats samples 1 ... padding; even, for pairs of samples.
    return (adjoint.padding + 2) // 2 * 2


def _walk(params: IstftParams, frames_fastest: bool, adjoint: Adjoint | None) -> Launch | None:
    """The launch of the walking kernel, or None where the general one is for the call."""
    even = all(
        number % 2 == 0 for number in (params.hop_length, params.start, params.output_length)
    )
    folded = _folded(params, adjoint)
    if 2 * folded >= params.output_length - 1:
        return None
    plan = walk_plan(
        params.n_fft // 2, params.hop_length, 2 if even else 1, frames_fastest, folded == 0
    )
    return None if plan is None else walk(params, plan, frames_fastest, adjoint)


def walk(
    params: IstftParams,
    plan: WalkPlan,
    frames_fastest: bool,
    adjoint: Adjoint | None = None,
    run: int | None = None,
) -> Launch:
    """The launch of the walking kernel by a plan that fits the call.

    Args:
        run: hops of a run, if not as many as the plan says.
    """
    length, hop, folded = params.output_length, params.hop_length, _folded(params, adjoint)
    begin, end = folded, (length - folded) // 2 * 2 if folded else length
    samples = END_SAMPLES if folded else 1
    ends = -(-max(begin, length - end) // (plan.fft.group * samples))
    hops = (end - 1 + params.start) // hop - (begin + params.start) // hop + 1
    run = run or plan.run_hops(hops, params.rows, frames_fastest)
    flags = [
        ("SAMPLES", samples),
        ("FRAMES_FASTEST", frames_fastest),
        ("ENVELOPE", adjoint is None),
        ("FOLD", folded > 0),
    ]
    return Launch(
        kernel="synthesis_walk",
        template=(*plan.template(), *flags),
        integers=_synthesis_integers(
            params, plan.fft, adjoint, begin=begin, end=end, run=run, end_groups=ends
        ),
        grid=((-(-hops // run) + 2 * ends) * plan.fft.group, params.rows, 1),
        threadgroup=(plan.fft.group, 1, 1),
        shape=(params.rows, length),
        complex_output=False,
        plan=plan.fft,
        resident=plan.resident,
    )


def _synthesis(
    params: IstftParams, plan: FftPlan, flags: list[tuple[str, bool]], adjoint: Adjoint | None
) -> Launch:
    samples = tile_samples(plan, params.n_fft)
    groups = -(-params.output_length // (plan.group * samples))
    return Launch(
        kernel="synthesis",
        template=(*plan.template(), ("SAMPLES", samples), *flags),
        integers=_synthesis_integers(params, plan, adjoint),
        grid=(groups * plan.group, params.rows, 1),
        threadgroup=(plan.group, 1, 1),
        shape=(params.rows, params.output_length),
        complex_output=params.return_complex,
        plan=plan,
    )


def _synthesis_integers(
    params: IstftParams, plan: FftPlan, adjoint: Adjoint | None, **walk: int
) -> tuple[int, ...]:
    """The integers of either synthesis kernel."""
    unused = dict.fromkeys(("begin", "end", "run", "end_groups"), 0)
    return in_order(
        "synthesis.h",
        "SynthesisParameter",
        **_adding(params, adjoint),
        **(unused | walk),
        bins=params.bins,
        split_table=table_of(plan)[1],
        zero=0,
    )


def _adding(params: IstftParams, adjoint: Adjoint | None) -> dict[str, int]:
    """The integers that overlap-add needs."""
    return {
        "frames": params.frames,
        "hop": params.hop_length,
        "n_fft": params.n_fft,
        "start": params.start,
        "kept": params.kept,
        "length": params.output_length,
        "overlap": params.overlap,
        "padding": 0 if adjoint is None else adjoint.padding,
        "pad_mode": 0 if adjoint is None else _PAD_MODES[adjoint.pad_mode],
    }


#: Threads of a group where threads do not cooperate.
FREE_GROUP = 256


@lru_cache(maxsize=256)
def cut_frames(params: StftParams, complex_signal: bool, complex_window: bool) -> Launch:
    """The launch that cuts windowed frames, shape (rows, frames, n_fft), for MLX's own FFT."""
    return Launch(
        kernel="cut_frames",
        template=(("COMPLEX_SIGNAL", complex_signal), ("COMPLEX_WINDOW", complex_window)),
        integers=in_order(
            "framing.h",
            "FramingParameter",
            samples=params.samples,
            frames=params.frames,
            hop=params.hop_length,
            padding=params.padding,
            pad_mode=_PAD_MODES[params.pad_mode],
            n_fft=params.n_fft,
        ),
        grid=(params.n_fft, params.frames, params.rows),
        threadgroup=(min(params.n_fft, FREE_GROUP), 1, 1),
        shape=(params.rows, params.frames, params.n_fft),
        complex_output=complex_signal or complex_window,
    )


@lru_cache(maxsize=256)
def add_frames(params: IstftParams, complex_window: bool, adjoint: Adjoint | None = None) -> Launch:
    """The launch that windows and overlap-adds frames of MLX's own inverse FFT."""
    return Launch(
        kernel="add_frames",
        template=(
            ("COMPLEX_SIGNAL", params.return_complex),
            ("COMPLEX_WINDOW", complex_window),
            ("ENVELOPE", adjoint is None),
            ("FOLD", adjoint is not None and adjoint.padding > 0),
        ),
        integers=in_order("framing.h", "AddingParameter", **_adding(params, adjoint)),
        grid=(params.output_length, params.rows, 1),
        threadgroup=(min(params.output_length, FREE_GROUP), 1, 1),
        shape=(params.rows, params.output_length),
        complex_output=params.return_complex,
    )
