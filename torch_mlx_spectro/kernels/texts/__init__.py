"""What a compiler of each kind is given."""
