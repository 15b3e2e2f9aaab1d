"""How kernels read tensors: in which order, and where complex values have to lie."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cuda_stand_in import Recorder, recording, standing_in
from reference import istft_params, random_tensor

from torch_mlx_spectro.backends.device.backend import (
    frames_fastest,
    is_readable,
    make_readable,
    resolve_bits,
)
from torch_mlx_spectro.calls.operation import Call


def test_where_frames_are_no_nearer_than_bins_these_are_read_first() -> None:
    """A spectrum of one frame has both at steps of 1, and its bins in memory one by one."""
    contiguous = torch.zeros(2, 9, 5, dtype=torch.complex64)
    by_bins = torch.zeros(2, 5, 9, dtype=torch.complex64).mT
    one = torch.zeros(2, 9, 1, dtype=torch.complex64)
    assert one.stride()[1:] == (1, 1)
    found = [frames_fastest(z.mT) for z in (contiguous, by_bins, one)]
    assert found == [True, False, False]
    assert not frames_fastest(torch.zeros(1).expand(2, 5, 9))


def test_one_frame_is_launched_as_where_bins_are_neighbours() -> None:
    one = torch.zeros(2, 9, 1, dtype=torch.complex64)
    params = istft_params(one, None, n_fft=16, hop_length=4, center=False)
    other = torch.zeros(2, 1, 9, dtype=torch.complex64).mT
    with standing_in(recording(Recorder())) as backend:
        expected = backend.list_launches(Call(params, other, None))
        assert backend.list_launches(Call(params, one, None)) == expected


@pytest.mark.parametrize("offset", [0, 4])
def test_complex_values_are_read_on_their_own_boundary(offset: int) -> None:
    """Others are copied; a GPU reads both parts at once."""
    values = random_tensor(0, 6, complex_values=True)
    memory = np.empty(values.nbytes + 12, np.uint8)
    start = -memory.ctypes.data % 8 + offset
    there = memory[start : start + values.nbytes].view(np.complex64)
    there[:] = values.numpy()
    tensor = torch.from_numpy(there)
    assert tensor.data_ptr() % 8 == offset
    for read in (resolve_bits(tensor), make_readable(tensor)):
        assert read is not None
        assert read.data_ptr() % 8 == 0
        assert (read.data_ptr() == tensor.data_ptr()) == (offset == 0)
        assert torch.equal(read, values)
    assert is_readable(tensor) == (offset == 0)


def test_real_values_are_read_where_they_are() -> None:
    values = random_tensor(0, 7)
    for tensor in (values, values[1:]):
        assert resolve_bits(tensor).data_ptr() == tensor.data_ptr()
        assert is_readable(tensor)


def test_values_with_bits_are_read_as_they_look() -> None:
    values = random_tensor(0, 6, complex_values=True)
    for tensor in (values.conj(), torch._neg_view(values)):
        assert not is_readable(tensor)
        assert torch.equal(resolve_bits(tensor), tensor)
        assert is_readable(resolve_bits(tensor))
