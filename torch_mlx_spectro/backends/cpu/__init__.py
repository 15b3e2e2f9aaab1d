"""The ``cpu`` backend computes tensors of the host by torch's own operations."""
