"""Plain NumPy twins of the native kernels: slow, obvious, and what the kernels are held against."""
