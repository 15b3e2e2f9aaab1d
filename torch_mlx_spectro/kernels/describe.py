"""What is launched for a resolved call: which kernel, compiled for what, over which grid.

Pure arithmetic on ints. Everything that is compiled for is in ``template``; a new signal length,
hop or stride changes only ``integers`` and ``grid``.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from ..core.linear import Form
from ..core.params import PAD_MODES, IstftParams, StftParams
from ..store.caches import cached
from ..store.sources import integers
from .launches import Launch as Launch
from .launches import Size as Size
from .launches import Template as Template
from .launches import bits_of
from .radices import (
    FASTEST_FRAMES,
    MAX_POINTS,
    FftPlan,
    analysis_plans,
    of_group,
    plans,
    radices_of,
    shapes,
    tile_samples,
)
from .tables import table_of
from .walks import END_SAMPLES, WalkPlan, walk_of_group, walk_plan

#: MLX counts dimensions and grids, and the kernels frames, in 32 bits.
MAX_COUNT = (1 << 31) - 1
#: ml-explore/mlx#4013: larger transforms were silently wrong on Metal.
MAX_MLX_FFT = 1 << 20

#: Threads of a core where large groups divide by an envelope: else the compiler takes registers
#: that leave room for three groups of 256, not four.
ENVELOPED_THREADS = 1024

#: Index in PadMode of signal.h.
_PAD_MODES = MappingProxyType({"constant": 0, "reflect": 1, "replicate": 2, "circular": 3})
assert set(_PAD_MODES) == set(PAD_MODES)


def in_order(header: str, enumeration: str, **values: int) -> tuple[int, ...]:
    """Named integers in their header's order."""
    names = integers(header, enumeration)
    missing = [name for name in names if name not in values]
    unknown = values.keys() - set(names)
    if missing or unknown:
        raise ValueError(f"{enumeration}: missing {missing}, unknown {sorted(unknown)}")
    return tuple(values[name] for name in names)


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


#: In the place of a window's stride, which is never negative: there is no window.
NO_WINDOW = -1


def _layout(step: int | None) -> int:
    """Index in WindowLayout of window.h."""
    return 1 if step is None else 2 if step == NO_WINDOW else 0


def _window(params: StftParams | IstftParams, step: int | None) -> dict[str, int]:
    """The integers that tell where the values of a window are."""
    if step is None:
        return {"window_step": 1, "window_left": 0, "window_length": params.n_fft}
    left = (params.n_fft - params.win_length) // 2
    return {"window_step": step, "window_left": left, "window_length": params.win_length}


@cached(256)
def analysis(
    params: StftParams,
    complex_signal: bool,
    complex_window: bool,
    divisor: float | None = None,
    group: int | None = None,
    step: int | None = None,
) -> tuple[Launch, ...]:
    """Launches of the fused analysis kernel, best first; empty where it does not cover the call.

    Args:
        divisor: the signal is divided by this times the envelope of frames like these, in the place
            of what the call is scaled by; None: it is not.
        group: threads of a group; None for what the plans say.
        step: from one value of the window to the next, in elements; None: there are n_fft
            neighbours, at an address of whole pairs; or ``NO_WINDOW``.

    Raises:
        ValueError: no group has so many threads.
    """
    fused = points_of(params)
    if fused is None:
        return ()
    found = analysis_plans(fused[0], params.frames * params.rows)
    if group is not None:
        found = (of_group(found[0], group),)
    return tuple(
        _analysis(params, plan, fused[1], complex_signal, complex_window, divisor, step)
        for plan in found
    )


@cached(256)
def analysis_shapes(
    params: StftParams,
    complex_signal: bool,
    complex_window: bool,
    divisor: float | None = None,
    step: int | None = None,
) -> tuple[Launch, ...]:
    """Launches whose results are those of the best of :func:`analysis`, by groups of other shapes.

    Args:
        divisor, step: as of :func:`analysis`.
    """
    fused = points_of(params)
    if fused is None:
        return ()
    best = analysis_plans(fused[0], params.frames * params.rows)[0]
    return tuple(
        _analysis(params, plan, fused[1], complex_signal, complex_window, divisor, step)
        for plan in shapes(best)[1:]
    )


def _analysis(
    params: StftParams,
    plan: FftPlan,
    packed: bool,
    complex_signal: bool,
    complex_window: bool,
    divisor: float | None,
    step: int | None,
) -> Launch:
    enveloped = divisor is not None
    flags = [
        ("PACKED", packed),
        ("COMPLEX_SIGNAL", complex_signal),
        ("COMPLEX_WINDOW", complex_window),
        ("WINDOW", _layout(step)),
        ("TWO_SIDED", params.bins == params.n_fft),
        # A factor that is not known when it is compiled takes registers of all.
        ("SCALED", params.scale != 1.0 and not enveloped),
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
            split_table=table_of(plan)[1],
            scale=bits_of(params.scale if divisor is None else divisor),
            **_window(params, step),
        ),
        grid=(groups * plan.group, params.rows, 1),
        threadgroup=(plan.group, 1, 1),
        shape=(params.rows, params.frames, params.bins),
        complex_output=True,
        plan=plan,
        resident=ENVELOPED_THREADS // plan.group if enveloped and plan.group >= 256 else None,
    )


