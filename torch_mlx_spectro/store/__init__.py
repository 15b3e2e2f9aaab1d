"""Caches in a process, and files and verdicts between processes."""
