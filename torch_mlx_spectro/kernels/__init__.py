"""What the kernels of ``metal_src`` are launched with: plans, tables, launches and text."""
