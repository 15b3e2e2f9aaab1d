"""The rules of derivatives, once for all backends."""
