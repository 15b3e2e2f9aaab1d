"""docs/migrating.md has a row for every public name of mlx-spectro 0.9.10; rows are true."""

from __future__ import annotations

import re

import pytest
from checkout import ROOT

import torch_mlx_spectro as tms

PAGE = (ROOT / "docs" / "migrating.md").read_text(encoding="utf-8")
#: ``mlx_spectro.__all__`` of 0.9.10.
NAMES = re.findall(
    r"\w+",
    """
CenterPadMode CenterTailPad DEFAULT_FMAX DEFAULT_FMIN DEFAULT_FREF DEFAULT_SAMPLE_RATE
FilteredOutputScale FilteredSpectrogramResult FilteredSpectrogramTransform HybridCQTTransform
ISTFTBackendPolicy LogMelMode LogMelSpectrogramTransform MFCCTransform MelMode MelNorm
MelOutputScale MelScale MelSpectrogramTransform RepeatedShapeCompileCache STFTFeatures
STFTOutputLayout SpectralFeatureTransform SpectralTransform VQTPlan WindowLike amplitude_to_db
build_vqt_plan cached_filtered_transform cached_log_filterbank cached_mel_filterbank
chroma_stft complex_domain_odf complex_flux_odf compute_filtered_spectrogram
compute_filtered_spectrogram_at_fps compute_filtered_spectrogram_at_starts
compute_filtered_spectrogram_mlx compute_log_filtered_spectrogram compute_mel_spectrogram
compute_mel_spectrogram_mlx dct_matrix diff_frames_from_hann fft_frequencies
filtered_spectrogram filtered_spectrogram_at_fps filtered_spectrogram_at_starts
filtered_transform_from_filterbank frame_origin_from_mode frame_starts_from_fps
frequencies_to_bins get_cache_debug_stats get_transform_mlx high_frequency_content_odf
hop_size_from_fps hybrid_cqt local_group_delay log_frequencies log_triangular_fbanks
logarithmic_spectrogram madmom_multires_log_diff_features madmom_multires_log_diff_features_mlx
madmom_multires_mel_stack madmom_multires_mel_stack_mlx madmom_single_resolution_log_stack
madmom_single_resolution_log_stack_mlx make_window mel_filterbank mel_filterbank_librosa
melscale_fbanks mfcc modified_kullback_leibler_odf nnaudio_cqt_kernels
normalized_weighted_phase_deviation num_frames_for_hop onset_strength onset_strength_multi
phase_deviation positive_spectral_diff positive_spectral_diff_numpy rectangular_filterbank
rectified_complex_domain_odf repeat_pad_frames reset_cache_debug_stats resolve_fft_params rms
spec_mlx_device_key spectral_bandwidth spectral_centroid spectral_contrast spectral_features
spectral_flux_odf spectral_odf spectral_rolloff stack_feature_blocks stft_features_at_fps
superflux_odf triangular_filterbank trim_to_shortest vqt waveform_chunk_overlap_add
waveform_overlap_add weighted_phase_deviation zero_crossing_rate
""",
)
ROWS = re.findall(r"^\| `(\w+)` \| (same|other|not here)(.*) \|$", PAGE, re.MULTILINE)


def test_every_name_has_one_row() -> None:
    assert len(set(NAMES)) == len(NAMES) == 104
    assert sorted(name for name, *_ in ROWS) == sorted(NAMES)


@pytest.mark.parametrize(("name", "where", "rest"), ROWS, ids=[name for name, *_ in ROWS])
def test_a_row_says_what_is_so(name: str, where: str, rest: str) -> None:
    assert (name in tms.__all__) == (where == "same")
    if where != "same":
        assert rest.startswith(": ")
        assert len(rest) > 12
    for other in re.findall(r"`([A-Z]\w+)[(`]", rest) if where == "other" else ():
        assert other in tms.__all__


def test_the_module_that_stands_in_has_the_names_that_are_the_same() -> None:
    from torch_mlx_spectro.mlx_api.predecessor import NAMES as ours

    assert sorted(ours) == sorted(name for name, where, _ in ROWS if where == "same")
