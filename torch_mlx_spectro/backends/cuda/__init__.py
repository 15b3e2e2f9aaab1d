"""The ``cuda`` backend: our kernels by NVRTC, on torch's current stream."""
