"""What `tests.benchmarks.planning` measures is what it says: the layers of a ResNet-50, different layers, a slope."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derive.shapes import output_shape
from tests.benchmarks.planning import WIDEST, exponent, resnet50, stack


def test_a_resnet50_has_53_convolutions_of_4_billion_products_an_image() -> None:
    layers = resnet50(1)
    assert len(layers) == 53
    products = 0
    for layer, shape in layers:
        outputs = math.prod(int(size) for size in output_shape(layer, shape))
        products += outputs * math.prod(int(size) for size in layer.parameter_shapes()["weight"][1:])
    assert products == 4_087_136_256  # the 4.09 billion of the literature, less 2048 * 1000 of its dense layer


@given(st.integers(1, WIDEST // 2))
def test_no_layer_of_a_stack_is_there_twice(layers: int) -> None:
    found = stack(layers, 8)
    assert len(found) == len(set(found)) == layers + 1


@given(st.floats(0.5, 3), st.floats(0.1, 10))
def test_the_exponent_is_that_of_a_power(power: float, scale: float) -> None:
    counts = (6, 12, 24)
    assert exponent(counts, [scale * n**power for n in counts]) == pytest.approx(power)
