"""Networks like LeNet, drawn as specifications; sizes are drawn from the end, as what lies beyond the smallest."""

from dataclasses import dataclass

from hypothesis import strategies as st

from derive.layers import AvgPool2d, Conv2d, Flatten, Layer, Linear, Sequential, Sigmoid


@dataclass(frozen=True)
class Convolution:
    """One group: the settings of a convolution an axis, and the side of the pool after it, 1 for none."""

    channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    tile: int
    beyond: tuple[int, int]

    def layers(self, channels: int) -> list[Layer]:
        pair = [
            Conv2d(channels, self.channels, self.kernel, self.stride, self.padding, self.dilation),
            Sigmoid(),
        ]
        return [*pair, AvgPool2d(self.tile)] if self.tile > 1 else pair

    def input_size(self, output: tuple[int, int]) -> tuple[int, int]:
        """A size of the image that leads to at least this output; ``beyond`` adds remainders."""
        sizes = []
        for axis in (0, 1):
            windows = output[axis] * self.tile
            extent = self.dilation[axis] * (self.kernel[axis] - 1) + 1
            size = (windows - 1) * self.stride[axis] + extent - 2 * self.padding[axis]
            sizes.append(max(size, 1) + self.beyond[axis])
        return sizes[0], sizes[1]


@dataclass(frozen=True)
class Spec:
    """A network: the channels of its input, its convolutions, and the sizes of its dense layers."""

    channels: int
    convolutions: tuple[Convolution, ...]
    dense: tuple[int, ...]

    def network(self) -> tuple[Sequential, tuple[int, ...]]:
        size = (1, 1)
        for convolution in reversed(self.convolutions):
            size = convolution.input_size(size)
        layers: list[Layer] = []
        channels = self.channels
        for convolution in self.convolutions:
            layers += convolution.layers(channels)
            channels = convolution.channels
        shape = (1, self.channels, *size)
        layers.append(Flatten())
        for k, features in enumerate(self.dense):
            before = Sequential(*layers).output_shape(shape)[1].constant
            layers += [Linear(before, features)] + ([Sigmoid()] if k + 1 < len(self.dense) else [])
        return Sequential(*layers), shape


def pairs(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(low, high), st.integers(low, high))


CONVOLUTIONS = st.builds(
    Convolution, st.integers(1, 3), pairs(1, 3), pairs(1, 2), pairs(0, 2), pairs(1, 2), st.integers(1, 3), pairs(0, 2)
)
SPECS = st.builds(
    Spec,
    st.integers(1, 3),
    st.lists(CONVOLUTIONS, min_size=1, max_size=2).map(tuple),
    st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple),
)
