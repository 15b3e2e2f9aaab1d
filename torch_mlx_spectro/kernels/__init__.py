"""The fused kernels: their sources (``metal_src/``), plans, tables and launchers."""
