"""audio-separator's models, small and with random weights, from waveform to waveform.

Each is checked twice: that MLX's transforms change nothing, and that the model is fit to judge
it, since a model which blows up mere rounding would fail however good the transforms are.
"""

from __future__ import annotations

import logging
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from audio_separator.separator.architectures.demucs_separator import DemucsSeparator
from audio_separator.separator.architectures.mdxc_separator import MDXCSeparator
from audio_separator.separator.uvr_lib_v5.demucs.hdemucs import HDemucs
from audio_separator.separator.uvr_lib_v5.demucs.htdemucs import HTDemucs
from audio_separator.separator.uvr_lib_v5.roformer.bs_roformer import (
    DEFAULT_FREQS_PER_BANDS,
    BSRoformer,
)
from audio_separator.separator.uvr_lib_v5.roformer.mel_band_roformer import MelBandRoformer
from audio_separator.separator.uvr_lib_v5.tfc_tdf_v3 import TFC_TDF_net
from ml_collections import ConfigDict

Check = Callable[[Callable[[], object]], Any]

CPU = torch.device("cpu")
# A quarter of what the comparison allows, so that a failure of it is not the model's doing.
ROUNDING_LIMIT = 5e-6
SOURCES = ["drums", "bass", "other", "vocals"]
TWO_STEMS = {"instruments": ["vocals", "other"], "target_instrument": None}
ROFORMER: dict[str, Any] = {
    "dim": 16,
    "depth": 1,
    "stereo": True,
    "num_stems": 2,
    "time_transformer_depth": 1,
    "freq_transformer_depth": 1,
    "dim_head": 8,
    "heads": 2,
    "attn_dropout": 0.0,
    "ff_dropout": 0.0,
    "mlp_expansion_factor": 1,
    "stft_n_fft": 2048,
    "stft_hop_length": 441,
    "stft_win_length": 2048,
}
BS_ROFORMER = ROFORMER | {"freqs_per_bands": DEFAULT_FREQS_PER_BANDS}
MEL_BAND_ROFORMER = ROFORMER | {"num_bands": 60, "mask_estimator_depth": 1}
MDX23C: dict[str, Any] = {
    "audio": {"n_fft": 8192, "hop_length": 1024, "dim_f": 4096, "num_channels": 2},
    "model": {
        "act": "gelu",
        "norm": "InstanceNorm",
        "num_subbands": 4,
        "num_scales": 2,
        "scale": [2, 2],
        "num_blocks_per_scale": 1,
        "num_channels": 8,
        "growth": 4,
        "bottleneck_factor": 4,
    },
    "training": TWO_STEMS,
    "inference": {"dim_t": 32, "num_overlap": 4, "batch_size": 1},
}
MODELS: dict[str, Callable[[], torch.nn.Module]] = {
    "HTDemucs": lambda: HTDemucs(SOURCES, channels=8, t_layers=1, t_heads=2, segment=1),
    "HDemucs": lambda: HDemucs(SOURCES, channels=4, dconv_lstm=6, dconv_attn=6),
    "MDX23C": lambda: TFC_TDF_net(ConfigDict(MDX23C), CPU),
    "BSRoformer": lambda: BSRoformer(**BS_ROFORMER),
    "BSRoformer-1-stem": lambda: BSRoformer(**BS_ROFORMER | {"num_stems": 1}),
    "MelBandRoformer": lambda: MelBandRoformer(**MEL_BAND_ROFORMER),
    "MelBandRoformer-whole-length": lambda: MelBandRoformer(
        **MEL_BAND_ROFORMER, match_input_audio_length=True
    ),
}
ROFORMERS = [BSRoformer, MelBandRoformer]


