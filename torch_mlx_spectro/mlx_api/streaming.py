"""stft and istft of signals that come in chunks, in memory that does not grow with the signal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..core.linear import describe_analysis
from ..core.padding import outside_positions
from ..mlx.host import copy_to_mlx
from ..mlx.runtime import runtime
from .arguments import check_array, check_choices, resolve_istft_call, resolve_stft_call
from .core import TransformCore
from .functions import analyse, get_map
from .ops import compute_inverse_rows, read_envelope

#: More frames than any stream is given: it stands for their number until a stream is finished.
ENDLESS = 1 << 62


class StftStream:
    """An stft of chunks: :meth:`push` them, then :meth:`finish`.

    Between calls it keeps less than a frame of samples, and the samples that the padding at the end
    is made of.

    Args:
        transform: the transform whose stft this is. Circular padding is refused, since the first
            frames would depend on the signal's end.
    """

    def __init__(self, transform: TransformCore) -> None:
        self._transform, self._sizes = transform, transform._sizes
        mode = self._sizes.pad_mode
        if self._sizes.center and mode == "circular":
            raise ValueError("circular padding begins with the end of the signal: no stream has it")
        self._window = transform.window
        self._padding = self._sizes.n_fft // 2 if self._sizes.center else 0
        #: The padding before the signal can be made once there are more samples than this.
        self._needed = {"reflect": self._padding, "replicate": 0}.get(mode, -1)
        #: The samples from the beginning of the next frame on.
        self._pending: Any = None
        #: The last samples of the signal: the padding of its end is made of them.
        self._last: Any = None
        self._samples = self._frames = self._skip = 0
        self._started = self._finished = False
        self._lead: tuple[int, ...] = ()

    def push(self, chunk: Any, *, output_layout: str = "bfn") -> Any:
        """Return the frames that this chunk completes, of which there may be none.

        Args:
            chunk: the next samples, shaped as for ``stft`` with any number of samples.
            output_layout: the layout of the frames, as for ``stft``.

        Raises:
            ValueError: the chunk's leading dimensions or kind differ from those before.
            RuntimeError: the stream is finished.
        """
        mx, sizes = runtime().mx, self._sizes
        if self._finished:
            raise RuntimeError("this stream is finished")
        check_choices(output_layout=output_layout)
        rows, lead = self._transform._take_signal_rows(chunk, "stft_stream")
        if self._pending is None:
            self._lead, self._pending, self._last = lead, rows[:, :0], rows[:, :0]
        if lead != self._lead or rows.dtype != self._pending.dtype:
            raise ValueError(
                f"chunks have one shape and kind: got {chunk.shape}, {chunk.dtype} after "
                f"{self._lead}, {self._pending.dtype}"
            )
        self._samples += rows.shape[1]
        self._append(rows)
        last = mx.concatenate([self._last, rows], axis=1)[:, -self._padding - 1 :]
        self._last = mx.contiguous(last)
        if not self._started and self._samples > self._needed:
            self._start()
        complete = (self._pending.shape[1] - self._skip - sizes.n_fft) // sizes.hop_length + 1
        return self._emit(max(0, complete) if self._started else 0, output_layout)

    def finish(self, *, output_layout: str = "bfn") -> Any:
        """Return the frames that reach into the padding after the signal.

        Raises:
            ValueError: the whole signal is so short that ``stft`` would refuse it.
            RuntimeError: the stream is finished, or was given nothing.
        """
        if self._finished or self._pending is None:
            raise RuntimeError("this stream is finished, or was given nothing")
        check_choices(output_layout=output_layout)
        mx = runtime().mx
        is_complex = self._pending.dtype == mx.complex64
        params = resolve_stft_call(self._sizes, self._samples, is_complex)
        if not self._started:
            self._start()
        self._finished = True
        self._append(self._pad(self._last, self._samples - self._last.shape[1], self._samples))
        count = params.frames - self._frames
        end = self._skip + (count - 1) * params.hop_length + params.n_fft
        missing = max(0, end - self._pending.shape[1])
        self._append(mx.zeros((self._pending.shape[0], missing), self._pending.dtype))
        return self._emit(count, output_layout)

    def _start(self) -> None:
        """Put the padding before the signal; it depends on the first samples alone."""
        self._started = True
        mx, before = runtime().mx, self._pad(self._pending, 0, -self._padding)
        self._pending = mx.concatenate([before, self._pending], axis=1)

    def _pad(self, samples: Any, first: int, begin: int) -> Any:
        """Make the padding of one side.

        Args:
            samples: the signal's samples from position ``first`` on; the padding is made of them.
            begin: position of the padding's first sample.
        """
        mx, mode = runtime().mx, self._sizes.pad_mode
        if mode == "constant" or not self._padding:
            return mx.zeros((samples.shape[0], self._padding), samples.dtype)
        positions = np.arange(begin, begin + self._padding, dtype=np.int64)
        inside = outside_positions(positions, self._samples, mode) - first
        return mx.take(samples, copy_to_mlx(mx, inside.astype(np.int32)), axis=1)

    def _append(self, rows: Any) -> None:
        self._pending = runtime().mx.concatenate([self._pending, rows], axis=1)

    def _emit(self, count: int, layout: str) -> Any:
        """Return the next ``count`` frames, and forget samples that no later frame reads."""
        mx, sizes = runtime().mx, replace(self._sizes, center=False)
        length = max(0, count - 1) * sizes.hop_length + sizes.n_fft
        params = resolve_stft_call(sizes, length, self._pending.dtype == mx.complex64)
        covered = self._pending[:, self._skip : self._skip + length]
        params = replace(params, frames=count)
        spectrum = analyse(params, covered, self._window, self._lead, layout)
        self._frames += count
        self._skip += count * sizes.hop_length
        gone = min(self._skip, self._pending.shape[1])
        self._skip -= gone
        self._pending = mx.contiguous(self._pending[:, gone:])
        mx.eval(spectrum, self._pending, self._last)  # or their graph would keep every chunk
        return spectrum


class IstftStream:
    """An istft of chunks of frames: :meth:`push` them, then :meth:`finish`.

    Between calls it keeps the overlap-added samples that a later frame may reach. The window's
    values are read once, so a stream cannot be differentiated in its window.

    Args:
        transform: the transform whose istft this is.
        length: samples of the whole result; None for what the frames cover.
    """

    def __init__(self, transform: TransformCore, length: int | None = None) -> None:
        self._transform, self._length = transform, length
        self._sizes = transform._sizes
        self._window = transform.window
        self._first_kept = self._sizes.n_fft // 2 if self._sizes.center else 0
        self._overlap = -(-self._sizes.n_fft // self._sizes.hop_length)
        self._begun = self._invert_envelope(self._overlap)
        #: Overlap-added samples from position ``_at`` on, not yet divided by the envelope.
        self._pending: Any = None
        self._at = self._frames = 0
        self._finished = False
        self._lead: tuple[int, ...] = ()

    def push(self, chunk: Any, *, input_layout: str = "bfn") -> Any:
        """Return the samples that no later frame reaches, of which there may be none.

        Args:
            chunk: the next frames, shaped as for ``istft`` with any number of frames.
            input_layout: the layout of the frames, as for ``istft``.

        Raises:
            ValueError: the chunk's leading dimensions differ from those before.
            RuntimeError: the stream is finished.
        """
        if self._finished:
            raise RuntimeError("this stream is finished")
        check_choices(input_layout=input_layout)
        check_array("istft", chunk)
        rows, lead = self._transform._take_spectrum_rows(chunk, input_layout, False)
        if self._pending is None:
            self._lead, self._pending = lead, runtime().mx.zeros((rows.shape[0], 0))
        if lead != self._lead:
            raise ValueError(f"chunks have one shape: got {chunk.shape} after {self._lead}")
        if rows.shape[1]:
            self._add(rows)
        complete = self._frames * self._sizes.hop_length
        covered = complete - self._sizes.hop_length + self._sizes.n_fft
        if self._length is None:  # this may be the end, which is trimmed as the beginning is
            end = covered - self._first_kept
        else:
            end = self._first_kept + self._length
        return self._emit(min(complete, covered, end), self._begun, ENDLESS)

    def finish(self) -> Any:
        """Return the samples that are left.

        Raises:
            ValueError: ``istft`` would refuse the whole spectrum.
            RuntimeError: the stream is finished, or was given nothing.
        """
        if self._finished or self._pending is None:
            raise RuntimeError("this stream is finished, or was given nothing")
        mx = runtime().mx
        params = resolve_istft_call(self._sizes, self._frames, self._length, False)
        self._finished = True
        if self._window is self._transform.window:
            self._transform._check_envelope(params, must_raise=False)
        end, rows = params.start + params.kept, self._invert_envelope(params.frames)
        rest = self._emit(end, rows, params.frames)
        return mx.pad(rest, [(0, 0)] * (rest.ndim - 1) + [(0, params.zero_tail)])

    def _invert_envelope(self, frames: int) -> Any:
        """Compute the distinct rows of the inverse envelope of so many frames."""
        scale = self._sizes.n_fft**0.5 if self._sizes.normalized else 1.0
        return compute_inverse_rows(self._window, self._sizes.hop_length, frames, scale)

    def _add(self, rows: Any) -> None:
        """Overlap-add frames to the pending samples."""
        mx, sizes = runtime().mx, self._sizes
        count = rows.shape[1]
        params = resolve_istft_call(replace(sizes, center=False), count, None, False)
        added = get_map("adjoint", describe_analysis(params))(rows, self._window)
        before = self._frames * sizes.hop_length - self._at
        self._frames += count
        longer = before + added.shape[1] - self._pending.shape[1]
        pending = mx.pad(self._pending, [(0, 0), (0, max(0, longer))])
        self._pending = pending + mx.pad(added, [(0, 0), (before, max(0, -longer))])

    def _emit(self, end: int, rows: Any, frames: int) -> Any:
        """Return the pending samples before ``end``, without those that are trimmed at the start.

        Args:
            rows: rows of the inverse envelope of ``frames`` frames.
        """
        mx = runtime().mx
        begin = max(self._at, self._first_kept)
        signal = self._pending[:, :0]
        if end > begin:
            inverse = read_envelope(rows, frames, self._overlap, begin, end)
            signal = self._pending[:, begin - self._at : end - self._at] * inverse
        gone = max(0, min(end - self._at, self._pending.shape[1]))
        self._pending = mx.contiguous(self._pending[:, gone:])
        self._at += gone
        mx.eval(signal, self._pending)  # or their graph would keep every chunk
        return mx.reshape(signal, (*self._lead, signal.shape[1]))
