"""Fixtures which run one pipeline natively and under the strict MLX patch, and compare the two."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import soundfile
import torch

import torch_mlx_spectro as tms
from torch_mlx_spectro import emulator

RECORDINGS = Path("/usr/share/sounds/alsa")
TOLERANCE = 2e-5
TINY = torch.finfo(torch.float32).tiny

# Every entry silences one warning raised by a third party's own code, which nothing here can fix.
THIRD_PARTY_WARNINGS = (
    # rotary-embedding-torch 0.6 (the newest that audio-separator allows) still decorates with it.
    r"ignore:`torch\.cuda\.amp\.autocast\(args\.\.\.\)` is deprecated:FutureWarning",
    # pydub imports a module which Python 3.13 dropped from the standard library.
    "ignore:'audioop' is deprecated:DeprecationWarning",
    # pydub looks for ffmpeg when imported; it is used to write files only, which no test does.
    "ignore:Couldn't find ffmpeg or avconv:RuntimeWarning",
    # audio-separator's MDX transforms ask torch.stft for the deprecated real-valued result.
    "ignore:stft with return_complex=False is deprecated:UserWarning",
    # The RoFormer constructors call torch.stft without a window to learn the number of bins.
    "ignore:A window was not provided:UserWarning",
)

Pipeline = Callable[[], Any]
Layout = tuple[tuple[int, ...], tuple[int, ...], torch.dtype, torch.device]


@dataclass(frozen=True)
class SpectralCall:
    """One call of torch.stft or torch.istft: what went in and what came out.

    Two calls are equal if all but their values are.
    """

    name: str
    argument: Layout
    result: Layout
    values: torch.Tensor = field(compare=False, repr=False)


@dataclass(frozen=True)
class Difference:
    """How far outputs are from their reference, relative to it; the worst over all outputs."""

    maximum: float
    euclidean: float

    def __lt__(self, limit: float) -> bool:
        return self.maximum < limit and self.euclidean < limit


def pytest_configure(config: pytest.Config) -> None:
    """Add the third-party filters here so that the project's own suite stays free of them."""
    for warning in THIRD_PARTY_WARNINGS:
        config.addinivalue_line("filterwarnings", warning)


def layout(tensor: torch.Tensor) -> Layout:
    """Everything about a tensor that code written for torch's own result may rely on."""
    return tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device


def flatten(outputs: Any) -> list[torch.Tensor]:
    """Lists the tensors in a pipeline's outputs: a tensor, an array, or a nest of these."""
    if isinstance(outputs, torch.Tensor):
        return [outputs.detach()]
    if isinstance(outputs, np.ndarray):
        return [torch.from_numpy(outputs)]
    if isinstance(outputs, Mapping):
        return [tensor for key in outputs for tensor in flatten(outputs[key])]
    if isinstance(outputs, Sequence):
        return [tensor for output in outputs for tensor in flatten(output)]
    raise TypeError(f"not an output of a pipeline: {type(outputs)}")


def difference(expected: list[torch.Tensor], actual: list[torch.Tensor]) -> Difference:
    """Compares values in double precision, so that the comparison itself does not round.

    A value which is not a number makes the difference one too, which is below no tolerance.
    """
    ratios = []
    for reference, tensor in zip(expected, actual, strict=True):
        wide = torch.complex128 if reference.is_complex() else torch.float64
        reference, tensor = reference.to(wide), tensor.to(wide)
        error = (tensor - reference).abs()
        pairs = (error.max(), reference.abs().max()), (error.norm(), reference.norm())
        # Silence has to be matched by silence.
        ratios.append(torch.stack([part / whole.clamp_min(TINY) for part, whole in pairs]))
    maximum, euclidean = torch.stack(ratios).amax(0).tolist()
    return Difference(maximum, euclidean)


def values(calls: list[SpectralCall]) -> list[torch.Tensor]:
    """What each call returned."""
    return [call.values for call in calls]


