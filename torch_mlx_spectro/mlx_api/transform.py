"""``SpectralTransform``: mlx-spectro's names, for MLX arrays, without torch.

All methods call ``stft`` and ``istft`` of :class:`.TransformCore`. Methods with "compiled" in their
names run them in ``mx.compile``. Those with "differentiable" in their names only call them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import wraps
from inspect import signature
from typing import Any

from ..mlx.launcher import device_name
from ..mlx.runtime import runtime
from ..store.caches import Cache
from . import ops as mlx_maps
from .arguments import check_array, check_choices, read_integer, resolve_fft_params
from .caches import make_counted, transforms
from .core import TransformCore
from .functions import is_on_host
from .streaming import IstftStream, StftStream
from .windows import WindowLike, is_window_name

__all__ = ["SpectralTransform", "get_transform_mlx", "resolve_fft_params", "spec_mlx_device_key"]

#: How many compiled functions a transform keeps, one for each layout, length and set of options.
COMPILED = 32
#: Samples of a signal that warms a transform up, where none are named.
WARM_UP_SAMPLES = 4096

Function = Callable[..., Any]


class SpectralTransform(TransformCore):
    """Short-time Fourier transform of MLX arrays and its inverse.

    Every method works inside ``mx.grad``, ``mx.vmap`` and ``mx.compile``. Arrays on the host that
    have values are computed at once and in parallel, everything else lazily.

    Args:
        n_fft: size of a frame's transform.
        hop_length: samples from frame to frame; ``n_fft // 4`` where None.
        win_length: size of the window, zero-padded to ``n_fft``.
        window_fn: name of the window, or name and parameters: ``"hann"``, ``("kaiser", 14.0)``.
        window: the window itself, of ``win_length`` or ``n_fft`` values; may be differentiated. A
            name takes the place of ``window_fn``.
        periodic: windows by name are periodic, as Fourier transforms want them; else symmetric.
        center: frame ``t`` is centred at sample ``t * hop_length``.
        normalized: multiply spectra by ``n_fft ** -0.5``.
        istft_backend_policy: ``"metal"`` makes istft raise where no kernel computes it. The other
            policies of mlx-spectro are accepted and have no effect.
        onesided: bins ``0`` to ``n_fft // 2`` of real signals; complex signals always have all.
        pad_mode: what lies beyond the ends of a centred signal: ``"reflect"``, ``"constant"``,
            ``"replicate"`` or ``"circular"``.
        center_pad_mode: another name of ``pad_mode``, mlx-spectro's.
        center_tail_pad: ``"symmetric"``, or ``"minimal"``: ``ceil(samples / hop_length)`` frames.
        leading: ``"batch"``: signals are [T] or [B, T], spectra have three dimensions, as
            in mlx-spectro. ``"any"``: signals are [..., T], spectra [..., bins, frames].

    Raises:
        ValueError: sizes, names or modes that do not fit.
    """

    def _set_window(self, window: WindowLike) -> None:
        super()._set_window(window)
        self._compiled_stft: Cache[Hashable, Function] = make_counted(
            "compiled_stft_cache", COMPILED
        )
        self._compiled_istft: Cache[Hashable, Function] = make_counted(
            "compiled_istft_cache", COMPILED
        )

    def differentiable_stft(self, x: Any) -> Any:
        """Compute :meth:`stft` in layout ``"bnf"``; every other method is differentiable, too.

        Args:
            x: the signal, shape [T] or [B, T].

        Returns:
            complex64, shape [B, frames, bins].
        """
        return self.stft(x, output_layout="bnf")

    def differentiable_istft(self, z: Any, *, length: int | None = None) -> Any:
        """Compute :meth:`istft` of layout ``"bnf"``; every other method is differentiable, too.

        Args:
            z: the spectrum, shape [N, F] or [B, N, F].
            length: samples of the result.

        Returns:
            float32, shape [length] or [B, length].
        """
        return self.istft(z, length=length, input_layout="bnf")

    def get_compiled_stft(self, *, output_layout: str = "bfn") -> Function:
        """Return ``stft`` for a loop of steady shapes, in ``mx.compile`` where that is faster.

        Args:
            output_layout: as of :meth:`stft`.

        Returns:
            A function of a signal, shape [T] or [B, T]; the same one for the same layout.
        """
        check_choices(output_layout=output_layout)
        return self._compiled_stft.get(
            output_layout,
            lambda: _compile_steady(
                self,
                lambda x: self.stft(x, output_layout=output_layout),
            ),
        )

    def get_compiled_istft(
        self, *, length: int | None = None, input_layout: str = "bfn", **options: Any
    ) -> Function:
        """Return ``istft`` for a loop of steady shapes; ``options`` are those of :meth:`istft`.

        Args:
            length: samples of the result.
            input_layout: as of :meth:`istft`.
            options: other arguments of :meth:`istft`.

        Returns:
            A function of a spectrum; the same one for the same arguments.

        Raises:
            TypeError: :meth:`istft` has no such option.
        """
        check_choices(input_layout=input_layout)
        _check_options("get_compiled_istft", options)
        return self._compiled_istft.get(
            (length, input_layout, *sorted(options.items())),
            lambda: _compile_steady(
                self,
                lambda z: self.istft(z, length, input_layout=input_layout, **options),
            ),
        )

    def stft_compiled(self, x: Any, *, output_layout: str = "bfn") -> Any:
        """Compute :meth:`stft`, in its shapes, by the function of :meth:`get_compiled_stft`."""
        return self.get_compiled_stft(output_layout=output_layout)(x)

    def istft_compiled(self, z: Any, *, length: int | None = None, **options: Any) -> Any:
        """Compute :meth:`istft`, in its shapes, by the function of :meth:`get_compiled_istft`."""
        return self.get_compiled_istft(length=length, **options)(z)

    @staticmethod
    def compile(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        """Compile a function of the program by ``mx.compile``, with our kernels in its graph.

        Where ``mx.compile`` or ``mx.vmap`` traces a function, transforms use MLX's own operations,
        since MLX does not vectorise kernels. In the function that this returns, transforms use
        kernels on a GPU. So it must not call ``mx.vmap`` or ``mx.jvp`` (see
        :meth:`without_kernels`).

        Args:
            function: may call any methods of any transforms, and ``mx.grad``.
            options: passed to ``mx.compile``.

        Returns:
            The compiled function.
        """
        compiled = runtime().mx.compile(function, **options)

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with mlx_maps.kernels_where("traces"):
                return compiled(*args, **kwargs)

        return call

    @staticmethod
    def without_kernels() -> AbstractContextManager[None]:
        """Return a context in which transforms use MLX's own operations, as ``mx.jvp`` needs it.

        MLX pushes no tangents through custom kernels. On a CPU, where there are no kernels, the
        context changes nothing.
        """
        return mlx_maps.kernels_where("nowhere")

    def compiled_pair(
        self, length: int, layout: str = "bfn", warmup_batch: int | None = None
    ) -> tuple[Function, Function]:
        """Return ``stft`` and ``istft`` of signals of one length, for a loop.

        Args:
            length: samples of the signals.
            layout: the layout of the spectra between the two.
            warmup_batch: compile now for signals of so many rows.

        Returns:
            Two functions: of signals [B, length], and of spectra [B, bins, frames] (``"bfn"``) or
            [B, frames, bins] (``"bnf"``).

        Raises:
            ValueError: ``length`` is not an integer, or the layout is unknown.
        """
        length = read_integer("length", length)
        if mlx_maps.kernels() is not None:
            self.warmup(1, length)  # a GPU's first launch finds out how many threads it allows
        pair = (
            self.get_compiled_stft(output_layout=layout),
            self.get_compiled_istft(length=length, input_layout=layout),
        )
        if warmup_batch is not None:
            mx = runtime().mx
            mx.eval(pair[1](pair[0](mx.zeros((int(warmup_batch), length)))))
        return pair

    def compiled_pair_nd(
        self, length: int, leading_shape: Sequence[int], layout: str = "bfn"
    ) -> tuple[Function, Function]:
        """Return ``stft`` and ``istft`` of signals of one shape, for a loop.

        Args:
            length: samples of the signals.
            leading_shape: the dimensions of the signals before their samples, such as [B, C].
            layout: the layout of the spectra between the two.

        Returns:
            Two functions: of signals [*leading_shape, length], and of their spectra.

        Raises:
            ValueError: there are no leading dimensions, or one is not positive; or later a signal
                or spectrum has another shape.
        """
        mx, length = runtime().mx, read_integer("length", length)
        leading = tuple(read_integer("leading_shape", each) for each in leading_shape)
        if not leading or min(leading) <= 0:
            raise ValueError(f"leading_shape must be positive dimensions; got {leading_shape}")
        rows = math.prod(leading)
        stft, istft = self.compiled_pair(length, layout, rows)

        def stft_nd(x: Any) -> Any:
            check_array("stft", x)
            if x.shape != (*leading, length):
                raise ValueError(f"stft expects shape {(*leading, length)}; got {x.shape}")
            spectrum = stft(mx.reshape(x, (rows, length)))
            return mx.reshape(spectrum, (*leading, *spectrum.shape[1:]))

        def istft_nd(z: Any) -> Any:
            check_array("istft", z)
            if z.shape[:-2] != leading:
                raise ValueError(f"istft expects {leading} before bins and frames; got {z.shape}")
            return mx.reshape(istft(mx.reshape(z, (rows, *z.shape[-2:]))), (*leading, length))

        return stft_nd, istft_nd

    def warmup(self, batch: int = 1, length: int = WARM_UP_SAMPLES) -> None:
        """Transform zeros and back, so that later calls find everything prepared.

        Args:
            batch: rows of the signals.
            length: their samples.
        """
        self._compute_zeros(self.stft, self.istft, batch, length)

    def prewarm_kernels(self, batch: int = 1, length: int | None = None) -> None:
        """Do the same as :meth:`warmup`, and compute the unfused istft, too."""
        self._compute_zeros(self.stft, self.istft, batch, length)
        self._compute_zeros(self.stft, self.istft, batch, length, allow_fused=False)

    def prewarm_compiled(
        self, *, batch: int = 1, length: int | None = None, **options: Any
    ) -> None:
        """Compile for signals of one shape; ``options`` are those of :meth:`istft`."""
        self._compute_zeros(self.stft_compiled, self.istft_compiled, batch, length, **options)

    def _compute_zeros(
        self, stft: Function, istft: Function, batch: int, length: int | None, **options: Any
    ) -> None:
        """Compute the stft of zeros, and its istft."""
        mx = runtime().mx
        samples = max(2 * self.n_fft, WARM_UP_SAMPLES) if length is None else int(length)
        mx.eval(istft(stft(mx.zeros((int(batch), samples))), length=samples, **options))

    def stft_stream(self) -> StftStream:
        """Return an stft of a signal in chunks; frames equal those of :meth:`stft`, bit by bit.

        Returns:
            A stream: ``push(chunk)`` takes [T] or [B, T] and returns the frames that are complete,
            [B, bins, frames]; ``finish()`` returns the last ones.

        Raises:
            ValueError: the transform pads circularly.
        """
        return StftStream(self)

    def istft_stream(self, length: int | None = None) -> IstftStream:
        """Return an istft whose frames come in chunks.

        Args:
            length: samples of the whole result; None for what the frames cover.

        Returns:
            A stream: ``push(chunk)`` takes [F, N] or [B, F, N] and returns the samples that no
            later frame reaches, [N] or [B, N]; ``finish()`` returns the last ones.
        """
        return IstftStream(self, length)

    def stft_of_chunks(self, chunks: Iterable[Any], output_layout: str = "bfn") -> Iterator[Any]:
        """Yield the frames of a signal that comes in chunks, as soon as they are complete.

        Args:
            chunks: the chunks of one signal, each of shape [T] or [B, T].
            output_layout: as of :meth:`stft`.

        Yields:
            Frames, shape [B, bins, frames] for ``"bfn"``; there may be none.

        Raises:
            ValueError: chunks differ in their leading dimensions or kind.
        """
        stream = self.stft_stream()
        for chunk in chunks:
            yield stream.push(chunk, output_layout=output_layout)
        yield stream.finish(output_layout=output_layout)

    def istft_of_chunks(
        self, chunks: Iterable[Any], length: int | None = None, input_layout: str = "bfn"
    ) -> Iterator[Any]:
        """Yield the samples of a spectrum that comes in chunks, as soon as they are complete.

        Args:
            chunks: the chunks of one spectrum, each of shape [F, N] or [B, F, N].
            length: samples of the whole result; None for what the frames cover.
            input_layout: as of :meth:`istft`.

        Yields:
            Samples, shape [N] or [B, N]; there may be none.

        Raises:
            ValueError: chunks differ in their leading dimensions.
        """
        stream = self.istft_stream(length)
        for chunk in chunks:
            yield stream.push(chunk, input_layout=input_layout)
        yield stream.finish()


_OPTIONS = frozenset(signature(SpectralTransform.istft).parameters) - {"self", "z"}


def _check_options(name: str, options: Iterable[str]) -> None:
    """Check the names of options that :meth:`SpectralTransform.istft` is called with later.

    Raises:
        TypeError: it has no such option.
    """
    for option in options:
        if option not in _OPTIONS:
            raise TypeError(
                f"{name}() got an unexpected keyword argument {option!r}; options of istft are "
                + ", ".join(sorted(_OPTIONS))
            )


def _compile_steady(transform: SpectralTransform, function: Function) -> Function:
    """Compile a function, which still runs uncompiled on a CPU, or if its input is traced.

    On a CPU a transform's methods compute in blocks, or have graphs that are compiled already. The
    transform's window is compiled in, so another window makes it compile anew.
    """
    compiled_for: tuple[Any, Function] = (None, function)

    def call(array: Any) -> Any:
        nonlocal compiled_for
        if is_on_host() or mlx_maps.has_placeholder(array):
            return function(array)
        window, compiled = compiled_for
        if window is not transform.window:
            window = transform.window
            # MLX keeps compiled code by function, so each needs a function of its own.
            compiled = SpectralTransform.compile(lambda array: function(array))
            compiled_for = window, compiled
        return compiled(array)

    return call


def get_transform_mlx(**arguments: Any) -> SpectralTransform:
    """Return a :class:`SpectralTransform`, the same one for the same arguments.

    A transform with a given ``window`` is made anew each time, since an array cannot be a key. So
    is one whose ``window`` the program has set meanwhile.

    Args:
        arguments: those of :class:`SpectralTransform`.

    Returns:
        The transform; up to 64 are kept.

    Raises:
        ValueError: sizes, names or modes that do not fit.
    """
    window = arguments.pop("window", None)
    if is_window_name(window):
        arguments["window_fn"] = window
    elif window is not None:
        return SpectralTransform(window=window, **arguments)
    key = tuple(sorted(arguments.items()))
    found: SpectralTransform = transforms.get(key, lambda: SpectralTransform(**arguments))
    if not found.has_window_by_name or found.window_fn != arguments.get("window_fn", "hann"):
        found = transforms.put(key, SpectralTransform(**arguments))
    return found


def spec_mlx_device_key() -> str:
    """Name what MLX computes on, as files of measurements do.

    Returns:
        The GPU's name, or MLX's default device as text.
    """
    mx = runtime().mx
    is_gpu = mx.default_device() == mx.Device(mx.gpu)
    return device_name(mx) if is_gpu else str(mx.default_device())
