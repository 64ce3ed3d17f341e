"""Tiles that are asked for: in the text and its provenance, exact like any other, refused in words where illegal."""

import re

import pytest

import codegen
from codegen.check import check
from codegen.emit import EmitError, emit
from derive.layers import Conv1d, Conv2d, Sequential
from tests.codegen.cupy_on_cpu import needs_compiler, on_cpu

LAYER, SHAPE = Conv2d(9, 10, 3, padding=1), (2, 9, 6, 5)


def asked(**options: object) -> codegen.Emitted:
    return emit(LAYER, backend="cupy", input_shape=SHAPE, **options)  # type: ignore[arg-type]


def test_the_kernel_has_the_tile_and_others_are_as_they_were() -> None:
    plain, other = asked(), asked(tiles={"input_gradient": "64x32"})
    assert "64 x 32 of it" in next(k.text for k in other.kernels if k.name == "compute_dX")
    texts = [{k.name: k.text for k in e.kernels if k.name != "compute_dX"} for e in (plain, other)]
    assert texts[0] == texts[1]
    assert plain.cuda != other.cuda
    assert asked(tiles={}).source == plain.source == asked(tiles=None).source


def test_the_text_says_how_it_is_made_again() -> None:
    tiles = {"weight_gradient": "32x32", "forward": "128x64"}
    source = asked(tiles=tiles, dtype="float16").source
    call = re.search(r"codegen\.emit\((.*)\)\.write", source.replace("\n        ", " "))
    assert call is not None
    assert 'tiles={"forward": "128x64", "weight_gradient": "32x32"}' in call.group(0)
    import derive

    again = eval(f"emit({call.group(1)})", {"emit": emit, "derive": derive})
    assert again.source == source


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tiles": {"forward": "8x8"}}, "tiles['forward']='8x8': it has to be one of '128x128', '64x128'"),
        ({"tiles": {"forward": "8x256"}, "dtype": "float16"}, "tiles['forward']='8x256': it has to be one of"),
        ({"tiles": {"forward": "128x128"}, "dtype": "float64"}, "tiles['forward']='128x128': it has to be one of"),
        ({"tiles": {"bias_gradient": "64x64"}}, "tiles='bias_gradient': it has to be one of 'forward', 'input_g"),
    ],
)
def test_another_tile_is_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(EmitError) as refused:
        asked(**options)
    assert said in str(refused.value)


def test_without_a_product_there_is_no_tile() -> None:
    with pytest.raises(EmitError, match="there is a choice for a convolution for CuPy only"):
        emit(LAYER, input_shape=SHAPE, tiles={"forward": "64x64"})
    with pytest.raises(EmitError, match="no result of this layer is a matrix product; nearest legal: None"):
        emit(Conv1d(1, 1, 2), backend="cupy", input_shape=(1, 1, 9), tiles={"forward": "64x64"})
    with pytest.raises(EmitError):
        emit(Sequential(LAYER), backend="cupy", input_shape=SHAPE, tiles={"forward": "64x64"})


@needs_compiler
def test_a_choice_is_executed_exactly() -> None:
    check(asked(tiles={"forward": "128x32", "input_gradient": "8x256", "weight_gradient": "64x32"}), executor=on_cpu)