@contextmanager
def recorded_calls() -> Iterator[list[SpectralCall]]:
    """Records the calls of whatever torch.stft and torch.istft are at present."""
    calls: list[SpectralCall] = []

    def recording(name: str, function: Callable[..., torch.Tensor]) -> Any:
        def call(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            result = function(tensor, *args, **kwargs)
            # Cloned because the pipeline is free to write to the result.
            calls.append(SpectralCall(name, layout(tensor), layout(result), result.clone()))
            return result

        return mock.patch.object(torch, name, call)

    with recording("stft", torch.stft), recording("istft", torch.istft):
        yield calls


@contextmanager
def rounding_noise() -> Iterator[None]:
    """Adds to every spectrum, and every inverse, what another float32 FFT could make of it.

    Each frame gets noise of the size that separates torch's float32 spectra of speech from
    float64 ones: one machine epsilon of the frame's root mean square.
    """
    generator = torch.Generator().manual_seed(1)

    def disturbing(name: str, frame_dims: tuple[int, ...]) -> Any:
        function: Callable[..., torch.Tensor] = getattr(torch, name)

        def call(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            result = function(tensor, *args, **kwargs)
            real = torch.view_as_real(result) if result.is_complex() else result
            level = real.square().mean(frame_dims, keepdim=True).sqrt()
            noise = torch.randn(real.shape, generator=generator)
            real += torch.finfo(torch.float32).eps * level * noise
            return result

        return mock.patch.object(torch, name, call)

    with disturbing("stft", (-3, -1)), disturbing("istft", (-1,)):
        yield


@pytest.fixture(scope="session")
def recordings() -> torch.Tensor:
    """Three stereo recordings of a speaking voice, shaped (recording, channel, sample).

    Each channel is a recording of its own, so that exchanged channels or batches cannot pass.
    """
    clips = []
    for name in ("Front_Left", "Front_Right", "Rear_Left", "Rear_Right", "Side_Left", "Side_Right"):
        path = RECORDINGS / f"{name}.wav"
        if not path.is_file():
            pytest.fail(
                f"{path} is missing: the tests of real pipelines need the recordings of the "
                "Debian package alsa-utils (apt-get install --no-install-recommends alsa-utils)",
                pytrace=False,
            )
        samples, _rate = soundfile.read(path, dtype="float32")
        clips.append(torch.from_numpy(samples))
    length = min(len(clip) for clip in clips)
    return torch.stack([clip[:length] for clip in clips]).reshape(3, 2, length)


@pytest.fixture(params=["blocks", "kernels"])
def computation(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], Any]:
    """A context: MLX's operations in blocks, or the Metal kernels in their emulator."""
    if request.param == "blocks":
        return nullcontext
    cache = tmp_path_factory.getbasetemp() / "metal"
    return lambda: emulator.Machine(orders=(("random", 1),), cache_dir=cache).installed()


@pytest.fixture
def assert_same_under_mlx(
    computation: Callable[[], Any],
) -> Callable[[Pipeline], list[SpectralCall]]:
    """Asserts that a pipeline's results do not tell torch's transforms from MLX's."""

    def check(pipeline: Pipeline) -> list[SpectralCall]:
        with recorded_calls() as native_calls:
            expected = flatten(pipeline())
        assert native_calls, "the pipeline never called torch.stft or torch.istft"
        assert all(tensor.abs().max() > 0 for tensor in expected), "nothing to compare with"

        with computation(), tms.patch(backend="mlx", strict=True):
            tms.reset_stats()
            with recorded_calls() as calls:
                actual = flatten(pipeline())
            stats = tms.stats()

        assert calls == native_calls
        assert [layout(tensor) for tensor in actual] == [layout(tensor) for tensor in expected]
        of_outputs = difference(expected, actual)
        assert of_outputs < TOLERANCE
        of_calls = difference(values(native_calls), values(calls))
        assert of_calls < TOLERANCE
        assert stats.accelerated == len(calls), stats.as_dict()
        assert stats.native == 0, stats.as_dict()
        assert not stats.fallbacks, stats.as_dict()
        return calls

    return check


@pytest.fixture
def amplified_rounding() -> Callable[[Pipeline], Difference]:
    """Measures what a pipeline, run by torch alone, makes of rounding noise in its spectra."""

    def measure(pipeline: Pipeline) -> Difference:
        expected = flatten(pipeline())
        with rounding_noise():
            disturbed = flatten(pipeline())
        return difference(expected, disturbed)

    return measure
