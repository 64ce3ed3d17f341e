"""The border: what is let through untouched, what is packed, what is refused, and the exact words of each refusal."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.arrays import ArrayError, checked, checked_labels, checked_parameters, float_dtype

SHAPE = (None, 1, 4, 5)


def image(batch: int = 3) -> np.ndarray:
    return np.arange(batch * 20, dtype=np.float32).reshape(batch, 1, 4, 5)


def misaligned(a: np.ndarray) -> np.ndarray:
    room = np.zeros(a.nbytes + 1, np.uint8)[1:]
    b = room.view(a.dtype).reshape(a.shape)
    b[...] = a
    return b


def read_only(a: np.ndarray) -> np.ndarray:
    b = a.copy()
    b.flags.writeable = False
    return b


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as made": lambda a: a,
    "flipped": lambda a: a[..., ::-1, ::-1].copy()[..., ::-1, ::-1],
    "transposed": lambda a: a.transpose(3, 2, 1, 0).copy().transpose(3, 2, 1, 0),
    "Fortran order": np.asfortranarray,
    "sliced": lambda a: np.repeat(a, 2, axis=3)[..., ::2],
    "misaligned": misaligned,
    "read-only": read_only,
}


# --- What goes through --------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_any_strides_are_read_as_they_are(layout: str, batch: int) -> None:
    x = LAYOUTS[layout](image(batch))
    assert checked("x", x, shape=SHAPE, dtype="float32") is x


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_packing_keeps_every_value_and_the_original(layout: str, batch: int) -> None:
    x = LAYOUTS[layout](image(batch))
    packed = checked("x", x, shape=SHAPE, dtype="float32", policy="packed")
    assert packed.flags.c_contiguous
    np.testing.assert_array_equal(packed, image(batch))
    if x.flags.c_contiguous:
        assert packed is x
    else:
        assert not np.shares_memory(packed, x)


def test_a_broadcast_array_is_packed_to_its_full_size() -> None:
    x = np.broadcast_to(np.float32(2), (2, 3))
    packed = checked("x", x, shape=(2, 3), dtype="float32", policy="packed")
    assert packed.flags.c_contiguous
    assert packed.tolist() == [[2, 2, 2], [2, 2, 2]]


def test_other_libraries_come_in_by_dlpack_without_a_copy() -> None:
    class Foreign:
        """The least that the array API asks of an array that is to be shared."""

        def __init__(self, held: np.ndarray) -> None:
            self.held = held

        def __dlpack__(self, **options: Any) -> object:
            return self.held.__dlpack__(**options)

        def __dlpack_device__(self) -> tuple[int, int]:
            return self.held.__dlpack_device__()

    x = image()
    found = checked("x", Foreign(x), shape=SHAPE, dtype="float32")
    assert np.shares_memory(found, x)
    np.testing.assert_array_equal(found, x)


@pytest.mark.oracle
def test_a_torch_tensor_shares_its_memory(torch: ModuleType) -> None:
    tensor = torch.arange(20.0).reshape(1, 1, 5, 4).transpose(2, 3)
    found = checked("x", tensor, shape=SHAPE, dtype="float32")
    np.testing.assert_array_equal(found, tensor.numpy())
    assert np.shares_memory(found, tensor.numpy())
    with pytest.raises(ArrayError, match=r"x is a torch.Tensor that cannot be shared with NumPy: .*requires? grad"):
        checked("x", tensor.clone().requires_grad_(), shape=SHAPE, dtype="float32")
    with pytest.raises(ArrayError, match=r"x has dtype float64, expected float32"):
        checked("x", tensor.double(), shape=SHAPE, dtype="float32")


# --- What is refused ----------------------------------------------------------------------------------------


class Elsewhere:
    """An array on the second GPU."""

    def __dlpack__(self, **_: Any) -> object:
        raise AssertionError("never asked for: it is on another device")

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 1


REFUSED = {
    "list": ([1.0], ("x is a list ([1.0]); expected a NumPy array, or one that exports DLPack; "
             "nearest legal: np.asarray(x) with the dtype you mean")),
    "long list": ([1.0] * 99, "x is a list ([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, ...]); expected a NumPy array"),
    "none": (None, "x is a NoneType (None); expected a NumPy array"),
    "masked": (np.ma.masked_array(image()), ("x is a MaskedArray, whose meaning a plain array would lose; "
               "nearest legal: np.asarray(x)")),
    "double": (image().astype("f8"), ("x has dtype float64, expected float32, and nothing is cast silently; "
               "nearest legal: x.astype('float32')")),
    "integers": (image().astype("i4"), "x has dtype int32, expected float32"),
    "bytes swapped": (image().astype(">f4"), "x has dtype >f4, expected float32"),
    "objects": (image().astype(object), "x has dtype object, expected float32"),
    "one axis": (image()[0], "x has shape (1, 4, 5), expected (any, 1, 4, 5): it has 3 axes, not 4"),
    "axis missing": (image()[:, 0], ("x has shape (3, 4, 5), expected (any, 1, 4, 5): it has 3 axes, not 4; "
                     "nearest legal: (3, 1, 4, 5)")),
    "too wide": (np.zeros((3, 1, 4, 6), "f4"), ("x has shape (3, 1, 4, 6), expected (any, 1, 4, 5): "
                 "axis 3 is 6, not 5; nearest legal: (3, 1, 4, 5)")),
    "no channel": (np.zeros((3, 0, 4, 5), "f4"), "axis 1 is 0, not 1; nearest legal: (3, 1, 4, 5)"),
    "elsewhere": (Elsewhere(), ("x lies on CUDA device 1, and nothing is moved between devices silently; "
                  "nearest legal: a copy of it in the memory of the CPU")),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_names_argument_condition_and_remedy(case: str) -> None:
    value, words = REFUSED[case]
    with pytest.raises(ArrayError) as refused:
        checked("x", value, shape=SHAPE, dtype="float32")
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("dtype", "nearest"), [("float16", "float32"), ("int64", "float64"), (">f8", "float64"), ("brain", "float32")]
)
def test_dtypes_other_than_two_are_refused(dtype: str, nearest: str) -> None:
    with pytest.raises(ArrayError) as refused:
        float_dtype(dtype)
    assert str(refused.value) == (
        f"dtype={dtype!r}: layers are generated for float32 and float64; nearest legal: {nearest!r}"
    )


@given(st.lists(st.integers(0, 4), max_size=4), st.lists(st.integers(0, 4), max_size=4))
def test_a_shape_passes_exactly_if_it_is_equal(found: list[int], wanted: list[int]) -> None:
    a = np.zeros(found)
    if found == wanted:
        assert checked("a", a, shape=wanted, dtype="float64").shape == tuple(found)
    else:
        with pytest.raises(ArrayError, match="a has shape"):
            checked("a", a, shape=wanted, dtype="float64")


# --- Labels -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "uint64"])
def test_labels_may_have_any_integer_dtype(dtype: str) -> None:
    y = np.arange(10).astype(dtype)
    assert checked_labels("y", y, count=10) is y
    assert checked_labels("y", y[::-2], count=5).tolist() == [9, 7, 5, 3, 1]
    assert checked_labels("y", y[:0], count=0).shape == (0,)


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (np.array([0.0, 1.0]), "y has dtype float64; labels are integers in 0..9, and nothing is cast silently"),
        (np.array([True, False]), "y has dtype bool; labels are integers in 0..9"),
        (np.array([[0, 1]]), "y has shape (1, 2), expected (2,): it has 2 axes, not 1; nearest legal: (2,)"),
        (np.array([0, 1, 2]), "y has shape (3,), expected (2,): axis 0 is 3, not 2; nearest legal: (2,)"),
        (np.array([0, -1]), "y[1] = -1 is not in 0..9; nearest legal: 0"),
        (np.array([10, 0], "uint8"), "y[0] = 10 is not in 0..9; nearest legal: 9"),
        ([0, 1], "y is a list ([0, 1]); expected a NumPy array"),
    ],
)
def test_labels_that_are_refused(y: object, words: str) -> None:
    with pytest.raises(ArrayError) as refused:
        checked_labels("y", y, count=2)
    assert words in str(refused.value)


# --- Parameters ---------------------------------------------------------------------------------------------

SHAPES = {"0.weight": (2, 3), "0.bias": (2,)}


def parameters() -> dict[str, Any]:
    return {name: np.ones(shape) for name, shape in SHAPES.items()}


def test_parameters_come_back_as_they_are_in_order() -> None:
    params = dict(reversed(parameters().items()))
    found = checked_parameters(params, SHAPES, dtype="float64")
    assert list(found) == list(SHAPES)
    assert all(found[name] is params[name] for name in SHAPES)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("1.weight", np.ones(2), "params has unknown '1.weight'; the parameters are '0.weight' (2, 3), '0.bias' (2,)"),
        ("0.weight", np.ones((3, 2)).T,
         ("params['0.weight'] is not C-contiguous (shape (2, 3), strides (8, 16) bytes), "
         "and a step in place on a copy would be lost; nearest legal: np.ascontiguousarray(params['0.weight'])")),
        ("0.bias", read_only(np.ones(2)), ("params['0.bias'] is read-only, and a step writes to it; "
         "nearest legal: params['0.bias'].copy()")),
        ("0.bias", misaligned(np.ones(2)), "params['0.bias'] is not aligned (address "),
        ("0.bias", np.ones(2, "f4"), "params['0.bias'] has dtype float32, expected float64"),
        ("0.bias", np.ones(3), "params['0.bias'] has shape (3,), expected (2,): axis 0 is 3, not 2"),
    ],
)  # fmt: skip
def test_parameters_that_a_step_could_not_update(name: str, value: object, words: str) -> None:
    with pytest.raises(ArrayError) as refused:
        checked_parameters(parameters() | {name: value}, SHAPES, dtype="float64")
    assert words in str(refused.value)


def test_a_missing_parameter_is_named() -> None:
    with pytest.raises(ArrayError, match=r"params lacks '0.weight', '0.bias'; the parameters are '0.weight' \(2, 3\)"):
        checked_parameters({}, SHAPES, dtype="float64")
    with pytest.raises(ArrayError, match=r"params lacks '0.bias' and has unknown '0.Bias'"):
        checked_parameters({"0.weight": np.ones((2, 3)), "0.Bias": np.ones(2)}, SHAPES, dtype="float64")


@given(st.integers(0, 10), st.integers(0, 10))
def test_overlap_is_found_exactly(first: int, second: int) -> None:
    room = np.zeros(20)
    params = {"a": room[first : first + 6].reshape(2, 3), "b": room[second : second + 2]}
    shapes = {"a": (2, 3), "b": (2,)}
    if set(range(first, first + 6)) & set(range(second, second + 2)):
        with pytest.raises(ArrayError, match="share memory, so a step on one would change the other"):
            checked_parameters(params, shapes, dtype="float64")
    else:
        checked_parameters(params, shapes, dtype="float64")