@dataclass(frozen=True)
class Adjoint:
    """What makes synthesis the adjoint of an analysis: the transpose of that one's padding.

    Attributes:
        scale: what the result is multiplied by.
        edge: factor of bins 0 and n_fft / 2.
    """

    padding: int
    pad_mode: str
    both_halves: bool
    scale: float = 1.0
    edge: float = 1.0


def adjoint_of(form: Form) -> Adjoint:
    """What makes synthesis the adjoint of a form's analysis.

    The fused kernel does not divide by n_fft, and takes both halves as one when it packs them.
    """
    params, scale = form.params, form.inverse_scale
    if points_of(params) is not None:
        scale = params.scale * (1.0 if params.complex_fft else 0.5)
    edge = 1.0 if params.complex_fft else 2.0 * form.edge
    return Adjoint(params.padding, params.pad_mode, form.both_halves, scale, edge)


@cached(256)
def synthesis(
    params: IstftParams,
    complex_window: bool,
    frames_fastest: bool,
    adjoint: Adjoint | None = None,
    walk_group: int | None = None,
    group: int | None = None,
    cores: int | None = None,
    step: int | None = None,
) -> tuple[Launch, ...]:
    """Launches of the fused synthesis kernel, best first; empty where it does not cover the call.

    Args:
        frames_fastest: neighbouring frames of the spectrum are neighbours in memory.
        adjoint: leave the envelope out, and fold the padding of an analysis.
        walk_group, group: threads of a group of either kernel; None for what the plans say.
        cores: of the GPU; None for those of the one that plans were sized for.
        step: as of :func:`analysis`.

    Raises:
        ValueError: no group of the first kernel has so many threads.
    """
    fused = points_of(params)
    if fused is None:
        return ()
    points, packed = fused
    least = FASTEST_FRAMES if frames_fastest else 1
    flags: list[tuple[str, int]] = [
        ("PACKED", packed),
        ("COMPLEX_SIGNAL", params.return_complex),
        ("COMPLEX_WINDOW", complex_window),
        ("WINDOW", _layout(step)),
        ("FRAMES_FASTEST", frames_fastest),
        ("BOTH_HALVES", adjoint is not None and adjoint.both_halves),
        ("ENVELOPE", adjoint is None),
        ("FOLD", adjoint is not None and adjoint.padding > 0),
    ]
    walk = None
    if packed and not complex_window and not (adjoint is not None and adjoint.both_halves):
        walk = _walk(params, frames_fastest, adjoint, walk_group, cores, step)
    if walk is not None and walk_group is not None:
        return (walk,)
    found = plans(points, least_frames=least)
    if group is not None:
        found = (of_group(found[0], group),)
    general = [_synthesis(params, plan, flags, adjoint, step) for plan in found]
    return tuple(general if walk is None else [walk, *general])


def _folded(params: IstftParams, adjoint: Adjoint | None) -> int:
    """Output samples at either end that padding's transpose may add to."""
    if adjoint is None or adjoint.padding == 0 or adjoint.pad_mode == "constant":
        return 0
    # Reflection repeats samples 1 ... padding; even, for pairs of samples.
    return (adjoint.padding + 2) // 2 * 2


def _walk(
    params: IstftParams,
    frames_fastest: bool,
    adjoint: Adjoint | None,
    group: int | None,
    cores: int | None,
    step: int | None,
) -> Launch | None:
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
    if plan is not None and group is not None:
        plan = walk_of_group(plan, group)
    if plan is None:
        return None
    return walk(params, plan, frames_fastest, adjoint, cores=cores, step=step)


