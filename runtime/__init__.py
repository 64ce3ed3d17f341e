"""Running and checking: compiled layers, networks, data, and the search for mistakes in any implementation.

What `codegen` emits becomes a callable here, on NumPy or CuPy arrays whose dtype, shape, strides and device
are checked at the border. A reference written without derivations or generated code stands beside it, and
Hypothesis compares the two.
"""
