"""Speed and error against native torch: what ``torch-mlx-spectro bench`` measures and compares.

Everything here is a function of values and returns values: :func:`.running.measure` a report (a
dictionary as :mod:`.schema` describes it), :func:`.comparing.compare` what changed between two.
The command prints them.
"""
