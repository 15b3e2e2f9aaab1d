"""Both functions and their gradients at four sizes, for compute-sanitizer.

compute-sanitizer --tool memcheck python benchmarks/gpu_sanitized.py

Every gradient is asked three times: the first call resolves its launches, later ones are
remembered. Cotangents lie in memory in each of the ways that have a launch of their own.

memcheck also counts calls of the driver's API that fail: cuda-python asks for functions that a
driver lacks, and the first launch in a thread without a context is refused, mended and repeated.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

import torch_mlx_spectro as tms

#: n_fft, hop, window's values: walked over, of an odd hop, general, without a fused kernel.
SIZES = ((512, 128, 512), (2048, 441, 1500), (225, 60, 225), (202, 50, 190))
REPEATS = 3


def lay_out(result: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield cotangents of a result: as it lies, contiguous, strided, expanded."""
    yield torch.randn_like(result)
    yield torch.randn(result.shape, dtype=result.dtype, device=result.device)
    yield torch.randn(*result.shape, 2, dtype=result.dtype, device=result.device)[..., 0]
    yield torch.ones((), dtype=result.dtype, device=result.device).expand(result.shape)


def differentiate(result: torch.Tensor, inputs: list[torch.Tensor]) -> None:
    for cotangent in lay_out(result.detach()):
        torch.autograd.grad(result, inputs, cotangent, retain_graph=True)


def check_gradients(n_fft: int, hop: int, win: int) -> None:
    signal = torch.randn(2, 8 * n_fft, device="cuda", requires_grad=True)
    for window in (torch.hann_window(win, device="cuda") + 0.1, None):
        trained = window if window is None else window.clone().requires_grad_()
        for used in (window, trained) if trained is not None else (None,):
            inputs = [
                tensor for tensor in (signal, used) if tensor is not None and tensor.requires_grad
            ]
            for _ in range(REPEATS):
                z = tms.stft(signal, n_fft, hop, win, used, normalized=True, return_complex=True)
                differentiate(z, inputs)
                spectrum = z.detach().requires_grad_()
                y = tms.istft(spectrum, n_fft, hop, win, used, normalized=True)
                differentiate(y, [spectrum, *inputs[1:]])
                pair = tms.istft(z, n_fft, hop, win, used, normalized=True)
                pair.square().sum().backward()


def check_windows(n_fft: int, hop: int, win: int) -> None:
    """Check a window that is every other value of another, and one whose envelope vanishes."""
    signal = torch.randn(2, 8 * n_fft, device="cuda")
    strided = (torch.rand(2 * win, device="cuda") + 0.1)[::2]
    z = tms.stft(signal, n_fft, hop, win, strided, return_complex=True)
    tms.istft(z.contiguous(), n_fft, hop, win, strided)
    with contextlib.suppress(RuntimeError):
        tms.istft(z, n_fft, hop, win, torch.hann_window(win, device="cuda"), False)


def main() -> None:
    for size in SIZES:
        check_gradients(*size)
        check_windows(*size)
    torch.cuda.synchronize()
    print(tms.stats())


if __name__ == "__main__":
    with tms.backend("cuda", strict=True):
        main()
