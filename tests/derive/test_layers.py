"""Layers: what they compute, which are legal, and what a user is told about those that are not."""

from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import derive
from derive.indices import index, symbol, symbols
from derive.layers import Conv, symbolic
from derive.legality import LayerError, fresh, window
from derive.terms import tensor
from tests.derive.brute import datum, element

small = st.integers(1, 4)


@given(n=st.integers(1, 7), k=small, s=small, d=small, p=st.integers(0, 3))
def test_a_convolution_is_a_sum_over_windows(n: int, k: int, s: int, d: int, p: int) -> None:
    assume(n + 2 * p > d * (k - 1))
    layer = derive.Conv1d(2, 2, k, stride=s, padding=p, dilation=d)
    z = layer.on(tensor("X", 1, 2, n)).y
    (_, _, (_, outputs)) = z.box
    for m, i in product(range(2), range(outputs.constant or 0)):
        cells = [(c, a, i * s + a * d - p) for c in range(2) for a in range(k)]
        expected = sum(datum("W", (m, c, a)) * datum("X", (0, c, h)) for c, a, h in cells if 0 <= h < n)
        assert element(z, (0, m, i), {}) == expected + datum("u", (m,))


@st.composite
def grouped(draw: st.DrawFn) -> tuple[int, int, int]:
    """Groups, and how many input and output channels each has."""
    return draw(st.integers(2, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))


@given(sizes=grouped(), n=st.integers(1, 5), k=small, s=small, d=small, p=st.integers(0, 2))
def test_a_group_of_outputs_reads_its_own_group_of_inputs(
    sizes: tuple[int, int, int], n: int, k: int, s: int, d: int, p: int
) -> None:
    assume(n + 2 * p > d * (k - 1))
    g, inputs, outputs = sizes
    layer = derive.Conv1d(g * inputs, g * outputs, k, stride=s, padding=p, dilation=d, groups=g)
    assert layer.parameter_shapes()["weight"] == (g * outputs, inputs, k)
    z = layer.on(tensor("X", 1, g * inputs, n)).y
    last = (n + 2 * p - d * (k - 1) - 1) // s
    for q, r, i in product(range(g), range(outputs), {0, last}):
        m, cells = q * outputs + r, [(c, a, i * s + a * d - p) for c in range(inputs) for a in range(k)]
        read = [(datum("W", (m, c, a)), datum("X", (0, q * inputs + c, h))) for c, a, h in cells if 0 <= h < n]
        assert element(z, (0, m, i), {}) == sum(w * x for w, x in read) + datum("u", (m,))


