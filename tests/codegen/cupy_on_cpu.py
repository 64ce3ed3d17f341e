"""Modules for CuPy without a GPU."""

import shutil

import pytest

from runtime.simt import on_cpu

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

__all__ = ["needs_compiler", "on_cpu"]
