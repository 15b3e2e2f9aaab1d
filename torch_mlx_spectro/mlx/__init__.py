"""MLX as a tool: its streams, operations in blocks, and launches of our kernels."""
