"""Make a robot of a voice while it speaks, in memory that does not grow.

    python examples/streaming.py

The magnitudes of the spectrum stay, and all phases become zero: that is a robot's voice. It is
made in two ways: by torch in blocks of some seconds, for long files, each with a margin so that
nobody hears the joins; and, where MLX is installed, chunk by chunk as a sound card delivers them.
Both give what the whole recording gives at once.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

import sounds
import torch
from showing import compare, draw, parse

import torch_mlx_spectro as tms

N_FFT, HOP = 1024, 160
#: Samples of a chunk: 20 ms.
CHUNK = 320
#: Samples of a block, a whole number of hops.
BLOCK = 1_600 * HOP


def robotise(voice: torch.Tensor) -> torch.Tensor:
    """A voice (samples,) with the phases of its spectrum set to zero."""
    window = torch.hann_window(N_FFT)
    given: dict[str, Any] = {"n_fft": N_FFT, "hop_length": HOP, "window": window}
    spectrum = torch.stft(voice, **given, pad_mode="constant", return_complex=True)
    robot = torch.complex(spectrum.abs(), torch.zeros(()))
    return torch.istft(robot, **given, length=len(voice))


def robotise_blocks(voice: torch.Tensor) -> Iterator[torch.Tensor]:
    """The same in blocks: a long recording needs no more memory than a short one."""
    # A sample depends on those that share a frame with it, so less than N_FFT away on either side;
    # frames begin at whole hops.
    margin = -(-N_FFT // HOP) * HOP
    for begin in range(0, len(voice), BLOCK):
        first = max(0, begin - margin)
        piece = robotise(voice[first : begin + BLOCK + margin])
        yield piece[begin - first :][:BLOCK]


def robotise_live(chunks: Iterator[torch.Tensor], length: int) -> Iterator[Any]:
    """The same by MLX, chunk by chunk: what comes out is up to ``N_FFT`` samples late."""
    import mlx.core as mx

    transform = tms.SpectralTransform(N_FFT, HOP, window_fn="hann", center_pad_mode="constant")
    analysis, synthesis = transform.stft_stream(), transform.istft_stream(length)
    for chunk in chunks:
        frames = analysis.push(mx.array(chunk.numpy()))
        yield synthesis.push(mx.abs(frames).astype(mx.complex64))
    yield synthesis.push(mx.abs(analysis.finish()).astype(mx.complex64))
    yield synthesis.finish()


def stream(voice: torch.Tensor) -> torch.Tensor:
    """Speak into the live robot, print how long a chunk takes, and return what it says."""
    pieces, taken = [], []
    pending = robotise_live(iter(torch.split(voice, CHUNK)), len(voice))
    while True:
        begin = time.perf_counter()
        piece = next(pending, None)
        if piece is None:
            break
        pieces.append(torch.tensor(piece.tolist()))
        taken.append(1e3 * (time.perf_counter() - begin))
    chunk = 1e3 * CHUNK / sounds.RATE
    print(f"a chunk:      {statistics.median(taken):.2f} ms by MLX for {chunk:.0f} ms of sound")
    return torch.cat([piece.reshape(-1) for piece in pieces])


def main() -> None:
    """Make the robot, tell what came of it, and write it."""
    options = parse(__doc__, seconds=60.0).parse_args()
    voice = sounds.sing(options.seconds)
    whole = compare(robotise, voice, backend=options.backend)
    blocks = torch.cat(list(robotise_blocks(voice)))
    print(f"in blocks:    {float((blocks - whole).abs().max()):.0e} off at most")
    if tms.available_backends()["mlx"].available:
        spoken = voice[: 4 * sounds.RATE]
        live = stream(spoken)
        print(f"live:         {float((live - robotise(spoken)).abs().max()):.0e} off at most")
    sounds.write(options.output / "streaming-voice.wav", voice)
    sounds.write(options.output / "streaming-robot.wav", blocks)
    shown = 4 * sounds.RATE
    draw(options.output / "streaming.png", {"Voice": voice[:shown], "Robot": blocks[:shown]})


if __name__ == "__main__":
    main()
