"""What is measured: the 3x3 and 1x1 layers of ResNet-50, depthwise layers of MobileNet, and the sizes of a run.

A case is one layer at one shape, one of its results, and the numbers it is computed in.  Its cost is that of the
definition, products with padding included, and each array moved once: an algorithm may do fewer operations, and a
cache may move fewer bytes.  Layers come from tables 1 of He, Zhang, Ren and Sun 2016 ("Deep residual learning for image
recognition", with the stride on the 3x3 layer, as PyTorch has it) and of Howard et al. 2017 ("MobileNets").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Literal

from derive.layers import Conv2d

Part = Literal["forward", "input", "weight"]
PARTS: tuple[Part, ...] = ("forward", "input", "weight")
NUMBERS = ("float32", "tf32", "float16", "bfloat16")
ITEMSIZES = {"float32": 4, "tf32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class Case:
    """One result of a layer without bias at a shape, in these numbers."""

    name: str
    layer: Conv2d
    shape: tuple[int, int, int, int]
    part: Part
    numbers: str

    @property
    def output_shape(self) -> tuple[int, ...]:
        """With the batch first."""
        return tuple(int(n.constant or 0) for n in self.layer.output_shape(self.shape))

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Outputs, channels of a group, rows, columns."""
        return tuple(int(n) for n in self.layer.parameter_shapes()["weight"])

    @property
    def operations(self) -> int:
        """Two for each multiply-add of the definition."""
        return 2 * prod(self.output_shape) * prod(self.weight_shape[1:])

    @property
    def bytes(self) -> int:
        """Each of the three arrays once."""
        arrays = (self.shape, self.output_shape, self.weight_shape)
        return ITEMSIZES[self.numbers] * sum(prod(shape) for shape in arrays)


# name: channels, outputs, kernel size, stride, side of the image, groups
RESNET = {
    "3x3-64": (64, 64, 3, 1, 56, 1),
    "3x3-128s2": (128, 128, 3, 2, 56, 1),
    "3x3-128": (128, 128, 3, 1, 28, 1),
    "3x3-256s2": (256, 256, 3, 2, 28, 1),
    "3x3-256": (256, 256, 3, 1, 14, 1),
    "3x3-512s2": (512, 512, 3, 2, 14, 1),
    "3x3-512": (512, 512, 3, 1, 7, 1),
    "1x1-64-256": (64, 256, 1, 1, 56, 1),
    "1x1-256-64": (256, 64, 1, 1, 56, 1),
    "1x1-512-128": (512, 128, 1, 1, 28, 1),
    "1x1-128-512": (128, 512, 1, 1, 28, 1),
    "1x1-1024-256": (1024, 256, 1, 1, 14, 1),
    "1x1-256-1024": (256, 1024, 1, 1, 14, 1),
    "1x1-2048-512": (2048, 512, 1, 1, 7, 1),
    "1x1-512-2048": (512, 2048, 1, 1, 7, 1),
}
DEPTHWISE = {
    "depthwise-32": (32, 32, 3, 1, 112, 32),
    "depthwise-128": (128, 128, 3, 1, 56, 128),
    "depthwise-512": (512, 512, 3, 1, 14, 512),
}
QUICK = ("3x3-64", "3x3-128", "1x1-256-64", "1x1-256-1024", "depthwise-128")
TINY = {
    "3x3-tiny": (3, 4, 3, 1, 6, 1),
    "3x3-tiny-s2": (3, 4, 3, 2, 7, 1),
    "1x1-tiny": (5, 3, 1, 1, 5, 1),
    "depthwise-tiny": (4, 4, 3, 1, 6, 4),
}


@dataclass(frozen=True)
class Size:
    """How much of everything a run takes.

    Attributes:
        layers: the layers, as in `RESNET`.
        batch: images of a layer.
        rounds: samples of each contestant.
        steps: training steps between two events.
        images: batch sizes of the training step.
        copied: bytes of each array of the copy.
        side: of the matrices of the product.
        passes: the shape of the input of a pool or an activation (``passes``).
        lead: bytes written before a sample, so that caches hold nothing and the host is ahead of the GPU.
    """

    layers: dict[str, tuple[int, int, int, int, int, int]]
    batch: int
    rounds: int
    steps: int
    images: tuple[int, ...]
    copied: int
    side: int
    lead: int
    passes: tuple[int, ...] = (256, 64, 56, 56)


FULL = Size({**RESNET, **DEPTHWISE}, 32, 25, 20, (128, 256, 1024), 1 << 30, 8192, 1 << 29)
SHORT = Size({key: FULL.layers[key] for key in QUICK}, 32, 9, 20, (256,), 1 << 29, 4096, 1 << 29)
SMALLEST = Size(TINY, 2, 1, 1, (2,), 1 << 10, 8, 1 << 10, (2, 3, 5, 6))


def cases(size: Size, prefix: str = "") -> Iterator[Case]:
    """Every layer in every part and format whose name ``LAYER-PART-NUMBERS`` begins so."""
    for key, (channels, outputs, kernel, stride, side, groups) in size.layers.items():
        layer = Conv2d(channels, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        shape = (size.batch, channels, side, side)
        for part in PARTS:
            for numbers in NUMBERS:
                name = f"{key}-{part}-{numbers}"
                if name.startswith(prefix):
                    yield Case(name, layer, shape, part, numbers)
