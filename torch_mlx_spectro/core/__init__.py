"""Sizes, padding, envelopes and linear maps of a call, in integers and numpy."""
