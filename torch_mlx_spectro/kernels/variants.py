"""List what the kernels are compiled for: a launch of each variant, to compile them all.

A program needs a few variants. Their number has no bound, since a walk is compiled for one hop.
Here are all flags at a few sizes, and a few flags at all kinds of sizes: packed and odd ones, one
pass and six, every group that an Apple GPU may be asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product

from ..core.linear import Analysis
from ..core.params import IstftParams, StftParams, TensorFacts, resolve_istft, resolve_stft
from ..store.caches import cached
from .arguments import OUTPUTS
from .describe import (
    describe_adjoint,
    describe_inverse_adjoint,
    list_analyses,
    list_shapes,
    list_syntheses,
)
from .framing import add_frames, cut_frames
from .launches import NO_WINDOW, Launch
from .radices import EMULATED_CORES

#: n_fft and hop of the sizes of all flags, and of the others.
FLAGGED = ((60, 15), (512, 128))
SIZES = (
    *((15, 4), (16, 4), (256, 64), (400, 100), (400, 160), (1024, 256), (1125, 225), (1200, 300)),
    *((2048, 441), (2048, 512), (4096, 1024), (6144, 1024), (7680, 1024), (8192, 2048)),
)
USUAL = ((512, 128), (1024, 256), (2048, 512), (4096, 1024), (6144, 1024))
#: A window that is read whole, by a stride, and none.
WINDOWS = (None, 1, NO_WINDOW)
#: Frames of a call: few, and more than run at once.
FRAMES = (12, 20_000)


@cached(1)
def list_variants() -> dict[str, Launch]:
    """List a launch of each variant, by a name that says kernel, number and group."""
    distinct = {(launch.kernel, launch.template): launch for launch in _list_launches()}
    counts = dict.fromkeys(OUTPUTS, 0)
    named = {}
    for launch in distinct.values():
        points = f"_{launch.plan.points}" if launch.plan is not None else ""
        name = f"{launch.kernel}{points}_{counts[launch.kernel]:03}_{launch.threadgroup[0]}"
        counts[launch.kernel] += 1
        named[name] = launch
    return named


def list_usual_variants() -> dict[str, Launch]:
    """List the variants that programs usually need: of forward calls, without what is refused last.

    Those are the first analysis of each of some sizes, and all its walks.
    """
    wanted: list[Launch] = []
    for n_fft, hop in USUAL:
        forward = _resolve_signal(n_fft, hop, FRAMES[1])
        wanted += list_analyses(forward, False, False, cores=EMULATED_CORES)[:1]
        for fastest in (False, True):
            back = _resolve_spectrum(n_fft, hop, FRAMES[0])
            every = list_syntheses(back, False, fastest, cores=EMULATED_CORES)
            wanted += [launch for launch in every if launch.kernel == "synthesis_walk"]
    kinds = {(launch.kernel, launch.template) for launch in wanted}
    return {
        name: launch
        for name, launch in list_variants().items()
        if (launch.kernel, launch.template) in kinds
    }


def _list_launches() -> Iterator[Launch]:
    for n_fft, hop in (*FLAGGED, *SIZES):
        yield from _list_plans(n_fft, hop)
    for n_fft, hop in FLAGGED:
        yield from _list_flags(n_fft, hop)


def _list_plans(n_fft: int, hop: int) -> Iterator[Launch]:
    """All groups for the ordinary calls and their gradients."""
    for frames in FRAMES:
        forward = _resolve_signal(n_fft, hop, frames)
        analyses = list_analyses(forward, False, False, cores=EMULATED_CORES)
        yield from analyses
        yield from list_shapes(analyses[0])
    back = _resolve_spectrum(n_fft, hop, FRAMES[0])
    folded, adjoint = describe_adjoint(Analysis(forward, False, False))
    for fastest in (False, True):
        yield from list_syntheses(back, False, fastest, cores=EMULATED_CORES)
    yield from list_syntheses(folded, False, False, adjoint, cores=EMULATED_CORES)
    analysis, divisor = describe_inverse_adjoint(back)
    yield from list_analyses(
        analysis.params, False, False, divisor, frames_fastest=True, cores=EMULATED_CORES
    )[:1]


def _list_flags(n_fft: int, hop: int) -> Iterator[Launch]:
    """All flags, for the first group of each."""
    flags: Iterable[tuple[bool, ...]] = product((False, True), repeat=3)
    for is_complex, has_complex_window, normalized in flags:
        forward = _resolve_signal(n_fft, hop, FRAMES[0], is_complex, has_complex_window, normalized)
        two_sided = is_complex or has_complex_window
        back = _resolve_spectrum(n_fft, hop, FRAMES[0], two_sided)
        folded, adjoint = describe_adjoint(Analysis(forward, is_complex, False))
        analysis, divisor = describe_inverse_adjoint(back)
        kinds = (is_complex, has_complex_window)
        for step in WINDOWS:
            if step == NO_WINDOW and has_complex_window:
                continue
            for fastest in (False, True):
                yield list_analyses(forward, *kinds, None, None, step, fastest)[0]
                yield list_analyses(analysis.params, *kinds, divisor, None, step, fastest)[0]
                for params, fold in ((back, None), (folded, adjoint)):
                    yield list_syntheses(
                        params, has_complex_window, fastest, fold, None, None, EMULATED_CORES, step
                    )[0]
            yield cut_frames(forward, *kinds, step=step)
            yield cut_frames(analysis.params, *kinds, step=step, divisor=divisor)
            yield add_frames(back, has_complex_window, step=step)
            yield add_frames(folded, has_complex_window, adjoint, step=step)


def _resolve_signal(
    n_fft: int,
    hop: int,
    frames: int,
    is_complex: bool = False,
    has_complex_window: bool = False,
    normalized: bool = False,
) -> StftParams:
    window = TensorFacts((n_fft,), has_complex_window)
    signal = TensorFacts((1, n_fft + hop * frames), is_complex)
    return resolve_stft(
        signal, n_fft, hop, window=window, normalized=normalized, return_complex=True
    )


def _resolve_spectrum(n_fft: int, hop: int, frames: int, two_sided: bool = False) -> IstftParams:
    bins = n_fft if two_sided else n_fft // 2 + 1
    return resolve_istft(
        TensorFacts((1, bins, frames), True),
        n_fft,
        hop,
        window=TensorFacts((n_fft,), False),
        onesided=not two_sided,
        return_complex=two_sided,
    )
