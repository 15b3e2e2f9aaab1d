"""What a backend is: an object that computes the two linear maps, and what their derivatives need.

A new one is a subclass of :class:`Backend` in a folder of its own and a line in :mod:`.registry`.
With a kernel language of its own it subclasses
:class:`~torch_mlx_spectro.backends.device.backend.KernelBackend`, which has all maps over a
launcher; :class:`~torch_mlx_spectro.backends.cpu.backend.TorchBlocks` has them in torch's own
operations, and is what to begin from.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch

from ..calls.operation import Call
from ..calls.timer import HostTimer, Timer
from ..core.linear import Analysis
from ..core.params import IstftParams, StftParams
from ..native.strides import shape_result, with_rows

Optional = torch.Tensor | None
#: Computes calls like one that was computed before, of an input and a window.
Prepared = Callable[[torch.Tensor, Optional], torch.Tensor]


class Backend(ABC):
    """Computes resolved calls on tensors of some devices.

    All maps take batches: signals of shape (rows, samples), spectra of shape (rows, bins, frames),
    float32 or complex64 and of any strides, and a window of shape (win_length,) or None. A backend
    that takes doubles is given float64 and complex128, too, and windows of another precision than
    the tensor's: the result has the wider one. Results are complete when torch's next operation
    reads them. The values of a window are read in every call, since nothing tells whether a program
    has changed them.
    """

    @abstractmethod
    def explain_absence(self, device_type: str | None = None) -> str | None:
        """Why this backend cannot be used on this machine; None where it can.

        Args:
            device_type: of the tensors that it is to take; None for any that it takes.
        """

    @abstractmethod
    def name_kernel(self, call: Call) -> str:
        """What computes a call, for reports."""

    def explain_refusal(self, call: Call) -> str | None:
        """Why a call cannot be computed here although the backend is here; None where it can."""
        return None

    @abstractmethod
    def analyse(
        self, params: StftParams, signal: torch.Tensor, window: Optional, edge: float = 1.0
    ) -> torch.Tensor:
        """The spectrum of a signal, complex64, with native's strides.

        Args:
            edge: factor of the bins that are their own conjugates, of a onesided spectrum.
        """

    @abstractmethod
    def synthesise(
        self, params: IstftParams, spectrum: torch.Tensor, window: Optional
    ) -> torch.Tensor:
        """The signal of a spectrum, shape (rows, output length), contiguous.

        Raises:
            UnresolvedArguments: the envelope is below the NOLA threshold, for which torch raises.
        """

    @abstractmethod
    def adjoint(self, analysis: Analysis, spectrum: torch.Tensor, window: Optional) -> torch.Tensor:
        """The adjoint of an analysis in its signal, shape (rows, samples), contiguous.

        Of frames windowed by the window's conjugate; complex where the transform is
        (``analysis.params.complex_fft``), although the signal may be real.
        """

    @abstractmethod
    def differentiate_window(
        self, analysis: Analysis, signal: torch.Tensor, spectrum: torch.Tensor
    ) -> torch.Tensor:
        """The adjoint of an analysis in its window, but for its scale, shape (n_fft,).

        The sum over all frames of a frame's conjugate times the inverse transform of its cotangent,
        of as many digits as its terms have.
        """

    @abstractmethod
    def adjoint_synthesis(
        self, params: IstftParams, cotangent: torch.Tensor, window: Optional
    ) -> torch.Tensor:
        """The adjoint of a synthesis in its spectrum, contiguous, complex64.

        Args:
            cotangent: shape (rows, output length).
        """

    @abstractmethod
    def check_envelope(self, params: IstftParams, window: Optional) -> None:
        """Raise UnresolvedArguments where the envelope of a call vanishes."""

    def stft(self, params: StftParams, signal: torch.Tensor, window: Optional) -> torch.Tensor:
        """Compute a resolved ``torch.stft``.

        Args:
            signal: shape (samples,) or (rows, samples).

        Returns:
            Shape (rows, bins, frames); without rows for a 1-D signal; viewed as real with a last
            dimension of 2 for ``return_complex=False``.
        """
        return shape_result(params, self.analyse(params, with_rows(params, signal), window))

    def istft(self, params: IstftParams, spectrum: torch.Tensor, window: Optional) -> torch.Tensor:
        """Compute a resolved ``torch.istft``.

        Args:
            spectrum: shape (bins, frames) or (rows, bins, frames).

        Returns:
            Shape (rows, output length) or (output length,).

        Raises:
            UnresolvedArguments: as of :meth:`synthesise`.
        """
        return shape_result(params, self.synthesise(params, with_rows(params, spectrum), window))

    def prepare(self, call: Call, result: torch.Tensor) -> Prepared | None:
        """What computes calls like one that was just computed, with everything bound.

        It is a function of input and window, and returns what native's result is a view of
        (:func:`.native.strides.natives_view`). None where there is nothing to prepare. Whoever
        calls it sees to it that shapes, strides, dtypes, device, the bits of conjugation and
        negation, ``data_ptr() & 7``, whether there is a window, and all other arguments are those
        of the call; that nothing is differentiated; and that nothing in torch's state asks to see
        what is computed. The tensors and their values differ.

        The function raises UnresolvedArguments where the envelope of a window vanishes, and
        KernelRefused where the device does not take the launch, or where the host would have to
        wait for the device and must not.

        Args:
            result: of the call, for its layout.
        """
        return None

    def prepare_gradient(
        self,
        params: StftParams | IstftParams,
        cotangent: torch.Tensor,
        window: Optional,
        gradient: torch.Tensor,
    ) -> Prepared | None:
        """What computes gradients in the input, like one that was just computed.

        It is a function of a cotangent and a window. What :meth:`prepare` says holds here, too, of
        cotangents in the input's place.

        Args:
            params: of the call; an istft by a real window, or an stft.
            cotangent: of what native's result is a view of.
            window: real, or None.
            gradient: in the input, for its layout.
        """
        return None

    def make_timer(self, clock: Callable[[], float] = time.perf_counter) -> Timer:
        """A timer of calls on this backend's devices, native's calls included.

        Args:
            clock: the host's, in seconds.
        """
        return HostTimer(clock, lambda: None)
