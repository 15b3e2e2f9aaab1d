"""One call as a value: the function, its arguments, its key and its kind."""
