"""Both functions and their gradients at four sizes, once each, for compute-sanitizer.

compute-sanitizer --tool memcheck python benchmarks/gpu_sanitized.py
"""

from __future__ import annotations

import contextlib

import torch

import torch_mlx_spectro as tms

#: n_fft, hop, window's values: walked over, of an odd hop, general, without a fused kernel.
SIZES = ((512, 128, 512), (2048, 441, 1500), (225, 60, 225), (202, 50, 190))


def main() -> None:
    for n_fft, hop, win in SIZES:
        signal = torch.randn(2, 8 * n_fft, device="cuda", requires_grad=True)
        for window in (torch.hann_window(win, device="cuda") + 0.1, None):
            z = tms.stft(signal, n_fft, hop, win, window, normalized=True, return_complex=True)
            y = tms.istft(z, n_fft, hop, win, window, normalized=True)
            y.square().sum().backward()
        strided = (torch.rand(2 * win, device="cuda") + 0.1)[::2]
        tms.istft(z.detach().contiguous(), n_fft, hop, win, strided)
        with contextlib.suppress(RuntimeError):  # its envelope vanishes
            tms.istft(z.detach(), n_fft, hop, win, torch.hann_window(win, device="cuda"), False)
    torch.cuda.synchronize()


if __name__ == "__main__":
    with tms.backend("cuda", strict=True):
        main()
