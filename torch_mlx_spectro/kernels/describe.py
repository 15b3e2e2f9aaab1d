"""What is launched for a resolved call: which fused kernel, compiled for what, over which grid.

Pure arithmetic on ints. Everything that is compiled for is in ``template``; a new signal length,
hop or stride changes only ``integers`` and ``grid``. Sizes that no fused kernel covers are in
:mod:`.kernels.framing`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..core.linear import Analysis, describe_analysis, describe_synthesis
from ..core.params import IstftParams, StftParams
from ..store.caches import cached
from .launches import NO_WINDOW as NO_WINDOW
from .launches import Adjoint as Adjoint
from .launches import Launch as Launch
from .launches import (
    Template,
    list_adding_values,
    list_cutting_values,
    number_window_layout,
    order_integers,
)
from .radices import (
    FASTEST_FRAMES,
    FftPlan,
    analysis_plans,
    fused_points,
    plans,
    resize_group,
    shapes,
    tile_samples,
)
from .tables import make_table
from .walks import END_SAMPLES, WalkPlan, resize_walk, walk_plan

#: MLX counts dimensions and grids, and the kernels frames, in 32 bits.
MAX_COUNT = (1 << 31) - 1

#: Threads of a core where large groups divide by an envelope: else the compiler takes registers
#: that leave room for three groups of 256, not four.
ENVELOPED_THREADS = 1024


def largest_count(params: StftParams | IstftParams) -> int:
    """The largest extent of what a call is made of."""
    length = (
        params.samples + 2 * params.padding
        if isinstance(params, StftParams)
        else params.output_length
    )
    return max(params.rows, params.frames + 2 * params.n_fft, length)


@cached(256)
def list_analyses(
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
    fused = fused_points(params)
    if fused is None:
        return ()
    found = analysis_plans(fused[0], params.frames * params.rows)
    if group is not None:
        found = (resize_group(found[0], group),)
    return tuple(
        _make_analysis(params, plan, fused[1], complex_signal, complex_window, divisor, step)
        for plan in found
    )


@cached(256)
def list_shapes(launch: Launch) -> tuple[Launch, ...]:
    """Launches by groups of other shapes whose results are the same bits, if it is an analysis.

    Args:
        launch: the best of :func:`list_analyses`.
    """
    if launch.kernel != "analysis" or launch.plan is None:
        return ()
    rows, frames, _ = launch.shape
    flags = launch.template[len(launch.plan.template()) :]
    return tuple(
        replace(launch, **_group_analysis(plan, rows, frames, flags))
        for plan in shapes(launch.plan)[1:]
    )


def _group_analysis(plan: FftPlan, rows: int, frames: int, flags: Template) -> dict[str, Any]:
    """What of an analysis' launch depends on its plan, but for the radices."""
    groups = -(-frames // plan.frames)
    is_large = plan.group >= 256 and dict(flags)["ENVELOPE"]
    return {
        "template": (*plan.template(), *flags),
        "grid": (groups * plan.group, rows, 1),
        "threadgroup": (plan.group, 1, 1),
        "plan": plan,
        "resident": ENVELOPED_THREADS // plan.group if is_large else None,
    }


def _make_analysis(
    params: StftParams,
    plan: FftPlan,
    packed: bool,
    complex_signal: bool,
    complex_window: bool,
    divisor: float | None,
    step: int | None,
) -> Launch:
    enveloped = divisor is not None
    flags = (
        ("PACKED", packed),
        ("COMPLEX_SIGNAL", complex_signal),
        ("COMPLEX_WINDOW", complex_window),
        ("WINDOW", number_window_layout(step)),
        ("TWO_SIDED", params.bins == params.n_fft),
        # A factor that is not known when it is compiled takes registers of all.
        ("SCALED", params.scale != 1.0 and not enveloped),
        ("ENVELOPE", enveloped),
        ("HOP", params.hop_length if enveloped else 1),
    )
    return Launch(
        kernel="analysis",
        integers=order_integers(
            "analysis.h",
            "AnalysisParameter",
            **list_cutting_values(params, step, divisor),
            bins=params.bins,
            split_table=make_table(plan)[1],
        ),
        shape=(params.rows, params.frames, params.bins),
        complex_output=True,
        **_group_analysis(plan, params.rows, params.frames, flags),
    )


@cached(256)
def describe_adjoint(analysis: Analysis) -> tuple[IstftParams, Adjoint]:
    """The synthesis that computes the adjoint of an analysis, and what makes it that.

    The fused kernel does not divide by n_fft, and takes both halves as one when it packs them.
    """
    params, scale, edge = analysis.params, analysis.inverse_scale, analysis.inverse_edge
    if fused_points(params) is not None:
        halves = 2.0 if analysis.both_halves else 1.0
        scale, edge = analysis.plain_scale / halves, edge * halves
    adjoint = Adjoint(params.padding, params.pad_mode, analysis.both_halves, scale, edge)
    return describe_synthesis(analysis, params.padding, params.samples), adjoint


def describe_inverse_adjoint(params: IstftParams) -> tuple[Analysis, float]:
    """The analysis that computes the adjoint of an istft, and :func:`list_analyses`' divisor."""
    analysis = describe_analysis(params)
    return analysis, 1.0 / (analysis.params.scale * params.scale)


@cached(256)
def list_syntheses(
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
        step: as of :func:`list_analyses`.

    Raises:
        ValueError: no group of the first kernel has so many threads.
    """
    fused = fused_points(params)
    if fused is None:
        return ()
    points, packed = fused
    least = FASTEST_FRAMES if frames_fastest else 1
    flags: list[tuple[str, int]] = [
        ("PACKED", packed),
        ("COMPLEX_SIGNAL", params.return_complex),
        ("COMPLEX_WINDOW", complex_window),
        ("WINDOW", number_window_layout(step)),
        ("FRAMES_FASTEST", frames_fastest),
        ("BOTH_HALVES", adjoint is not None and adjoint.both_halves),
        ("ENVELOPE", adjoint is None),
        ("FOLD", adjoint is not None and adjoint.padding > 0),
    ]
    walk = None
    if packed and not complex_window and not (adjoint is not None and adjoint.both_halves):
        walk = _make_walk(params, frames_fastest, adjoint, walk_group, cores, step)
    if walk is not None and walk_group is not None:
        return (walk,)
    found = plans(points, least_frames=least)
    if group is not None:
        found = (resize_group(found[0], group),)
    general = [_make_synthesis(params, plan, flags, adjoint, step) for plan in found]
    return tuple(general if walk is None else [walk, *general])


def _count_folded(params: IstftParams, adjoint: Adjoint | None) -> int:
    """Output samples at either end that padding's transpose may add to."""
    if adjoint is None or adjoint.padding == 0 or adjoint.pad_mode == "constant":
        return 0
    # Reflection repeats samples 1 ... padding; even, for pairs of samples.
    return (adjoint.padding + 2) // 2 * 2


def _make_walk(
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
    folded = _count_folded(params, adjoint)
    if 2 * folded >= params.output_length - 1:
        return None
    plan = walk_plan(
        params.n_fft // 2, params.hop_length, 2 if even else 1, frames_fastest, folded == 0
    )
    if plan is None:
        return None
    if group is not None:
        plan = resize_walk(plan, group)
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
    length, hop, folded = params.output_length, params.hop_length, _count_folded(params, adjoint)
    begin, end = folded, (length - folded) // 2 * 2 if folded else length
    samples = END_SAMPLES if folded else 1
    ends = -(-max(begin, length - end) // (plan.fft.group * samples))
    hops = (end - 1 + params.start) // hop - (begin + params.start) // hop + 1
    run = run or plan.run_hops(hops, params.rows, frames_fastest, cores)
    flags = [
        ("SAMPLES", samples),
        ("WINDOW", number_window_layout(step)),
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


def _make_synthesis(
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
    return order_integers(
        "synthesis.h",
        "SynthesisParameter",
        **list_adding_values(params, adjoint, step, params.n_fft),
        **(unused | walk),
        bins=params.bins,
        split_table=make_table(plan)[1],
        zero=0,
    )
