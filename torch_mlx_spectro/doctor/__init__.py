"""``torch-mlx-spectro doctor``: whether everything works on this machine."""