def walk(
    params: IstftParams,
    plan: WalkPlan,
    frames_fastest: bool,
    adjoint: Adjoint | None = None,
    run: int | None = None,
    cores: int | None = None,
    step: int | None = None,
) -> Launch:
    """The launch of the walking kernel by a plan that fits the call.

    Args:
        run: hops of a run, if not as many as the plan says.
        cores, step: as of :func:`synthesis`.
    """
    length, hop, folded = params.output_length, params.hop_length, _folded(params, adjoint)
    begin, end = folded, (length - folded) // 2 * 2 if folded else length
    samples = END_SAMPLES if folded else 1
    ends = -(-max(begin, length - end) // (plan.fft.group * samples))
    hops = (end - 1 + params.start) // hop - (begin + params.start) // hop + 1
    run = run or plan.run_hops(hops, params.rows, frames_fastest, cores)
    flags = [
        ("SAMPLES", samples),
        ("WINDOW", _layout(step)),
        ("FRAMES_FASTEST", frames_fastest),
        ("ENVELOPE", adjoint is None),
        ("FOLD", folded > 0),
    ]
    return Launch(
        kernel="synthesis_walk",
        template=(*plan.template(), *flags),
        integers=_synthesis_integers(
            params, plan.fft, adjoint, step, begin=begin, end=end, run=run, end_groups=ends
        ),
        grid=((-(-hops // run) + 2 * ends) * plan.fft.group, params.rows, 1),
        threadgroup=(plan.fft.group, 1, 1),
        shape=(params.rows, length),
        complex_output=False,
        plan=plan.fft,
        resident=plan.resident,
    )


def _synthesis(
    params: IstftParams,
    plan: FftPlan,
    flags: list[tuple[str, int]],
    adjoint: Adjoint | None,
    step: int | None,
) -> Launch:
    samples = tile_samples(plan, params.n_fft)
    groups = -(-params.output_length // (plan.group * samples))
    return Launch(
        kernel="synthesis",
        template=(*plan.template(), ("SAMPLES", samples), *flags),
        integers=_synthesis_integers(params, plan, adjoint, step),
        grid=(groups * plan.group, params.rows, 1),
        threadgroup=(plan.group, 1, 1),
        shape=(params.rows, params.output_length),
        complex_output=params.return_complex,
        plan=plan,
    )


def _synthesis_integers(
    params: IstftParams, plan: FftPlan, adjoint: Adjoint | None, step: int | None, **walk: int
) -> tuple[int, ...]:
    """The integers of either synthesis kernel."""
    unused = dict.fromkeys(("begin", "end", "run", "end_groups"), 0)
    return in_order(
        "synthesis.h",
        "SynthesisParameter",
        **_adding(params, adjoint, step, params.n_fft),
        **(unused | walk),
        bins=params.bins,
        split_table=table_of(plan)[1],
        zero=0,
    )


def _adding(
    params: IstftParams, adjoint: Adjoint | None, step: int | None, divisor: int
) -> dict[str, int]:
    """The integers that overlap-add needs.

    Args:
        divisor: what the inverse transform leaves to be divided by.
    """
    return {
        "frames": params.frames,
        "hop": params.hop_length,
        "n_fft": params.n_fft,
        "start": params.start,
        "kept": params.kept,
        "length": params.output_length,
        "scale": bits_of(divisor / params.scale if adjoint is None else adjoint.scale),
        **_window(params, step),
        "padding": 0 if adjoint is None else adjoint.padding,
        "pad_mode": 0 if adjoint is None else _PAD_MODES[adjoint.pad_mode],
    }


#: Threads of a group where threads do not cooperate.
FREE_GROUP = 256


@cached(256)
def cut_frames(
    params: StftParams,
    complex_signal: bool,
    complex_window: bool,
    group: int = FREE_GROUP,
    step: int | None = None,
    divisor: float | None = None,
) -> Launch:
    """The launch that cuts windowed frames, shape (rows, frames, n_fft), for MLX's own FFT.

    Args:
        step, divisor: as of :func:`analysis`.
    """
    return Launch(
        kernel="cut_frames",
        template=(
            ("COMPLEX_SIGNAL", complex_signal),
            ("COMPLEX_WINDOW", complex_window),
            ("WINDOW", _layout(step)),
            ("ENVELOPE", divisor is not None),
        ),
        integers=in_order(
            "framing.h",
            "FramingParameter",
            samples=params.samples,
            frames=params.frames,
            hop=params.hop_length,
            padding=params.padding,
            pad_mode=_PAD_MODES[params.pad_mode],
            n_fft=params.n_fft,
            scale=bits_of(params.scale if divisor is None else divisor),
            **_window(params, step),
        ),
        grid=(params.n_fft, params.frames, params.rows),
        threadgroup=(min(params.n_fft, group), 1, 1),
        shape=(params.rows, params.frames, params.n_fft),
        complex_output=complex_signal or complex_window,
    )


@cached(256)
def add_frames(
    params: IstftParams,
    complex_window: bool,
    adjoint: Adjoint | None = None,
    group: int = FREE_GROUP,
    step: int | None = None,
) -> Launch:
    """The launch that windows and overlap-adds frames of MLX's own inverse FFT.

    Args:
        step: as of :func:`analysis`.
    """
    return Launch(
        kernel="add_frames",
        template=(
            ("COMPLEX_SIGNAL", params.return_complex),
            ("COMPLEX_WINDOW", complex_window),
            ("WINDOW", _layout(step)),
            ("ENVELOPE", adjoint is None),
            ("FOLD", adjoint is not None and adjoint.padding > 0),
        ),
        integers=in_order("framing.h", "AddingParameter", **_adding(params, adjoint, step, 1)),
        grid=(params.output_length, params.rows, 1),
        threadgroup=(min(params.output_length, group), 1, 1),
        shape=(params.rows, params.output_length),
        complex_output=params.return_complex,
    )
