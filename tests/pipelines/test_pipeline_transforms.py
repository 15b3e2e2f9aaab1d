"""audio-separator's own wrappers of torch.stft and torch.istft, at the sizes of its models."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import torch
from audio_separator.separator.uvr_lib_v5.demucs.spec import ispectro, spectro
from audio_separator.separator.uvr_lib_v5.stft import STFT as MDXTransform
from audio_separator.separator.uvr_lib_v5.tfc_tdf_v3 import STFT as MDX23CTransform

Check = Callable[[Callable[[], object]], object]
CPU = torch.device("cpu")


def mdx_chunks(recordings: torch.Tensor, samples: int) -> torch.Tensor:
    """Stereo chunks of the length that a model takes, cut off or padded as MDXSeparator does."""
    missing = max(0, samples - recordings.shape[-1])
    return torch.nn.functional.pad(recordings, (0, missing))[..., :samples].contiguous()


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    ("n_fft", "dim_f"),
    [(4096, 2048), (5120, 2048), (6144, 2048), (6144, 3072), (7680, 3072), (16384, 2048)],
)
def test_mdx_net_transform_round_trip(
    recordings: torch.Tensor, assert_same_under_mlx: Check, n_fft: int, dim_f: int, batch: int
) -> None:
    transform = MDXTransform(logging.getLogger(__name__), n_fft, 1024, dim_f, CPU)
    mix = mdx_chunks(recordings[:batch], 1024 * 127)

    def round_trip() -> list[torch.Tensor]:
        spectrum = transform(mix)
        # MDXSeparator.run_model clears the lowest bins in place: the result must be writable.
        spectrum[:, :, :3, :] *= 0
        return [spectrum, transform.inverse(spectrum)]

    assert_same_under_mlx(round_trip)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("n_fft", "hop", "dim_f"), [(8192, 1024, 4096), (8192, 2048, 4096)])
def test_mdx23c_transform_round_trip(
    recordings: torch.Tensor,
    assert_same_under_mlx: Check,
    n_fft: int,
    hop: int,
    dim_f: int,
    batch: int,
) -> None:
    transform = MDX23CTransform(n_fft, hop, dim_f, CPU)
    mix = mdx_chunks(recordings[:batch], hop * 63)

    def round_trip() -> list[torch.Tensor]:
        spectrum = transform(mix)
        return [spectrum, transform.inverse(spectrum)]

    assert_same_under_mlx(round_trip)


def test_mdx23c_transform_of_overlapping_chunks(
    recordings: torch.Tensor, assert_same_under_mlx: Check
) -> None:
    """MDXCSeparator.demix hands over chunks which are views of one track, rows apart in memory."""
    transform = MDX23CTransform(8192, 1024, 4096, CPU)
    chunks = recordings[0].unfold(1, 1024 * 31, 1024 * 8).transpose(0, 1)
    assert not chunks[:1].is_contiguous()
    assert_same_under_mlx(lambda: [transform(chunks[:1]), transform(chunks[1:3])])


@pytest.mark.parametrize("stems", [1, 4])
def test_mdx23c_inverse_of_several_stems(
    recordings: torch.Tensor, assert_same_under_mlx: Check, stems: int
) -> None:
    transform = MDX23CTransform(8192, 1024, 4096, CPU)
    mix = mdx_chunks(recordings, 1024 * 31)

    def masked() -> object:
        spectrum = transform(mix)
        weights = torch.linspace(0.25, 1, stems).reshape(stems, 1, 1, 1)
        return transform.inverse(spectrum[:, None] * weights)

    assert_same_under_mlx(masked)


@pytest.mark.parametrize("pad", [0, 1])
@pytest.mark.parametrize(("n_fft", "hop"), [(512, None), (2048, 512), (4096, 1024)])
def test_demucs_spectro_and_ispectro(
    recordings: torch.Tensor, assert_same_under_mlx: Check, n_fft: int, hop: int | None, pad: int
) -> None:
    """With `pad` the window is shorter than the transform, which torch centres by itself."""

    def round_trip() -> list[torch.Tensor]:
        spectrum = spectro(recordings, n_fft, hop, pad=pad)
        length = recordings.shape[-1]
        return [spectrum, ispectro(spectrum, hop or n_fft // 4, length=length, pad=pad)]

    assert_same_under_mlx(round_trip)


def test_demucs_ispectro_after_hybrid_padding(
    recordings: torch.Tensor, assert_same_under_mlx: Check
) -> None:
    """HTDemucs drops the outer bin and frames, and pads them back with zeros before inverting."""
    pad = torch.nn.functional.pad

    def trimmed() -> object:
        spectrum = spectro(recordings, 4096, 1024)[..., :-1, 2:-2]
        return ispectro(pad(pad(spectrum, (0, 0, 0, 1)), (2, 2)), 1024, length=1024 * 60)

    assert_same_under_mlx(trimmed)
