"""What is known of torch's own functions: how they warn, order memory, and are intercepted."""
