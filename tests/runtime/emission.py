"""`codegen.emit` as the tests use it: real, noted, and the same request printed once a session."""

from typing import Any

import codegen
from derive.layers import Layer


class Emission:
    """`emit`, noting the layers that it was asked for."""

    def __init__(self) -> None:
        self.asked: list[Layer] = []

    def emit(self, layer: Layer, **options: Any) -> codegen.Emitted:
        self.asked.append(layer)
        key = repr((layer, sorted(options.items())))
        if key not in _printed:
            _printed[key] = _emit(layer, **options)
        return _printed[key]


_emit = codegen.emit
_printed: dict[str, codegen.Emitted] = {}
