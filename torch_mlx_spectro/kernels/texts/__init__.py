"""Write the text of a kernel for each compiler: CUDA's, MLX's, and torch's on MPS."""
