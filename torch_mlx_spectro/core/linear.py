"""Which analysis a derivative belongs to, and the overlap-add that is its adjoint."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .params import IstftParams, StftParams

#: Terms that are summed one by one, before their sums are.
SUM_BRANCHES = 32


def own_conjugates(n_fft: int) -> list[int]:
    """The bins of real frames that are their own conjugates: DC and, for even n_fft, Nyquist."""
    return [0] if n_fft % 2 or n_fft < 2 else [0, n_fft // 2]


@dataclass(frozen=True)
class Form:
    """The analysis whose derivatives are meant.

    Attributes:
        params: of the analysis, of a batch.
        edge: factor of the bins that are their own conjugates (onesided spectra only).
        complex_signal, complex_window: the kinds of the two; a real one has real gradients.
        nola: the istft that this is the adjoint of, while its envelope is still to be checked.
        backend: that computes; None for the one of the tensors' device.
    """

    params: StftParams
    complex_signal: bool
    complex_window: bool
    edge: float = 1.0
    nola: IstftParams | None = None
    backend: str | None = None

    def of_rows(self, rows: int) -> Form:
        """The same analysis of as many rows."""
        return replace(self, params=replace(self.params, rows=rows))

    @property
    def both_halves(self) -> bool:
        """Real frames whose spectrum keeps its redundant half: cotangents need not be symmetric."""
        return not (self.params.complex_fft or self.params.onesided)

    @property
    def inverse_edge(self) -> float:
        """Factor of DC and Nyquist before an inverse real transform, which counts others twice."""
        return 2.0 * self.edge if self.params.onesided else 1.0

    @property
    def inverse_scale(self) -> float:
        """What an inverse transform (it divides by n_fft) is multiplied by to be the adjoint."""
        twins = 0.5 if self.params.onesided else 1.0
        return self.params.scale * self.params.n_fft * twins


@dataclass(frozen=True)
class Inversion:
    """An istft of a batch, its envelope included.

    Attributes:
        backend: that computes; None for the one of the tensors' device.
    """

    params: IstftParams
    backend: str | None = None

    def of_rows(self, rows: int) -> Inversion:
        """The same istft of as many rows."""
        return replace(self, params=replace(self.params, rows=rows))


def bins_that_are_read(params: IstftParams) -> IstftParams:
    """The same call onesided, if real: of two-sided spectra torch does not read the other half."""
    if params.onesided or params.return_complex:
        return params
    return replace(params, onesided=True, bins=params.n_fft // 2 + 1)


def analysis_of(params: IstftParams) -> Form:
    """The analysis that a onesided or complex istft is the adjoint of, its envelope left out.

    ``irfft`` is twice the real part of the sum over the bins without DC and Nyquist, over n_fft.
    """
    analysis = StftParams(
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
    return Form(analysis, params.return_complex, False, edge=0.5 if real else 1.0)


def synthesis_of(form: Form, start: int, kept: int) -> IstftParams:
    """The overlap-add of the form's frames, from padded sample ``start`` on."""
    params = form.params
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
