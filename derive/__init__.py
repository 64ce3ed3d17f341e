"""The mathematics: layers, what they compute, and theorems about it that hold for all sizes.

A layer is described by its arguments and defined by one equation. The rules of the kernel rewrite that
equation step by step, each step with its side condition discharged, into the formula that `codegen` turns
into text: the steps shown to a reader are the computation itself. Nothing here holds an array.
"""
