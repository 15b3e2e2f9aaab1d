"""The ``mps`` backend: our kernels on torch's own stream of Metal commands."""
