"""Who can compute, one folder each; :mod:`.registry` has their names."""
