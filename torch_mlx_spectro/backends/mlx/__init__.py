"""The ``mlx`` backend: tensors cross to MLX by DLPack."""
