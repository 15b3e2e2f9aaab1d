"""What a backend is: an object that computes the two linear maps, and what their derivatives need.

A new backend is a subclass of :class:`Backend` in a folder of its own and a line in
:mod:`.registry`. If it has a kernel language of its own, it subclasses
:class:`~torch_mlx_spectro.backends.device.backend.KernelBackend`, which builds all maps on a
launcher. Any other may begin from :class:`~torch_mlx_spectro.backends.cpu.backend.TorchBlocks`,
which has all maps in torch's own operations.
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
#: A function of an input and a window, for calls like one that was computed before.
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
            device_type: the type of device that its tensors are on; None for any that it takes.
        """

    def explain_sure_absence(self) -> str | None:
        """Why this backend is surely not here, as far as that is known without loading a library.

        What is not known here, :meth:`explain_absence` finds out with the first call.
        """
        return self.explain_absence()

    @abstractmethod
    def name_kernel(self, call: Call) -> str:
        """Name what computes a call, for reports."""

    def explain_refusal(self, call: Call) -> str | None:
        """Why an available backend cannot compute a call; None where it can."""
        return None

    @abstractmethod
    def analyse(
        self, params: StftParams, signal: torch.Tensor, window: Optional, edge: float = 1.0
    ) -> torch.Tensor:
        """Compute the spectrum of a signal, complex64, with native's strides.

        Args:
            edge: factor of DC and Nyquist in a onesided spectrum.
        """

    @abstractmethod
    def synthesise(
        self, params: IstftParams, spectrum: torch.Tensor, window: Optional
    ) -> torch.Tensor:
        """Compute the signal of a spectrum, shape (rows, output length), contiguous.

        Raises:
            UnresolvedArguments: the envelope is below the NOLA threshold, so torch raises.
        """

    @abstractmethod
    def adjoint(self, analysis: Analysis, spectrum: torch.Tensor, window: Optional) -> torch.Tensor:
        """Compute the adjoint of an analysis in its signal, shape (rows, samples), contiguous.

        The frames are multiplied by the window's conjugate. The result is complex if the transform
        is (``analysis.params.complex_fft``), even for a real signal.
        """

    @abstractmethod
    def differentiate_window(
        self, analysis: Analysis, signal: torch.Tensor, spectrum: torch.Tensor
    ) -> torch.Tensor:
        """Compute the adjoint of an analysis in its window, without the scale, shape (n_fft,).

        That is the sum over all frames of the frame's conjugate times the inverse transform of its
        cotangent. The sum must be as accurate as its terms.
        """

    @abstractmethod
    def adjoint_synthesis(
        self, params: IstftParams, cotangent: torch.Tensor, window: Optional
    ) -> torch.Tensor:
        """Compute the adjoint of a synthesis in its spectrum, contiguous, complex64.

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
            Shape (rows, bins, frames), or (bins, frames) for a 1-D signal. With
            ``return_complex=False`` it is viewed as real, with a last dimension of 2.
        """
        return shape_result(params, self.analyse(params, with_rows(params, signal), window))

    def istft(self, params: IstftParams, spectrum: torch.Tensor, window: Optional) -> torch.Tensor:
        """Compute a resolved ``torch.istft``.

        Args:
            spectrum: shape (bins, frames) or (rows, bins, frames).

        Returns:
            Shape (rows, output length) or (output length,).

        Raises:
            UnresolvedArguments: see :meth:`synthesise`.
        """
        return shape_result(params, self.synthesise(params, with_rows(params, spectrum), window))

    def prepare(self, call: Call, result: torch.Tensor) -> Prepared | None:
        """Prepare a function for calls like one that was just computed; None if there is none.

        It is a function of input and window, with everything else bound. It returns the tensor that
        native's result is a view of (:func:`.native.strides.natives_view`). It may be called only
        for calls that agree with this one in shapes, strides, dtypes, device, conjugate and
        negative bits, ``data_ptr() & 7``, in whether there is a window, and in all other arguments.
        Nothing may be differentiated, and nothing in torch's state (modes, transforms) may want to
        see the computation. The tensors and their values may be others.

        The function raises UnresolvedArguments where the envelope vanishes. It raises KernelRefused
        where the device rejects the launch, or where the host would have to wait for the device
        and must not.

        Args:
            result: the call's result, read for its layout.
        """
        return None

    def prepare_gradient(
        self,
        params: StftParams | IstftParams,
        cotangent: torch.Tensor,
        window: Optional,
        gradient: torch.Tensor,
    ) -> Prepared | None:
        """Prepare a function for gradients like one that was just computed; None if there is none.

        It is a function of a cotangent and a window, and returns the gradient in the input. The
        conditions of :meth:`prepare` hold for it, with the cotangent in the input's place.

        Args:
            params: those of the call: an stft, or an istft with a real window.
            cotangent: the cotangent of the tensor that native's result is a view of.
            window: real, or None.
            gradient: the gradient in the input, read for its layout.
        """
        return None

    def make_timer(self, clock: Callable[[], float] = time.perf_counter) -> Timer:
        """Make a timer for calls on this backend's devices, native's calls included.

        Args:
            clock: the host's, in seconds.
        """
        return HostTimer(clock, lambda: None)
