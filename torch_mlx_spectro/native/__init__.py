"""torch's own functions: how they warn, which memory order they give, and who intercepts them."""
