"""What backends share that run our kernels on torch's tensors where these lie."""
