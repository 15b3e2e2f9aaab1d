"""Adapters to begin with, one for each kind of array, which ``parity --new`` writes.

Each works as it is: it holds a small STFT of its own, written out, where somebody's own goes.
"""
