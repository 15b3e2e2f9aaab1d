"""Verdicts on envelopes: which are kept, and whose memory a kernel writes them to."""

from __future__ import annotations

import gc

import pytest
import torch
from reference import istft_params

from torch_mlx_spectro.backends.device import envelope_checks
from torch_mlx_spectro.backends.device.envelope_checks import EnvelopeChecks
from torch_mlx_spectro.core.params import NOLA_THRESHOLD, IstftParams
from torch_mlx_spectro.errors import UnresolvedArguments
from torch_mlx_spectro.kernels.arguments import Verdict
from torch_mlx_spectro.store.sources import source

HOST = torch.device("cpu")
CALL = ((16, 4, 8, 0), 3)


def make_flag(device: torch.device) -> torch.Tensor:
    return torch.zeros(1, dtype=torch.int32)


@pytest.fixture
def checks() -> EnvelopeChecks:
    return EnvelopeChecks(make_flag)


def settle(
    checks: EnvelopeChecks, window: torch.Tensor, call: envelope_checks.Geometry = CALL
) -> None:
    checks.settle(call, window, checks.take_flag(HOST), HOST)


def test_what_does_not_vanish_is_known_until_the_window_changes(checks: EnvelopeChecks) -> None:
    window = torch.ones(16)
    assert not checks.is_fine(CALL, window)
    settle(checks, window)
    assert checks.is_fine(CALL, window)
    assert not checks.is_fine(CALL, window.clone())
    window.mul_(2)
    assert not checks.is_fine(CALL, window)
    settle(checks, window)
    checks.forget()
    assert not checks.is_fine(CALL, window)


def test_what_is_fine_is_so_with_more_left_out_at_the_end(checks: EnvelopeChecks) -> None:
    window, (sizes, tail) = torch.ones(16), CALL
    settle(checks, window)
    assert checks.is_fine((sizes, tail + 5), window)
    assert not checks.is_fine((sizes, tail - 1), window)
    settle(checks, window, (sizes, tail - 1))
    settle(checks, window, (sizes, tail + 2))
    assert checks.is_fine((sizes, tail - 1), window)
    assert not checks.is_fine(((16, 5, 8, 0), tail), window)


def test_what_vanishes_is_asked_each_time_and_its_flag_is_used_again(
    checks: EnvelopeChecks,
) -> None:
    window = torch.zeros(16)
    for _ in range(2):
        flag = checks.take_flag(HOST)
        assert flag.item() == 0
        flag.fill_(1)
        with pytest.raises(UnresolvedArguments, match="vanishes"):
            checks.settle(CALL, window, flag, HOST)
        assert not checks.is_fine(CALL, window)
    assert len(checks._flags) == 1


def test_what_a_kernel_calls_fine_is_fine(checks: EnvelopeChecks) -> None:
    """Also by a flag that has said so before: other kernels leave it alone."""
    for window in (torch.ones(16), torch.ones(16)):
        flag = checks.take_flag(HOST)
        flag.fill_(Verdict.FINE)
        checks.settle(CALL, window, flag, HOST)
        assert checks.is_fine(CALL, window)
    settle(checks, torch.ones(16))
    assert len(checks._flags) == 1


def test_a_flag_belongs_to_one_call(checks: EnvelopeChecks) -> None:
    first, second = checks.take_flag(HOST), checks.take_flag(HOST)
    assert first.data_ptr() != second.data_ptr()
    checks.settle(CALL, torch.ones(16), first, HOST)
    assert checks.take_flag(HOST) is first


def test_what_was_broken_off_may_still_be_written(checks: EnvelopeChecks) -> None:
    """Its memory is kept, and nobody else's."""

    def interrupted(flag: torch.Tensor, device: torch.device) -> int:
        raise KeyboardInterrupt

    broken = EnvelopeChecks(make_flag, interrupted)
    flag = broken.take_flag(HOST)
    with pytest.raises(KeyboardInterrupt):
        broken.settle(CALL, torch.ones(16), flag, HOST)
    assert broken.take_flag(HOST) is not flag
    assert any(kept is flag for kept in broken._flags)


def test_windows_without_versions_are_asked_each_time(checks: EnvelopeChecks) -> None:
    with torch.inference_mode():
        window = torch.ones(16)
        settle(checks, window)
        assert not checks.is_fine(CALL, window)
    flag = checks.take_flag(HOST)  # made under inference mode, and written outside of it
    flag.fill_(1)
    with pytest.raises(UnresolvedArguments):
        checks.settle(CALL, window, flag, HOST)


def test_nothing_is_kept_of_a_window_that_is_gone(checks: EnvelopeChecks) -> None:
    for _ in range(20):
        settle(checks, torch.ones(16))
    gc.collect()
    assert len(checks._fine) == 0
    kept = [torch.ones(16) for _ in range(envelope_checks.MAX_WINDOWS + 3)]
    for window in kept:
        settle(checks, window)
    assert 0 < len(checks._fine) <= envelope_checks.MAX_WINDOWS
    for hop in range(2 * envelope_checks.MAX_CALLS_OF_A_WINDOW):
        settle(checks, kept[-1], ((16, hop, 8, 0), 0))
    calls = checks._fine[id(kept[-1])][2]
    assert 0 < len(calls) <= envelope_checks.MAX_CALLS_OF_A_WINDOW


def params_of(frames: int, length: int | None = None, **more: int) -> IstftParams:
    spectrum = torch.zeros(1, 9, frames, dtype=torch.complex64)
    return istft_params(spectrum, torch.ones(16), n_fft=16, hop_length=4, length=length, **more)


def test_calls_of_many_frames_are_alike() -> None:
    assert params_of(40).geometry == params_of(41).geometry
    assert params_of(40).geometry != params_of(8).geometry
    assert params_of(40).geometry != params_of(40, center=False).geometry
    # Of these a whole hop that all frames lie over is kept, or not.
    assert params_of(400, 8).geometry[0] != params_of(401, 1000).geometry[0]
    sizes, tail = params_of(40, 150).geometry
    assert (sizes, tail + 1) == params_of(40, 149).geometry
    assert params_of(40, 500).geometry[1] == 0  # zeros follow


def test_values_are_read_where_no_kernel_is_asked(checks: EnvelopeChecks) -> None:
    params, window = params_of(9), torch.ones(16)
    checks.check(params, window)
    assert checks.is_fine(params.geometry, window)
    checks.check(params, None)
    with pytest.raises(UnresolvedArguments):
        checks.check(params, torch.zeros(16))


def test_kernels_know_torchs_threshold() -> None:
    assert f"return {NOLA_THRESHOLD:g}f;" in source("envelope.h")
