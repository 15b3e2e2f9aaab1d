"""What is kept: caches in a process, files and verdicts between processes."""
