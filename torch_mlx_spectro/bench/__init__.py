"""Speed and error against native torch: what ``torch-mlx-spectro bench`` measures and compares.

:func:`.running.measure` returns a report, a dictionary that :mod:`.schema` describes.
:func:`.comparing.compare` returns what changed between two reports. The command prints them.
"""
