"""The transforms of MLX's own arrays, without torch."""
