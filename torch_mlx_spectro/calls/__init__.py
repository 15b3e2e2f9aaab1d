"""One call as a value: the function, its arguments, and what it is known by."""
