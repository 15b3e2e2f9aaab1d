"""What timings of calls are kept by: alike where times are, apart where they differ."""

from __future__ import annotations

import torch
from reference import stft_params

from torch_mlx_spectro.calls import kind


def test_signatures_tell_sizes_and_layouts_apart_but_not_close_lengths() -> None:
    def signature(samples: int, n_fft: int = 512) -> kind.CallKind:
        signal = torch.zeros(2, samples)
        window = torch.ones(n_fft)
        return kind.make_kind(stft_params(signal, window, n_fft=n_fft), signal)

    assert signature(100_000) == signature(100_200)
    assert signature(100_000) != signature(200_000)
    assert signature(100_000) != signature(100_000, 1024)


def test_calls_that_train_are_measured_apart() -> None:
    """Their forward saves what the others' does not, and their backward follows their choice."""
    signal, window = torch.zeros(2, 100), torch.ones(16)
    params = stft_params(signal, window, n_fft=16)
    plain = kind.make_kind(params, signal)
    signal.requires_grad_()
    assert kind.make_kind(params, signal) != plain
    with torch.no_grad():
        assert kind.make_kind(params, signal) == plain


def test_signatures_know_what_changes_the_race() -> None:
    """A timing of one layout, device count or kind says nothing of another."""
    window = torch.ones(512)

    def of(signal: torch.Tensor, **arguments: object) -> kind.CallKind:
        params = stft_params(signal, window, n_fft=512, **arguments)
        return kind.make_kind(params, signal)

    plain = torch.zeros(2, 50_000)
    others = [
        of(torch.zeros(50_000, 2).t()),
        of(plain, hop_length=100),
        of(plain, onesided=False),
        of(plain, return_complex=False),
        of(plain.to(torch.complex64)),
    ]
    assert len({of(plain), *others}) == 6
    assert of(plain) == of(plain.clone())
    sizes = {of(torch.zeros(samples)).size for samples in range(100_000, 200_000, 1_000)}
    assert 4 <= len(sizes) <= 6
