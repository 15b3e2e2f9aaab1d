"""What kernels are compiled for: every kind of call of a size, the usual ones of many sizes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from reference import istft_params, stft_params

from torch_mlx_spectro.core.params import IstftParams, StftParams
from torch_mlx_spectro.kernels import describe, framing
from torch_mlx_spectro.kernels.describe import Adjoint
from torch_mlx_spectro.kernels.launches import NO_WINDOW, Launch, Template

#: Where a window is: contiguous, strided, nowhere.
STEPS = (None, 2, NO_WINDOW)
#: n_fft and hop of which every kind of call is listed: walked over, and of odd length.
EVERY_KIND = [(2048, 512), (225, 50)]
#: Others, of which the usual kinds are: fused, walked over, of several SIMD groups, and neither.
USUAL_KINDS = [
    *((8, 2), (15, 5), (22, 5), (60, 20), (256, 64), (320, 80), (400, 100), (441, 147)),
    *((400, 160), (480, 120), (512, 128), (600, 150), (640, 160), (800, 200), (882, 294)),
    *((960, 240), (1000, 250), (1024, 256), (1200, 300), (1536, 384), (1920, 480), (2400, 600)),
    *((3072, 768), (4096, 1024), (5120, 1280), (6144, 1024), (7680, 1024), (8192, 2048)),
]

Variants = dict[tuple[str, Template], Launch]


def list_variants() -> Variants:
    """List what kernels are compiled for: a launch for each."""
    found: Variants = {}
    launches = [*itertools.starmap(_every_kind, EVERY_KIND)]
    launches += [*itertools.starmap(_usual_kinds, USUAL_KINDS)]
    for launch in itertools.chain(*launches):
        found.setdefault((launch.kernel, launch.template), launch)
    return found


def _first_of_each(launches: tuple[Launch, ...]) -> Iterator[Launch]:
    yield from {launch.kernel: launch for launch in reversed(launches)}.values()


def _params(
    n_fft: int, hop: int, is_complex: bool, onesided: bool
) -> tuple[StftParams, IstftParams]:
    kind = torch.complex64 if is_complex else torch.float32
    signal = torch.empty(2, 8 * n_fft + 4, dtype=kind)
    sizes = {"n_fft": n_fft, "hop_length": hop, "onesided": onesided}
    stft = stft_params(signal, None, **sizes, return_complex=True)
    spectrum = torch.empty(2, stft.bins, stft.frames, dtype=torch.complex64)
    return stft, istft_params(spectrum, None, **sizes, return_complex=is_complex)


def _usual_kinds(n_fft: int, hop: int) -> Iterator[Launch]:
    stft, istft = _params(n_fft, hop, False, True)
    analyses = describe.list_analyses(stft, False, False)
    yield from analyses
    for fastest, adjoint in (
        (False, None),
        (True, None),
        (False, Adjoint(n_fft // 2, "reflect", False)),
    ):
        yield from _first_of_each(describe.list_syntheses(istft, False, fastest, adjoint, cores=40))


def _every_kind(n_fft: int, hop: int) -> Iterator[Launch]:
    for is_complex, onesided in ((False, True), (False, False), (True, False)):
        stft, istft = _params(n_fft, hop, is_complex, onesided)
        yield from _analyses(stft, is_complex)
        yield from _syntheses(istft, onesided or is_complex)


def _analyses(params: StftParams, is_complex: bool) -> Iterator[Launch]:
    for complex_window, divisor, step, fastest in itertools.product(
        (False, True), (None, 0.5), STEPS, (False, True)
    ):
        if complex_window and (step == NO_WINDOW or not is_complex):
            continue  # what a complex window multiplies is complex
        kinds = (params, is_complex, complex_window)
        yield from describe.list_analyses(*kinds, divisor, None, step, fastest)[:1]
        yield framing.cut_frames(*kinds, framing.FREE_GROUP, step, divisor)


def _syntheses(params: IstftParams, one_half: bool) -> Iterator[Launch]:
    adjoints = (None, *(Adjoint(pad, "reflect", not one_half) for pad in (0, params.n_fft // 2)))
    for complex_window, adjoint, step, fastest in itertools.product(
        (False, True), adjoints, STEPS, (False, True)
    ):
        if complex_window and (step == NO_WINDOW or not params.return_complex):
            continue
        found = describe.list_syntheses(
            params, complex_window, fastest, adjoint, cores=40, step=step
        )
        yield from _first_of_each(found)
        yield framing.add_frames(params, complex_window, adjoint, framing.FREE_GROUP, step)
