"""stft and istft of MLX arrays, which all methods of :class:`.SpectralTransform` call.

The arguments are checked here; :mod:`.mlx_api.functions` computes the maps.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import FunctionType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.envelope import resolve_envelope
from ..core.linear import describe_analysis
from ..core.params import NOLA_THRESHOLD, IstftParams
from ..mlx.runtime import runtime
from ..settings import mlx_settings
from ..terminal import Shown, Words
from . import ops as mlx_maps
from .arguments import (
    Sizes,
    check_array,
    check_choices,
    read_integer,
    resolve_istft_call,
    resolve_stft_call,
)
from .caches import make_counted
from .functions import analyse, get_map
from .graphs import Graphs, plan_istft, plan_stft
from .windows import WindowLike, WindowName, is_window_name, make_window

if TYPE_CHECKING:
    from typing_extensions import Self

#: How many envelopes a transform keeps, of 2 n_fft values each.
ENVELOPES = 32
#: How many calls a transform remembers whether their envelope vanishes.
VERDICTS = 256
#: How far ``validate=True`` lets the two computations of an istft differ.
VALIDATION_TOLERANCE = 1e-5


class TransformCore(Shown):
    """Sizes, window, ``stft`` and ``istft``; its arguments are :class:`.SpectralTransform`'s."""

    def __init__(
        self,
        n_fft: int,
        hop_length: int | None = None,
        win_length: int | None = None,
        window_fn: WindowName = "hann",
        *,
        window: WindowLike = None,
        periodic: bool = True,
        center: bool = True,
        normalized: bool = False,
        istft_backend_policy: str | None = None,
        onesided: bool = True,
        pad_mode: str = "reflect",
        center_pad_mode: str | None = None,
        center_tail_pad: str = "symmetric",
        leading: str = "batch",
    ) -> None:
        self._sizes = Sizes.resolve(
            n_fft,
            hop_length,
            win_length,
            center=center,
            pad_mode=pad_mode if center_pad_mode is None else center_pad_mode,
            tail_pad=center_tail_pad,
            normalized=normalized,
            onesided=onesided,
        )
        policy = istft_backend_policy or "auto"
        check_choices(leading=leading, istft_backend_policy=policy)
        self.window_fn, self.periodic = window_fn, bool(periodic)
        self.leading, self.istft_backend_policy = leading, policy
        self._set_window(window)

    def _set_window(self, window: WindowLike) -> None:
        sizes = self._sizes
        if is_window_name(window):
            self.window_fn, window = window, None
        self._window = make_window(
            window, self.window_fn, sizes.win_length, sizes.n_fft, self.periodic
        )
        #: A window by name (``window_fn``) is a constant. Any other may be differentiated.
        self.has_window_by_name = window is None
        # This evaluates the window if possible: threads get no lazy arrays.
        self._has_values = not mlx_maps.is_traced(self._window)
        self._envelopes = make_counted("ola_envelope_cache", ENVELOPES)
        self._verdicts = make_counted("ola_safety_cache", VERDICTS)
        self._graphs = Graphs()

    def _list_shown(self) -> Mapping[str, object]:
        """Return sizes and window, and every other argument that is not as by default."""
        sizes = self._sizes
        by_name = {"window_fn": self.window_fn}
        given = {"window": Words(f"{self.window.size} values")}
        shown = {
            "n_fft": sizes.n_fft,
            "hop_length": sizes.hop_length,
            "win_length": sizes.win_length,
            **(by_name if self.has_window_by_name else given),
        }
        others = (
            ("periodic", self.periodic, True),
            ("center", sizes.center, True),
            ("normalized", sizes.normalized, False),
            ("istft_backend_policy", self.istft_backend_policy, "auto"),
            ("onesided", sizes.onesided, True),
            ("pad_mode", sizes.pad_mode, "reflect"),
            ("center_tail_pad", sizes.tail_pad, "symmetric"),
            ("leading", self.leading, "batch"),
        )
        return shown | {name: value for name, value, default in others if value != default}

    @property
    def window(self) -> Any:
        """The window, of ``n_fft`` values.

        After its window is set, a transform behaves as if it had been made with that window.
        Nothing that was derived from the last window is used again, not even in functions that the
        transform has compiled. Streams keep the window that they began with, and so do functions
        that the program itself has compiled. None sets the window of ``window_fn``.

        Raises:
            ValueError: the window's shape does not fit, or it is complex.
        """
        return self._window

    @window.setter
    def window(self, window: WindowLike) -> None:
        self._set_window(window)

    def set_window(self, window: WindowLike) -> None:
        """Set the window, as ``transform.window = window`` does.

        Args:
            window: an MLX array, a name, or None for the window of ``window_fn``.
        """
        self._set_window(window)

    @property
    def n_fft(self) -> int:
        """Samples of a frame, and points of its Fourier transform."""
        return self._sizes.n_fft

    @property
    def hop_length(self) -> int:
        """Samples from one frame to the next."""
        return self._sizes.hop_length

    @property
    def win_length(self) -> int:
        """Samples of the window before zeros extend it to ``n_fft``."""
        return self._sizes.win_length

    @property
    def center(self) -> bool:
        """Whether frame ``t`` is centred at sample ``t * hop_length``."""
        return self._sizes.center

    @property
    def center_pad_mode(self) -> str:
        """What lies beyond the ends of a centred signal."""
        return self._sizes.pad_mode

    @property
    def center_tail_pad(self) -> str:
        """How far the padding at the end reaches."""
        return self._sizes.tail_pad

    @property
    def normalized(self) -> bool:
        """Whether spectra are multiplied by ``n_fft ** -0.5``."""
        return self._sizes.normalized

    @property
    def onesided(self) -> bool:
        """Whether spectra of real signals have ``n_fft // 2 + 1`` bins."""
        return self._sizes.onesided

    def with_window(self, window: WindowLike) -> Self:
        """Return the same transform with another window, in which ``mx.grad`` may differentiate it.

        Args:
            window: real MLX array of ``win_length`` or ``n_fft`` values; or a name.

        Raises:
            ValueError: the window's shape does not fit.
        """
        other = object.__new__(type(self))
        other.__setstate__({**self._arguments(), "window": window})
        return other

    def _arguments(self) -> dict[str, Any]:
        """Return all arguments that the transform was made with, except its window."""
        names = ("_sizes", "leading", "window_fn", "periodic", "istft_backend_policy")
        return {name: getattr(self, name) for name in names}

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies and pickles are made of, without compiled or computed results."""
        window = None if self.has_window_by_name else np.array(self.window)
        return {**self._arguments(), "window": window}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update((name, value) for name, value in state.items() if name != "window")
        self._set_window(state["window"])

    def stft(self, x: Any, output_layout: str = "bfn") -> Any:
        """Compute the spectrum of a signal.

        Args:
            x: shape [T] or [B, T] (``leading="any"``: [..., T]); real or complex64.
            output_layout: ``"bfn"``: (batch, bins, frames), or ``"bnf"``: (batch, frames, bins).

        Returns:
            complex64; [T] counts as a batch of one.

        Raises:
            ValueError: dimensions, dtype or layout do not fit, or the signal is too short.
        """
        mx = runtime().mx
        check_choices(output_layout=output_layout)
        check_array("stft", x)
        call = ("stft", x.shape, x.dtype, output_layout)
        if (found := self._graphs.compute(call, x)) is not None:
            return found
        rows, lead = self._take_signal_rows(x, "stft")
        params = resolve_stft_call(self._sizes, rows.shape[1], rows.dtype == mx.complex64)
        is_fixed = self.has_window_by_name
        if self._has_values:
            plan = partial(plan_stft, params, output_layout, lead, self._window, x, is_fixed)
            self._graphs.note(call, params, rows.shape[0], plan, self._window)
        return analyse(params, rows, self.window, lead, output_layout, is_fixed)

    def _take_signal_rows(self, x: Any, name: str) -> tuple[Any, tuple[int, ...]]:
        """Return a signal as (rows, samples), and the leading dimensions of its spectrum."""
        mx = runtime().mx
        check_array(name, x)
        if x.ndim == 0 or (self.leading == "batch" and x.ndim > 2):
            raise ValueError(
                f"{name} expects 1D or 2D input, [T] or [B, T]; got shape {x.shape} "
                "(leading='any' takes more dimensions)"
            )
        if x.dtype == mx.float64:
            raise ValueError(f"{name} computes in single precision; got float64")
        lead = tuple(x.shape[:-1]) or ((1,) if self.leading == "batch" else ())
        rows = mx.reshape(x, (math.prod(lead), x.shape[-1]))
        return rows.astype(mx.complex64 if x.dtype == mx.complex64 else mx.float32), lead

    def istft(
        self,
        z: Any,
        length: int | None = None,
        validate: bool = False,
        *,
        torch_like: bool = False,
        allow_fused: bool = True,
        safety: str = "auto",
        long_mode_strategy: str = "native",
        backend_policy: str | None = None,
        input_layout: str = "bfn",
        return_complex: bool = False,
    ) -> Any:
        """Compute the signal of a spectrum.

        Where the overlap-added squared window is below torch's NOLA threshold, samples are zero,
        and a RuntimeWarning says so, once for a transform's window and the sizes of the call.

        Args:
            z: shape [F, N] or [B, F, N] (``"bfn"``), [N, F] or [B, N, F] (``"bnf"``), complex64,
                with the bins of a onesided or a two-sided spectrum.
            length: samples of the result; zeros follow where frames end earlier.
            validate: compute with and without fusing, and compare.
            torch_like: where the envelope vanishes in the result raise, as torch does.
            allow_fused: if False, divide by the envelope in an operation of its own.
            safety: ``"off"`` asks for neither the exception nor the warning.
            long_mode_strategy: has no effect; mlx-spectro's values are accepted.
            backend_policy: replaces the transform's ``istft_backend_policy`` in this call.
            input_layout: ``"bfn"`` or ``"bnf"``.
            return_complex: the signal of a two-sided spectrum is complex.

        Returns:
            float32 or complex64, shape [B, T]; [T] for a spectrum of two dimensions.

        Raises:
            ValueError: dimensions, layout or options do not fit.
            RuntimeError: ``torch_like``, ``validate`` or policy ``"metal"`` is not satisfied.
        """
        policy = backend_policy or self.istft_backend_policy
        check_choices(safety=safety, long_mode_strategy=long_mode_strategy, backend_policy=policy)
        check_choices(input_layout=input_layout)
        if policy != "auto" and long_mode_strategy != "native":
            raise ValueError(
                "When backend_policy is not 'auto', long_mode_strategy must be 'native'."
            )
        length = None if length is None else read_integer("length", length)
        check_array("istft", z)
        options = (length, input_layout, bool(return_complex), bool(torch_like), safety == "off")
        call = ("istft", z.shape, z.dtype, *options)
        is_usual = allow_fused and not validate and policy != "metal"
        if is_usual and (found := self._graphs.compute(call, z)) is not None:
            return found
        rows, lead = self._take_spectrum_rows(z, input_layout, return_complex)
        params = resolve_istft_call(self._sizes, rows.shape[1], length, return_complex)
        if safety != "off":
            self._check_envelope(params, must_raise=torch_like)
        if policy == "metal" and mlx_maps.kernels() is None:
            raise RuntimeError("backend_policy='metal' needs a GPU that runs Metal kernels")
        fused = allow_fused and mlx_settings().fuse_norm
        if is_usual and fused and self.has_window_by_name:
            find_rows = partial(self._find_inverse_rows, params)
            plan = partial(plan_istft, params, input_layout, lead, self._window, z, find_rows)
            self._graphs.note(call, params, rows.shape[0], plan, self._window)
        signal = self._synthesise(params, rows, fused=fused)
        if validate:
            self._compare(signal, self._synthesise(params, rows, fused=not fused))
        return runtime().mx.reshape(signal, (*lead, params.output_length))

    def _take_spectrum_rows(
        self, z: Any, layout: str, return_complex: bool
    ) -> tuple[Any, tuple[int, ...]]:
        """Return a spectrum as (rows, frames, bins that are read), and its leading dimensions."""
        mx = runtime().mx
        if z.ndim < 2 or (self.leading == "batch" and z.ndim > 3):
            raise ValueError(
                f"istft expects a 2D or 3D spectrum; got shape {z.shape} "
                "(leading='any' takes more dimensions)"
            )
        if z.dtype != mx.complex64:
            kind = str(z.dtype).removeprefix("mlx.core.")
            raise ValueError(f"istft expects a spectrum of complex64; got {kind}")
        half, full = self.n_fft // 2 + 1, self.n_fft
        read = full if return_complex else half
        bins = z.shape[-2 if layout == "bfn" else -1]
        if bins not in ((full,) if return_complex else (half, full)):
            wanted = f"{full}" if return_complex else f"{half} (onesided) or {full} (two-sided)"
            other = "bnf" if layout == "bfn" else "bfn"
            raise ValueError(
                f"istft of input_layout={layout!r} expects {wanted} bins, got shape {z.shape}; "
                f"is the layout {other!r}?"
            )
        lead = tuple(z.shape[:-2])
        rows = mx.reshape(z, (math.prod(lead), *z.shape[-2:]))
        if layout == "bfn":
            rows = mx.swapaxes(rows, 1, 2)
        return rows[..., :read], lead

    def _synthesise(self, params: IstftParams, rows: Any, *, fused: bool) -> Any:
        mx = runtime().mx
        if rows.shape[0] == 0:
            kind = mx.complex64 if params.return_complex else mx.float32
            return mx.zeros((0, params.output_length), kind)
        envelope = self._find_inverse_rows(params)
        if fused and self.has_window_by_name:
            return get_map("inverse", params)(rows, self.window, envelope)
        added = get_map("adjoint", describe_analysis(params))(rows, self.window)
        return mlx_maps.normalise(params, added, envelope)

    def _find_inverse_rows(self, params: IstftParams) -> Any:
        """Compute the distinct rows of the inverse envelope in MLX; keep a constant window's."""
        if not self.has_window_by_name:
            return mlx_maps.trace_inverse_rows(params, self.window)
        few = min(params.frames, params.overlap)
        given = (self.window, self.hop_length, few, params.scale)
        return self._envelopes.get(given[2:], lambda: mlx_maps.compute_inverse_rows(*given))

    def _check_envelope(self, params: IstftParams, *, must_raise: bool) -> None:
        """Raise where the envelope vanishes within the result, or warn of it once.

        A window that is being traced has no values, so nothing is known of its envelope.
        """
        if not self._has_values:
            if must_raise:
                raise ValueError("torch_like reads the window's values; this one is being traced")
            return
        is_first = False

        def compute() -> bool:
            nonlocal is_first
            is_first = True
            whole = replace(params, win_length=params.n_fft)  # this window is padded already
            return resolve_envelope(np.asarray(self.window), whole).vanishes(params)

        if not self._verdicts.get(params, compute):
            return
        message = (
            "istft: the window overlap-add envelope is degenerate: below "
            f"{NOLA_THRESHOLD} somewhere in the result, where torch.istft raises"
        )
        if must_raise:
            raise RuntimeError(f"{message}; take another window or hop, or safety='off'")
        if is_first:
            warnings.warn(
                f"{message}. Its samples are zero there; safety='off' asks for no warning",
                RuntimeWarning,
                stacklevel=3,
            )

    def _compare(self, signal: Any, other: Any) -> None:
        mx = runtime().mx
        if mlx_maps.is_traced(signal, other):
            raise ValueError("validate=True compares values; these are being traced")
        difference = float(mx.max(mx.abs(signal - other))) if signal.size else 0.0
        if difference > VALIDATION_TOLERANCE * max(1.0, float(mx.max(mx.abs(other)))):
            raise RuntimeError(f"istft mismatch: max diff {difference:.3e}")


# Python names a function by this where it is called by wrong keywords; programs know one class.
for _each in vars(TransformCore).values():
    if isinstance(_each, FunctionType):
        _each.__qualname__ = f"SpectralTransform.{_each.__name__}"
