"""Calls that Hypothesis has drawn, computed by a backend and compared with native's."""

from __future__ import annotations

import warnings

from patched import NATIVE

from stft_parity.cases import Case
from stft_parity.compare.measuring import measure
from torch_mlx_spectro.backends.base import Backend
from torch_mlx_spectro.calls.operation import ISTFT, STFT, Call
from torch_mlx_spectro.dispatch.choice import unsupported_reasons
from torch_mlx_spectro.dispatch.decide import _resolve
from torch_mlx_spectro.errors import UnresolvedArguments

OPERATIONS = {"stft": STFT, "istft": ISTFT}


def check_drawn(name: str, backend: Backend, case: Case) -> bool:
    """Compare a call with native's; tell whether it is one that the backend is given.

    Args:
        name: of the backend.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tensors = case.tensors()
        args, kwargs = case.bind(tensors)
        try:
            expected = NATIVE[case.op](*args, **kwargs)
        except Exception:  # torch's own, of whichever kind: a call that it rejects is no backend's
            return False
        bound = OPERATIONS[case.op].bind(*args, **kwargs)
        tensor, window = bound["input"], bound["window"]
        if unsupported_reasons((("input", tensor), ("window", window)), name):
            return False
        try:
            params = _resolve(OPERATIONS[case.op], bound)
        except UnresolvedArguments:
            return False
        assert backend.explain_refusal(Call(params, tensor, window)) is None
        actual = getattr(backend, case.op)(params, tensor, window)
        told = case.reproducer()
        assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype), told
        assert actual.stride() == expected.stride(), told
        assert not any((actual.is_conj(), actual.is_neg(), actual.requires_grad)), told
        assert actual._is_view() == expected._is_view(), told
        for given in tensors.values():
            assert actual.untyped_storage().data_ptr() != given.untyped_storage().data_ptr(), told
        measured = measure(case, tensors, expected, actual, NATIVE[case.op])
        assert measured.admitted, f"{measured.complaint()}\n{told}"
    return True
