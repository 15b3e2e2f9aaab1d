"""The rules of derivatives: which map is whose gradient, and of which analysis or overlap-add.

Analysis ``A(x, w)``, its adjoint and its correlation (:mod:`.autograd.linear_maps` defines them)
are each linear in both of their arguments, and each is what the derivatives of the other two are
made of. With the cotangent written with a bar,

=====================  ======================  =======================
map                    gradient of the first   gradient of the second
=====================  ======================  =======================
analysis(x, w)         adjoint(z-bar, w)       correlation(x, z-bar)
adjoint(z, w)          analysis(y-bar, w)      correlation(y-bar, z)
correlation(x, z)      adjoint(z, w-bar)       analysis(x, w-bar)
=====================  ======================  =======================

and a tangent is the map itself at the tangent of either argument. So nothing else is needed for
second derivatives, for forward mode, or for forward over reverse. :data:`RULES` is this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from .params import IstftParams, StftParams

#: Terms of a long sum that are added one by one; then the sums of as many are added.
SUM_BRANCHES = 32


@dataclass(frozen=True)
class Gradient:
    """The gradient of a map in one argument: another map, of the cotangent and the other argument.

    Attributes:
        name: of that map in :data:`RULES`.
        swapped: the map takes the other argument first and the cotangent second.
    """

    name: str
    swapped: bool = False


@dataclass(frozen=True)
class Rule:
    """The derivatives of a map of two arguments.

    Attributes:
        first: the gradient in the first argument, in which the map is linear.
        second: the gradient in the second argument, in which the map is linear, too; None where
            the second argument is a constant.
        has_rows: the first argument and the result have rows, and all rows share the second
            argument. So vmap makes the examples of the first argument rows of one call.
    """

    first: Gradient
    second: Gradient | None
    has_rows: bool = True


#: By the name of a map, its derivatives. The last two are an istft, its envelope included, by a
#: window that is constant, and the adjoint of that istft.
RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "analysis": Rule(Gradient("adjoint"), Gradient("correlation", swapped=True)),
        "adjoint": Rule(Gradient("analysis"), Gradient("correlation")),
        "correlation": Rule(
            Gradient("adjoint", swapped=True), Gradient("analysis", swapped=True), has_rows=False
        ),
        "inverse": Rule(Gradient("inverse_adjoint"), None),
        "inverse_adjoint": Rule(Gradient("inverse"), None),
    }
)


def own_conjugates(n_fft: int) -> list[int]:
    """List the bins of real frames that are their own conjugates: DC, for even n_fft Nyquist."""
    return [0] if n_fft % 2 or n_fft < 2 else [0, n_fft // 2]


@dataclass(frozen=True)
class Analysis:
    """An analysis: its sizes, and what its derivatives depend on besides.

    Attributes:
        params: sizes, of a batch.
        complex_signal, complex_window: whether the two are complex; real ones have real gradients.
        edge: factor of the bins that are their own conjugates (onesided spectra only).
    """

    params: StftParams
    complex_signal: bool
    complex_window: bool
    edge: float = 1.0

    def with_rows(self, rows: int) -> Analysis:
        """Return the same analysis for so many rows."""
        return replace(self, params=replace(self.params, rows=rows))

    @property
    def both_halves(self) -> bool:
        """Whether frames are real and both halves are kept: cotangents need not be symmetric."""
        return not (self.params.complex_fft or self.params.onesided)

    @property
    def inverse_edge(self) -> float:
        """Factor of DC and Nyquist before an inverse real transform, which counts others twice."""
        return 2.0 * self.edge if self.params.onesided else 1.0

    @property
    def inverse_scale(self) -> float:
        """Factor that makes an inverse transform, which divides by n_fft, the adjoint."""
        return self.plain_scale * self.params.n_fft

    @property
    def plain_scale(self) -> float:
        """Factor that makes an inverse transform without a division the adjoint."""
        return self.params.scale * (0.5 if self.params.onesided else 1.0)


def bins_that_are_read(params: IstftParams) -> IstftParams:
    """Return the same call onesided, if real, since torch ignores the other half of the bins."""
    if params.onesided or params.return_complex:
        return params
    return replace(params, onesided=True, bins=params.n_fft // 2 + 1)


def describe_analysis(params: IstftParams) -> Analysis:
    """Describe the analysis whose adjoint a onesided or complex istft is, but for its envelope.

    ``irfft`` is twice the real part of the sum over the bins without DC and Nyquist, over n_fft.
    """
    sizes = StftParams(
        n_fft=params.n_fft,
        hop_length=params.hop_length,
        win_length=params.win_length,
        padded=params.start > 0,
        padding=params.start,
        pad_mode="constant",
        scale=(2.0 if params.onesided else 1.0) / params.n_fft,
        onesided=params.onesided,
        complex_fft=params.return_complex,
        return_complex=True,
        batched=True,
        rows=params.rows,
        samples=params.kept,
        frames=params.frames,
        bins=params.bins,
    )
    real = params.onesided
    return Analysis(sizes, params.return_complex, False, edge=0.5 if real else 1.0)


def describe_synthesis(analysis: Analysis, start: int, kept: int) -> IstftParams:
    """Describe the overlap-add of the analysis' frames, from padded sample ``start`` on."""
    params = analysis.params
    return IstftParams(
        n_fft=params.n_fft,
        hop_length=params.hop_length,
        win_length=params.win_length,
        scale=1.0,
        onesided=params.onesided,
        return_complex=params.complex_fft,
        batched=True,
        rows=params.rows,
        frames=params.frames,
        bins=params.bins,
        covered=(params.frames - 1) * params.hop_length + params.n_fft,
        start=start,
        kept=kept,
        zero_tail=0,
    )
