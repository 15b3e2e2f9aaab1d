"""Every public name as a program with types uses it: ``make lint`` has pyright check this file.

Nothing runs it. What must be refused has a comment that pyright reports if it is not.
"""

# pyright: basic, reportUnnecessaryTypeIgnoreComment=true

import inspect
from collections.abc import Callable
from types import ModuleType

import torch
from typing_extensions import assert_type

import torch_mlx_spectro as tms


def transform(signal: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    spectrum = tms.stft(
        input=signal,
        n_fft=512,
        hop_length=None,
        win_length=512,
        window=window,
        center=True,
        pad_mode="reflect",
        normalized=False,
        onesided=None,
        return_complex=True,
        align_to_window=None,
    )
    assert_type(spectrum, torch.Tensor)
    tms.stft(signal, 512, hop=128)  # pyright: ignore[reportCallIssue]
    tms.stft(signal, "512")  # pyright: ignore[reportArgumentType]
    tms.istft(spectrum, 512, pad_mode="reflect")  # pyright: ignore[reportCallIssue]
    rebuilt = tms.istft(
        input=spectrum,
        n_fft=512,
        hop_length=128,
        win_length=None,
        window=window,
        center=True,
        normalized=False,
        onesided=True,
        length=signal.shape[-1],
        return_complex=False,
    )
    return assert_type(rebuilt, torch.Tensor)


# What a program passes on keeps torch's parameters.
FUNCTIONS: list[Callable[[torch.Tensor, int], torch.Tensor]] = [tms.stft, tms.istft]
SIGNATURE: inspect.Signature = inspect.signature(tms.stft)


def choose(signal: torch.Tensor) -> tuple[str, ...]:
    begun = tms.patch("mps", strict=True, verify=100)
    assert_type(begun, tms.Patch)
    assert_type(begun.left, tuple[str, ...])
    tms.patch("metal")  # pyright: ignore[reportArgumentType]
    tms.patch("mps", True)  # pyright: ignore[reportCallIssue]
    with tms.backend("cuda", strict=False, verify=None), tms.patch():
        assert_type(tms.is_patched(), bool)
    tms.backend("gpu")  # pyright: ignore[reportArgumentType]
    tms.unpatch()
    found: dict[str, tms.Availability] = tms.available_backends()
    route: tms.Route = tms.explain(torch.stft, signal, 512)
    try:
        tms.set_result_memory(1 << 20)
    except tms.NotAccelerated as refused:
        return refused.reasons
    return (found["mlx"].reason, route.backend, route.kernel, *route.reasons)


# What `%load_ext torch_mlx_spectro` calls.
EXTENSION: Callable[..., None] = tms.load_ipython_extension


def count() -> int:
    counted: tms.Stats = tms.stats()
    tms.reset_stats()
    tms.clear_caches()
    debug = tms.get_cache_debug_stats()
    tms.reset_cache_debug_stats()
    return counted.accelerated + counted.native + len(debug)


LAYOUT: tms.STFTOutputLayout = "bnf"
POLICY: tms.ISTFTBackendPolicy = "auto"
PADDING: tuple[tms.CenterPadMode, tms.CenterTailPad] = ("constant", "minimal")
WINDOW: tms.WindowLike = "hann"
ODD_LAYOUT: tms.STFTOutputLayout = "nbf"  # pyright: ignore[reportAssignmentType]


def transform_mlx_arrays() -> None:
    assert_type(tms.as_mlx_spectro(), ModuleType)
    sizes = tms.resolve_fft_params(512, None, None, 0)
    assert_type(sizes, tuple[int, int, int])
    window = tms.make_window(None, "hann", 512, 512, True)
    transform = tms.SpectralTransform(n_fft=512, hop_length=128, window=window)
    shared: tms.SpectralTransform = tms.get_transform_mlx(
        n_fft=512,
        hop_length=128,
        win_length=512,
        window_fn="hann",
        periodic=True,
        center=True,
        normalized=False,
        window=None,
    )
    spectrum = transform.stft(window)
    shared.istft(spectrum, length=512)
    tms.Spectrogram(n_fft=400, power=None)(window)
    tms.MelSpectrogram(sample_rate=16000, n_mels=80)(window)
    tms.MFCC(n_mfcc=13)(window)
    tms.GriffinLim(n_iter=8)(window)
    print(tms.spec_mlx_device_key(), tms.__version__)
