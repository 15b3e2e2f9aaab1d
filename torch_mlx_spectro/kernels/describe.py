"""Describe the launch of a resolved call: which fused kernel, compiled for what, over which grid.

This is pure arithmetic on ints. ``template`` holds everything that the kernel is compiled for; a
new signal length, hop or stride changes only ``integers`` and ``grid``. :mod:`.kernels.framing` has
the sizes that no fused kernel covers.
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
    count_tile_samples,
    find_fused_points,
    list_analysis_plans,
    list_plan_shapes,
    list_plans,
    resize_group,
    with_frames,
)
from .tables import make_table
from .walks import END_SAMPLES, WalkPlan, list_walks, resize_any_walk

#: MLX counts dimensions and grids, and the kernels frames, in 32 bits.
MAX_COUNT = (1 << 31) - 1

#: Threads of a core where large groups divide by an envelope. Without this bound the compiler takes
#: so many registers that a core holds three groups of 256 threads, not four.
ENVELOPED_THREADS = 1024


def largest_count(params: StftParams | IstftParams) -> int:
    """Return the largest count that a kernel uses for a call: rows, frames or samples."""
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
    frames_fastest: bool = False,
    cores: int | None = None,
) -> tuple[Launch, ...]:
    """List launches of the fused analysis kernel, best first; none where it covers no such call.

    Args:
        divisor: the signal is divided by this number times the envelope of such frames, and the
            call's scale is not used; None: no division.
        group: threads of a group; None for what the plans say.
        step: from one value of the window to the next, in elements. None: there are n_fft values,
            contiguous and aligned to pairs. ``NO_WINDOW``: there is no window.
        frames_fastest: neighbouring frames of the spectrum are to be neighbours in memory.
        cores: as in :func:`.kernels.radices.find_gpu`.

    Raises:
        ValueError: no group has so many threads.
    """
    fused = find_fused_points(params)
    if fused is None:
        return ()
    found = list_analysis_plans(fused[0], params.frames * params.rows, cores)
    if frames_fastest:
        found = tuple(dict.fromkeys(with_frames(plan, FASTEST_FRAMES) for plan in found))
    if group is not None:
        found = (resize_group(found[0], group),)
    return tuple(
        _make_analysis(
            params, plan, fused[1], complex_signal, complex_window, divisor, step, frames_fastest
        )
        for plan in found
    )


@cached(256)
def list_shapes(launch: Launch) -> tuple[Launch, ...]:
    """List the launches of an analysis by groups of other shapes, whose results are the same bits.

    There are none of other kernels.

    Args:
        launch: the best of :func:`list_analyses`.
    """
    if launch.kernel != "analysis" or launch.plan is None:
        return ()
    rows, *sizes = launch.shape
    frames = sizes[dict(launch.template)["FRAMES_FASTEST"]]
    flags = launch.template[len(launch.plan.template()) :]
    return tuple(
        replace(launch, **_group_analysis(plan, rows, frames, flags))
        for plan in list_plan_shapes(launch.plan)[1:]
    )


def _group_analysis(plan: FftPlan, rows: int, frames: int, flags: Template) -> dict[str, Any]:
    """The fields of an analysis' launch that change with the shape of its groups."""
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
    frames_fastest: bool,
) -> Launch:
    enveloped, sizes = divisor is not None, (params.frames, params.bins)
    flags = (
        ("PACKED", packed),
        ("COMPLEX_SIGNAL", complex_signal),
        ("COMPLEX_WINDOW", complex_window),
        ("WINDOW", number_window_layout(step)),
        ("TWO_SIDED", params.bins == params.n_fft),
        # A factor at run time costs registers, even if it is 1: such calls are compiled without.
        ("SCALED", params.scale != 1.0 and not enveloped),
        ("ENVELOPE", enveloped),
        ("HOP", params.hop_length if enveloped else 1),
        ("FRAMES_FASTEST", frames_fastest),
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
        shape=(params.rows, *(sizes[::-1] if frames_fastest else sizes)),
        complex_output=True,
        **_group_analysis(plan, params.rows, params.frames, flags),
    )


