"""The emitted CUDA measured on a GPU beside PyTorch and cuDNN, in one process: ``python -m tests.benchmarks.gpu``."""