def seeded(build: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    """Builds a model with the same weights each time, whichever tests ran before.

    Training would set proportions which chance does not. A RoFormer scales silent bands up to
    the level of loud ones, rounding noise included, and lets them attend to each other: halved
    weights keep that noise small. In a Demucs the waveform branch drowns the spectral branch,
    the only one which the transforms touch: that one's last layer is made ten times louder.
    """
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        model = build().eval()
        if isinstance(model, tuple(ROFORMERS)):
            for weights in model.parameters():
                if weights.dim() > 1:
                    weights.mul_(0.5)
        if isinstance(model, (HTDemucs, HDemucs)):
            for weights in model.decoder[-1].conv_tr.parameters():
                weights.mul_(10)
    return model


@pytest.fixture(scope="module", params=list(MODELS))
def separation(
    request: pytest.FixtureRequest, recordings: torch.Tensor
) -> Callable[[], torch.Tensor]:
    """Separates most of a second of two stereo recordings with one of the models."""
    model = seeded(MODELS[request.param])
    mix = recordings[:2, :, 8000 : 8000 + 43 * 1024].contiguous()

    @torch.no_grad()
    def separate() -> torch.Tensor:
        separated: torch.Tensor = model(mix)
        return separated

    return separate


def test_model_separates_the_same(
    separation: Callable[[], torch.Tensor], assert_same_under_mlx: Check
) -> None:
    calls = assert_same_under_mlx(separation)
    assert [call.name for call in calls] == ["stft", "istft"]


def test_model_does_not_amplify_rounding(
    separation: Callable[[], torch.Tensor], amplified_rounding: Check
) -> None:
    assert amplified_rounding(separation) < ROUNDING_LIMIT


@pytest.mark.parametrize("architecture", ROFORMERS)
def test_roformer_multi_resolution_loss_is_the_same(
    recordings: torch.Tensor, assert_same_under_mlx: Check, architecture: type[torch.nn.Module]
) -> None:
    """The loss takes spectra with windows of 256 to 4096 samples, some within longer frames."""
    model = seeded(lambda: architecture(**ROFORMER | {"num_stems": 1}))
    mix, target = (recordings[index : index + 1, :, :44100].contiguous() for index in (0, 1))

    @torch.no_grad()
    def loss() -> object:
        total, (distance, spectral_distance) = model(mix, target, return_loss_breakdown=True)
        return [total, distance, spectral_distance]

    calls = assert_same_under_mlx(loss)
    assert [call.name for call in calls] == ["stft", "istft"] + ["stft"] * 10


@pytest.mark.parametrize("architecture", ROFORMERS)
def test_roformer_is_built_the_same(
    assert_same_under_mlx: Check, architecture: type[torch.nn.Module]
) -> None:
    """The constructors call torch.stft, without a window, and must not notice the patch."""

    def build() -> list[torch.Tensor]:
        return list(seeded(lambda: architecture(**ROFORMER)).parameters())

    assert_same_under_mlx(build)


def common_config(model_data: dict[str, Any], model_path: Path) -> dict[str, Any]:
    """The part of a separator's configuration which its constructor reads, as Separator sets it."""
    return {
        "logger": logging.getLogger(__name__),
        "log_level": logging.WARNING,
        "torch_device": CPU,
        "torch_device_cpu": CPU,
        "model_name": model_path.stem,
        "model_path": str(model_path),
        "model_data": model_data,
        "sample_rate": 44100,
    }


@pytest.mark.parametrize("name", ["BSRoformer", "MelBandRoformer", "MDX23C"])
def test_mdxc_separator_demixes_a_track_the_same(
    recordings: torch.Tensor, assert_same_under_mlx: Check, tmp_path: Path, name: str
) -> None:
    """The separator loads a checkpoint, and feeds the model chunks which are views of the track."""
    inference = {"inference": {"dim_t": 81, "num_overlap": 2, "batch_size": 1}}
    model_data = {
        "BSRoformer": {"model": BS_ROFORMER, "training": TWO_STEMS} | inference,
        "MelBandRoformer": {"model": MEL_BAND_ROFORMER, "training": TWO_STEMS} | inference,
        "MDX23C": MDX23C,
    }[name]
    checkpoint = tmp_path / "checkpoint.ckpt"
    torch.save(seeded(MODELS[name]).state_dict(), checkpoint)
    separator = MDXCSeparator(common_config(model_data, checkpoint), {})
    mix = separator.prepare_mix(recordings[0].numpy().T)

    calls = assert_same_under_mlx(lambda: separator.demix(mix))
    assert len(calls) > 2, "the track was meant to be longer than a chunk"


def test_demucs_separator_demixes_a_track_the_same(
    recordings: torch.Tensor,
    assert_same_under_mlx: Check,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The separator splits the track into segments, and shifts them by a random number."""
    monkeypatch.setattr(sys, "path", list(sys.path))  # to which its constructor adds a folder
    separator = DemucsSeparator(common_config({}, tmp_path / "checkpoint.th"), {"shifts": 1})
    separator.demucs_model_instance = seeded(MODELS["HTDemucs"])
    mix = separator.prepare_mix(recordings[0].numpy().T)

    def demix() -> object:
        random.seed(0)
        return separator.demix_demucs(mix)

    calls = assert_same_under_mlx(demix)
    assert len(calls) > 2, "the track was meant to be longer than a segment"
