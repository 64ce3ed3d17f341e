"""Memory that processes share: arrays that do not touch, keep their memory while they live, and give it back after."""

import gc
import mmap

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from runtime.arrays import channels_last, with_channels_last
from runtime.shared import Form, Memory
from runtime.worker import array_at

MEMORY = Memory()
FORMS = st.builds(
    Form,
    st.lists(st.integers(0, 5), min_size=3, max_size=5).map(tuple),
    st.sampled_from(["uint8", "float32", "int64"]),
    st.booleans(),
)


@given(st.lists(FORMS, max_size=5))
def test_arrays_lie_apart_and_where_it_is_said(forms: list[Form]) -> None:
    arrays, places = MEMORY.arrays(forms)
    for number, array in enumerate(arrays):
        array[...] = number
    whole = mmap.mmap(MEMORY.file, max(MEMORY.size, 1)) if MEMORY.size else b""
    for number, (form, array, place) in enumerate(zip(forms, arrays, places, strict=True)):
        assert array.shape == form.shape
        assert array.dtype == form.dtype
        there = array_at(whole, place)
        assert there.shape == form.shape
        assert (there == number).all()
        assert place[0] % 64 == 0
        if array.size and not form.channels_last:
            assert array.flags.c_contiguous


@given(FORMS)
def test_a_copy_has_the_layout_of_what_it_is_a_copy_of(form: Form) -> None:
    original = np.ones(form.shape, form.dtype)
    if form.channels_last and original.ndim > 2:
        original = with_channels_last(original)
    found = Form.of(original)
    (copy,), _ = MEMORY.arrays([found])
    assert channels_last(copy) == channels_last(original)
    if original.size and not found.channels_last:
        assert copy.flags.c_contiguous


def test_memory_is_free_again_when_the_last_view_has_gone() -> None:
    memory = Memory()
    form = Form((100, 100), "float64")

    def view() -> np.ndarray:
        (array,), _ = memory.arrays([form])
        array[...] = 7
        return array[3:5].T[1:]

    kept = view()
    size = memory.size
    (other,), _ = memory.arrays([form])
    assert memory.size > size  # what is still seen is not handed out
    other[...] = 0
    assert (kept == 7).all()
    del kept, other
    gc.collect()
    size = memory.size
    for _ in range(20):
        arrays, _ = memory.arrays([form])
        del arrays
    assert memory.size == size


def test_many_arrays_hold_few_files_open() -> None:
    memory = Memory()
    kept = [memory.arrays([Form((5000,), "uint8")])[0] for _ in range(200)]
    for number, (array,) in enumerate(kept):
        array[...] = number
    assert all((array == number).all() for number, (array,) in enumerate(kept))
    assert len({id(block.mapped) for block in (memory._new(8192) for _ in range(200))}) < 6


def test_an_array_outlives_the_memory() -> None:
    (array,), _ = Memory().arrays([Form((3, 4), "int64")])
    array[...] = 5
    gc.collect()
    assert (array == 5).all()
