"""``torch-mlx-spectro demo``: one clip separated natively and accelerated, and compared."""
