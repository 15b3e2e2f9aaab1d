"""stft and istft of signals that come in chunks, in memory that does not grow with the signal."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.envelope import overlap_added_square, row_of_hop
from ..core.linear import Form, analysis_of
from ..core.padding import outside_positions
from ..core.params import NOLA_THRESHOLD, StftParams
from ..mlx.runtime import runtime
from . import functions as mlx_functions
from .arguments import LAYOUTS, one_of, resolved_istft, resolved_stft

if TYPE_CHECKING:
    from .core import TransformCore


class StftStream:
    """An stft of chunks: :meth:`push` them, then :meth:`finish`.

    Kept between calls: less than a frame of samples, and what the tail's padding is made of.

    Args:
        transform: whose stft this is. Circular padding is refused: a signal's end is its beginning.
    """

    def __init__(self, transform: TransformCore) -> None:
        self._transform, self._sizes = transform, transform._sizes
        if self._sizes.center and self._sizes.pad_mode == "circular":
            raise ValueError("circular padding begins with the end of the signal: no stream has it")
        self._window = transform.window
        self._padding = self._sizes.n_fft // 2 if self._sizes.center else 0
        #: Samples from the next frame's first one on; before the first frame, the signal's.
        self._pending: Any = None
        #: The last samples of the signal: the padding of its end is made of them.
        self._last: Any = None
        self._samples = self._frames = self._skip = 0
        self._started = self._finished = False
        self._lead: tuple[int, ...] = ()

    def push(self, chunk: Any, *, output_layout: str = "bfn") -> Any:
        """The frames that this chunk completes, of which there may be none.

        Args:
            chunk: the next samples, shaped as for ``stft`` with any number of samples.
            output_layout: as of ``stft``.

        Raises:
            ValueError: the chunk's leading dimensions or kind differ from those before.
            RuntimeError: the stream is finished.
        """
        mx = runtime().mx
        if self._finished:
            raise RuntimeError("this stream is finished")
        one_of("output_layout", output_layout, LAYOUTS)
        rows, lead = self._transform._signal_rows(chunk, "stft_stream")
        if self._pending is None:
            self._lead, self._pending, self._last = lead, rows[:, :0], rows[:, :0]
        if lead != self._lead or rows.dtype != self._pending.dtype:
            raise ValueError(
                f"chunks have one shape and kind: got {chunk.shape}, {chunk.dtype} after "
                f"{self._lead}, {self._pending.dtype}"
            )
        self._samples += rows.shape[1]
        self._append(rows)
        kept = self._padding + 1
        self._last = mx.contiguous(mx.concatenate([self._last, rows], axis=1)[:, -kept:])
        if not self._started and self._samples > self._needed():
            self._start()
        return self._emit(self._complete() if self._started else 0, output_layout)

    def finish(self, *, output_layout: str = "bfn") -> Any:
        """The frames that reach into the padding behind the signal.

        Raises:
            ValueError: ``stft`` would refuse the whole signal, as it is too short.
            RuntimeError: the stream is finished, or was given nothing.
        """
        if self._finished or self._pending is None:
            raise RuntimeError("this stream is finished, or was given nothing")
        one_of("output_layout", output_layout, LAYOUTS)
        mx = runtime().mx
        is_complex = self._pending.dtype == mx.complex64
        params = resolved_stft(self._sizes, self._samples, is_complex)
        if not self._started:
            self._start()
        self._finished = True
        have = self._padding + self._samples
        if self._padding and params.pad_mode != "constant":
            self._append(self._behind(params))
            have += self._padding
        missing = (params.frames - 1) * params.hop_length + params.n_fft - have
        if missing > 0:
            self._append(mx.zeros((self._pending.shape[0], missing), self._pending.dtype))
        return self._emit(params.frames - self._frames, output_layout)

    def _needed(self) -> int:
        """Samples beyond which the padding before the signal is known."""
        if not self._padding:
            return -1
        needed = {"reflect": self._padding, "replicate": 0, "constant": -1}
        return needed[self._sizes.pad_mode]

    def _start(self) -> None:
        """Put the padding before the signal."""
        mx = runtime().mx
        self._started = True
        if self._padding:
            rows = self._pending.shape[0]
            if self._sizes.pad_mode == "constant":
                before = mx.zeros((rows, self._padding), self._pending.dtype)
            else:
                positions = np.arange(-self._padding, 0, dtype=np.int64)
                mode = self._sizes.pad_mode
                # Whatever the length, beyond what is needed it does not matter here.
                inside = outside_positions(positions, self._samples, mode).astype(np.int32)
                before = mx.take(self._pending, mx.array(inside), axis=1)
            self._pending = mx.concatenate([before, self._pending], axis=1)

    def _behind(self, params: StftParams) -> Any:
        """The padding behind the signal, from the last samples."""
        mx = runtime().mx
        positions = self._samples + np.arange(self._padding, dtype=np.int64)
        inside = outside_positions(positions, self._samples, params.pad_mode)
        first = self._samples - self._last.shape[1]
        return mx.take(self._last, mx.array((inside - first).astype(np.int32)), axis=1)

    def _append(self, rows: Any) -> None:
        mx = runtime().mx
        self._pending = mx.concatenate([self._pending, rows], axis=1)

    def _complete(self) -> int:
        length: int = self._pending.shape[1] - self._skip
        return max(0, (length - self._sizes.n_fft) // self._sizes.hop_length + 1)

    def _emit(self, count: int, layout: str) -> Any:
        """The next ``count`` frames; what no later frame reads is forgotten."""
        mx, sizes = runtime().mx, self._sizes
        is_complex = self._pending.dtype == mx.complex64
        bins = sizes.n_fft if is_complex else sizes.bins
        rows = self._pending.shape[0]
        if count <= 0:
            spectrum = mx.zeros((rows, 0, bins), mx.complex64)
        else:
            length = (count - 1) * sizes.hop_length + sizes.n_fft
            covered = self._pending[:, self._skip : self._skip + length]
            params = _uncentred(resolved_stft(sizes, self._any_length(), is_complex), count, length)
            form = Form(params, params.complex_fft, complex_window=False)
            spectrum = mlx_functions.analysis(form)(covered, self._window)
            self._frames += count
            self._skip += count * sizes.hop_length
        gone = min(self._skip, self._pending.shape[1])
        self._skip -= gone
        self._pending = mx.contiguous(self._pending[:, gone:])
        mx.eval(spectrum, self._pending, self._last)  # else the graph would keep every chunk
        if layout == "bfn":
            spectrum = mx.swapaxes(spectrum, 1, 2)
        return mx.reshape(spectrum, (*self._lead, *spectrum.shape[1:]))

    def _any_length(self) -> int:
        """A length that no padding refuses: of the values resolved with it, none depends on it."""
        return 2 * self._sizes.n_fft


def _uncentred(params: StftParams, frames: int, samples: int) -> StftParams:
    return replace(
        params, padded=False, padding=0, pad_mode="constant", samples=samples, frames=frames
    )


class IstftStream:
    """An istft of chunks of frames: :meth:`push` them, then :meth:`finish`.

    Kept between calls: the overlap-added samples that a later frame may reach. The window's values
    are read once; streams are not differentiated in it.

    Args:
        transform: whose istft this is.
        length: samples of the whole result; None for what the frames cover.
    """

    def __init__(self, transform: TransformCore, length: int | None = None) -> None:
        self._transform, self._length = transform, length
        self._sizes = transform._sizes
        self._array = transform.window
        self._window = np.asarray(self._array).astype(np.float64)
        self._overlap = -(-self._sizes.n_fft // self._sizes.hop_length)
        self._begun = overlap_added_square(self._window, self._sizes.hop_length, self._overlap)
        #: Overlap-added samples from position ``_at`` on, the envelope not yet divided by.
        self._pending: Any = None
        self._at = self._frames = 0
        self._finished = False
        self._lead: tuple[int, ...] = ()

    def push(self, chunk: Any, *, input_layout: str = "bfn") -> Any:
        """The samples that no later frame reaches, of which there may be none.

        Args:
            chunk: the next frames, shaped as for ``istft`` with any number of frames.
            input_layout: as of ``istft``.

        Raises:
            ValueError: the chunk's leading dimensions differ from those before.
            RuntimeError: the stream is finished.
        """
        if self._finished:
            raise RuntimeError("this stream is finished")
        mx = runtime().mx
        rows, lead = self._transform._spectrum_rows(chunk, input_layout, False)
        if self._pending is None:
            self._lead, self._pending = lead, mx.zeros((rows.shape[0], 0))
        if lead != self._lead:
            raise ValueError(f"chunks have one shape: got {chunk.shape} after {self._lead}")
        if rows.shape[1]:
            self._add(rows)
        sizes = self._sizes
        final = self._frames * sizes.hop_length
        if sizes.center:
            if self._length is None:  # the end is trimmed, and may be here
                covered = final - sizes.hop_length + sizes.n_fft
                final = min(final, covered - sizes.n_fft // 2)
            else:
                final = min(final, sizes.n_fft // 2 + self._length)
        elif self._length is not None:
            final = min(final, self._length)
        return self._emit(
            final,
            self._begun,
            lambda first, last: np.minimum(np.arange(first, last), self._overlap - 1),
        )

    def finish(self) -> Any:
        """The samples that are left.

        Raises:
            ValueError: ``istft`` would refuse the whole spectrum.
            RuntimeError: the stream is finished, or was given nothing.
        """
        if self._finished or self._pending is None:
            raise RuntimeError("this stream is finished, or was given nothing")
        mx = runtime().mx
        params = resolved_istft(self._sizes, self._frames, self._length, False)
        self._finished = True
        rows = overlap_added_square(self._window, params.hop_length, params.frames)
        rest = self._emit(
            params.start + params.kept,
            rows,
            lambda first, last: row_of_hop(np.arange(first, last), params.frames, params.overlap),
        )
        if params.zero_tail:
            rest = mx.pad(rest, [(0, 0)] * (rest.ndim - 1) + [(0, params.zero_tail)])
        return rest

    def _add(self, rows: Any) -> None:
        """Overlap-add frames to what is pending."""
        mx, sizes = runtime().mx, self._sizes
        count = rows.shape[1]
        params = resolved_istft(replace(sizes, center=False), count, None, False)
        added = mlx_functions.adjoint(analysis_of(params))(rows, self._array)
        before = self._frames * sizes.hop_length - self._at
        self._frames += count
        longer = before + added.shape[1] - self._pending.shape[1]
        pending = mx.pad(self._pending, [(0, 0), (0, max(0, longer))])
        self._pending = pending + mx.pad(added, [(0, 0), (before, max(0, -longer))])

    def _emit(self, end: int, rows: Any, row_of: Any) -> Any:
        """Pending samples before ``end``, but not before the first one that is kept."""
        mx, hop = runtime().mx, self._sizes.hop_length
        first_kept = self._sizes.n_fft // 2 if self._sizes.center else 0
        begin = max(self._at, first_kept)
        if end > begin:
            first, last = begin // hop, -(-end // hop)
            scale = self._sizes.n_fft**0.5 if self._sizes.normalized else 1.0
            envelope = rows[row_of(first, last)].reshape(-1)[
                begin - first * hop : end - first * hop
            ]
            vanishing = envelope < NOLA_THRESHOLD
            inverse = np.where(vanishing, 0.0, scale / np.where(vanishing, 1.0, envelope))
            values = self._pending[:, begin - self._at : end - self._at]
            signal = values * mx.array(inverse.astype(np.float32))
        else:
            signal = self._pending[:, :0]
        gone = max(0, min(end, self._at + self._pending.shape[1]) - self._at)
        self._pending = mx.contiguous(self._pending[:, gone:])
        self._at += gone
        mx.eval(signal, self._pending)  # else the graph would keep every chunk
        return mx.reshape(signal, (*self._lead, signal.shape[1]))