@pytest.mark.parametrize("like", [derive.Conv2d(4, 6, 1, groups=2), derive.Conv2d(3, 3, 1, groups=3)])
def test_a_symbolic_grouped_layer_is_the_layer_at_every_size(like: Conv) -> None:
    layer, shape = symbolic(derive.Conv2d, like=like)
    applied = layer.on(tensor("X", *shape))
    inputs, outputs = like.group_sizes()
    sizes = {"N": 1, "C": 3, "g": 2, "Cg": inputs.constant or 0, "Og": outputs.constant or 0}
    for axis, (n, k, s, d, p) in enumerate([(5, 2, 2, 3, 1), (4, 3, 1, 1, 0)]):
        named = {"n": n, "k": k, "s": s, "d": d, "p": p, "o": (n + 2 * p - d * (k - 1) - 1) // s + 1}
        sizes |= {f"{name}{axis}": size for name, size in named.items()}
    assert all(fact.holds(sizes) for fact in applied.facts)
    channels = (like.in_channels, like.out_channels)
    same = derive.Conv2d(*channels, (2, 3), stride=(2, 1), dilation=(3, 1), padding=(1, 0), groups=like.groups)
    numbers = same.on(tensor("X", 1, like.in_channels, 5, 4)).y
    for at in product(range(1), range(int(str(like.out_channels))), range(2), range(2)):
        assert element(applied.y, at, sizes) == element(numbers, at, {})


def test_one_group_is_no_groups() -> None:
    plain, one = derive.Conv2d(4, 6, 3), derive.Conv2d(4, 6, 3, groups=index(1))
    assert (plain.is_grouped, one.is_grouped) == (False, False)
    assert plain.on(tensor("X", 1, 4, 5, 5)).y == one.on(tensor("X", 1, 4, 5, 5)).y
    assert symbolic(derive.Conv2d, like=plain) == symbolic(derive.Conv2d)
    assert not derive.Conv1d(1, 1, 3).is_depthwise


def test_a_symbolic_number_of_groups_is_a_factor_of_the_channels() -> None:
    g, c, o = symbols("g c o")
    layer = derive.Conv1d(g * c + 2 * g, o * g, 3, groups=g)
    assert [str(e) for e in layer.group_sizes()] == ["c+2", "o"]
    assert [str(e) for e in layer.parameter_shapes()["weight"]] == ["g*o", "c+2", "3"]
    assert derive.Conv1d(g, g, 3, groups=g).is_depthwise
    assert [str(e) for e in derive.Conv1d(4 * g, 6 * g, 3, groups=2 * g).group_sizes()] == ["2", "3"]


def test_a_mean_is_over_its_window() -> None:
    pool = derive.AvgPool2d(2, stride=3).on(tensor("X", 1, 1, 6, 5)).y
    assert [str(hi) for _, hi in pool.box] == ["1", "1", "2", "2"]
    cells = [datum("X", (0, 0, 3 + r, q)) for r in range(2) for q in range(2)]
    assert element(pool, (0, 0, 1, 0), {}) == sum(cells) / 4


ILLEGAL_SETTINGS = [
    (lambda: derive.Conv2d(1, 6, 0), "kernel_size=0 is not legal: a kernel has at least one cell on spatial axis 0"),
    (
        lambda: derive.Conv2d(1, 6, (3, 0)),
        "at least one cell on spatial axis 1",
    ),
    (lambda: derive.Conv2d(1, 6, 3, stride=0), "stride=0 is not legal: a window moves by at least one cell"),
    (lambda: derive.Conv1d(1, 6, 3, dilation=-2), "dilation=-2 is not legal: kernel cells are at least one apart"),
    (lambda: derive.Conv1d(1, 6, 3, padding=-1), "padding=-1 is not legal: zeros are added, never removed"),
    (
        lambda: derive.Conv3d(0, 6, 3),
        "in_channels=0 is not legal: in_channels is at least 1; the nearest",
    ),
    (lambda: derive.Linear(4, 0), "out_features=0 is not legal: out_features is at least 1"),
    (lambda: derive.AvgPool2d(2, stride=0), "stride=0 is not legal"),
    (lambda: derive.Conv2d(1, 6, (3, 3, 3)), "kernel_size=(3, 3, 3): 2 numbers are needed, one an axis"),
    (lambda: derive.Conv2d(1, 6, 2.5), "kernel_size=2.5: a dimension is an integer or a size symbol, not float"),
    (lambda: derive.Conv2d(1, True, 3), "out_channels=True: a dimension is an integer or a size symbol, not bool"),
    (lambda: derive.Conv2d(1, 6, 3, padding="same"), "padding='same': a dimension is an integer or a size symbol"),
    (
        lambda: derive.Conv2d(6, 8, 3, groups=4),
        "in_channels=6 is not legal: groups=4 has to divide in_channels, and 6 = 1*4 + 2; the nearest legal value is 8",
    ),
    (
        lambda: derive.Conv1d(8, 9, 3, groups=4),
        "out_channels=9 is not legal: groups=4 has to divide out_channels, and 9 = 2*4 + 1; the nearest legal value is",
    ),
    (lambda: derive.Conv2d(2, 8, 3, groups=4), "and 2 = 0*4 + 2; the nearest legal value is 4"),
    (
        lambda: derive.Conv2d(6, 8, 3, groups=0),
        "groups=0 is not legal: groups is at least 1; the nearest legal value is 1",
    ),
    (lambda: derive.Conv2d(6, 8, 3, groups="2"), "groups='2': a dimension is an integer or a size symbol, not str"),
    (
        lambda: derive.Conv2d(symbol("C"), 8, 3, groups=2),
        "groups=2 is not legal with C channels: it has to be a factor of them by its form; nearest legal: 2*Cg",
    ),
    (lambda: derive.Conv2d(3 * symbol("C"), 8, 3, groups=2), "groups=2 is not legal with 3*C channels"),
    (lambda: derive.Conv2d(symbol("C"), 8, 3, groups=symbol("C")), "groups=C is not legal with 8 channels"),
    (lambda: derive.AvgPool1d(symbol("k")), "kernel_size=k: the mean divides by k"),
]


@pytest.mark.parametrize(("build", "text"), ILLEGAL_SETTINGS)
def test_an_illegal_setting_is_named_with_its_value(build: object, text: str) -> None:
    with pytest.raises(LayerError) as error:
        build()  # type: ignore[operator]
    assert text in str(error.value)


FORMULA = """input size=4 is not legal: no window fits on spatial axis 0:
(n + pl + pr - d*(k - 1) - 1)//s + 1 = (4 + 0 + 0 - 1*(5 - 1) - 1)//1 + 1 is less than 1;
the nearest legal value is 5"""

ILLEGAL_SHAPES = [
    (
        derive.Conv2d(1, 6, 5),
        (8, 1, 4, 28),
        FORMULA,
    ),
    (derive.Conv1d(1, 6, 3, padding=1, dilation=4), (8, 1, 2), "the nearest legal value is 7"),
    (derive.Conv2d(3, 6, 5), (8, 1, 28, 28), "in_channels=3 is not legal: the number of channels of the input is 1"),
    (derive.Conv2d(3, 6, 5), (8, 3, 28), "the input (8, 3, 28) has 3 axes, 4 are needed: (N, C, H, W)"),
    (derive.Conv2d(3, 6, 5), (-1, 3, 28, 28), "batch size=-1 is not legal"),
    (derive.Linear(400, 10), (8, 256), "in_features=400 is not legal: the last size of the input is 256"),
    (derive.lenet(), (1, 1, 20, 20), "layer 7 of 12, Linear(in_features=400"),
    (derive.Sequential(), (1, 2), "Sequential(): at least one layer is needed"),
]


@pytest.mark.parametrize(("layer", "shape", "text"), ILLEGAL_SHAPES)
def test_an_illegal_shape_is_explained(layer: derive.Conv2d, shape: tuple[int, ...], text: str) -> None:
    with pytest.raises(LayerError) as error:
        layer.output_shape(shape)
    assert " ".join(text.split()) in str(error.value)


@given(n=st.integers(-2, 9), k=small, s=small, d=small, p=st.integers(0, 3))
def test_the_nearest_legal_size_is_legal_and_nearest(n: int, k: int, s: int, d: int, p: int) -> None:
    conditions = window(n, k, s, d, p, p).conditions()
    wrong = [c for c in conditions if not c.guard.holds({})]
    assume(wrong and wrong[0].argument == "input size")
    legal = [m for m in range(-5, 40) if all(c.guard.holds({}) for c in window(m, k, s, d, p, p).conditions())]
    assert wrong[0].nearest == index(min(legal))


def test_integers_of_other_libraries_and_lists_are_accepted() -> None:
    layer = derive.Conv2d(np.int64(3), 6, [3, np.int32(5)], padding=(1, 2))  # type: ignore[arg-type]
    assert layer == derive.Conv2d(3, 6, (3, 5), padding=(1, 2))


@pytest.mark.parametrize("kind", [derive.Conv1d, derive.Conv2d, derive.Conv3d])
def test_the_facts_at_numbers_are_the_conditions(kind: type[Conv]) -> None:
    layer, shape = symbolic(kind)
    facts = layer.on(tensor("X", *shape)).facts
    assert len(set(facts)) == len(facts)
    sizes = {"N": 2, "C": 3, "M": 4}
    for axis in range(kind.axes):
        sizes |= {f"{name}{axis}": size for name, size in zip("nkspdo", (9, 3, 2, 1, 1, 5), strict=True)}
    assert all(f.holds(sizes) for f in facts)
    assert not all(f.holds(sizes | {"o0": 4}) for f in facts)
    assert not all(f.holds(sizes | {"o0": 6}) for f in facts)


def test_two_symbolic_layers_have_two_output_sizes() -> None:
    """One symbol for both would make the facts contradict each other, and so prove anything."""
    x = tensor("X", symbol("N"), 1, symbol("o0"))
    first, second, third = derive.Sequential(*(derive.Conv1d(1, 1, 3) for _ in range(3))).chain(x)
    assert [str(a.y.box[2][1]) for a in (first, second, third)] == ["o0_1", "o0_2", "o0_3"]
    sizes = {"N": 1, "o0": 9, "o0_1": 7, "o0_2": 5, "o0_3": 3}
    assert all(f.holds(sizes) for a in (first, second, third) for f in a.facts)
    assert fresh("n", ["n", "n_1"]) == "n_2"