@cached(256)
def describe_adjoint(analysis: Analysis) -> tuple[IstftParams, Adjoint]:
    """Describe the synthesis that computes the adjoint of an analysis.

    The fused kernel applies no 1/n_fft, and packed input counts both halves of a spectrum once;
    scale and edge of the result make up for that.
    """
    params, scale, edge = analysis.params, analysis.inverse_scale, analysis.inverse_edge
    if find_fused_points(params) is not None:
        halves = 2.0 if analysis.both_halves else 1.0
        scale, edge = analysis.plain_scale / halves, edge * halves
    adjoint = Adjoint(params.padding, params.pad_mode, analysis.both_halves, scale, edge)
    return describe_synthesis(analysis, params.padding, params.samples), adjoint


def describe_inverse_adjoint(params: IstftParams) -> tuple[Analysis, float]:
    """Describe the analysis that is an istft's adjoint, and its divisor (:func:`list_analyses`)."""
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
    """List launches of the fused synthesis kernel, best first; none where it covers no such call.

    Args:
        frames_fastest: neighbouring frames of the spectrum are neighbours in memory.
        adjoint: leave the envelope out, and fold the padding of an analysis back.
        walk_group, group: threads of a group of either kernel; None for what the plans say.
        cores: as in :func:`.kernels.radices.find_gpu`.
        step: as in :func:`list_analyses`.

    Raises:
        ValueError: no group of the first kernel has so many threads.
    """
    fused = find_fused_points(params)
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
    found: tuple[Launch, ...] = ()
    if packed and not complex_window and not (adjoint is not None and adjoint.both_halves):
        found = _make_walks(params, frames_fastest, adjoint, walk_group, cores, step)
    if found and walk_group is not None:
        return found
    plans = list_plans(points, least_frames=least)
    if group is not None:
        plans = (resize_group(plans[0], group),)
    general = (_make_synthesis(params, plan, flags, adjoint, step) for plan in plans)
    return (*found, *general)


def _count_folded(params: IstftParams, adjoint: Adjoint | None) -> int:
    """Count the output samples at either end that folded padding may be added to."""
    if adjoint is None or adjoint.padding == 0 or adjoint.pad_mode == "constant":
        return 0
    # Reflection repeats samples 1 ... padding. The count is even, since threads add pairs.
    return (adjoint.padding + 2) // 2 * 2


def _make_walks(
    params: IstftParams,
    frames_fastest: bool,
    adjoint: Adjoint | None,
    group: int | None,
    cores: int | None,
    step: int | None,
) -> tuple[Launch, ...]:
    """Make launches of the walking kernel; none where the general kernel serves the call."""
    even = all(
        number % 2 == 0 for number in (params.hop_length, params.start, params.output_length)
    )
    folded = _count_folded(params, adjoint)
    if 2 * folded >= params.output_length - 1:
        return ()
    width, halves = 2 if even else 1, folded == 0
    plans = list_walks(params.n_fft // 2, params.hop_length, width, frames_fastest, halves, cores)
    if plans and group is not None:
        plans = (resize_any_walk(plans, group),)
    return tuple(
        walk(params, plan, frames_fastest, adjoint, cores=cores, step=step) for plan in plans
    )


def walk(
    params: IstftParams,
    plan: WalkPlan,
    frames_fastest: bool,
    adjoint: Adjoint | None = None,
    run: int | None = None,
    cores: int | None = None,
    step: int | None = None,
) -> Launch:
    """Make the launch of the walking kernel by a plan that fits the call.

    Args:
        run: hops of a run; None for as many as the plan says.
        cores, step: as in :func:`list_syntheses`.
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
    samples = count_tile_samples(plan, params.n_fft)
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
    """The run-time integers of either synthesis kernel."""
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
