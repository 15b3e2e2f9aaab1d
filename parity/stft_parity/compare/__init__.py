"""Compares one call of a candidate with native torch, in every respect."""
