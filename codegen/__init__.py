"""Plans and text: how a machine computes a layer, and the standalone module that does it.

A plan is a list of stages, each a new tensor with a layout and a role for every group of axes; that it
computes its layer is one theorem of `derive`, for all sizes. Templates turn each stage into NumPy or CUDA
text, which imports nothing of this project, is the same on every machine, and is executed exactly against
the stages before it is trusted.
"""
