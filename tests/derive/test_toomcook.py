"""Toom-Cook: the matrices by exact arithmetic, the identity as a theorem, and that wrong matrices have none."""

from dataclasses import replace
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import derive
from derive.obligations import Refused
from derive.points import SMALL_POINTS
from derive.toomcook import ToomCook, toom_cook

POINTS = [Fraction(0), *SMALL_POINTS, Fraction(5, 7), Fraction(-9, 4)]


@st.composite
def toom_cooks(draw: st.DrawFn, largest: int = 5) -> ToomCook:
    m, r = draw(st.integers(1, largest)), draw(st.integers(1, largest))
    points = draw(st.lists(st.sampled_from(POINTS), min_size=m + r - 2, max_size=m + r - 2, unique=True))
    return toom_cook(m, r, points=points, scale=draw(st.sampled_from(["integer", "none"])))


def entry(f: ToomCook, i: int, a: int, e: int) -> Fraction:
    return sum((f.output[i][t] * f.kernel[t][a] * f.input[t][e] for t in range(f.multiplications)), Fraction(0))


@given(toom_cooks())
def test_the_matrices_satisfy_the_identity(f: ToomCook):
    for i, a, e in product(range(f.m), range(f.r), range(f.multiplications)):
        assert entry(f, i, a, e) == (e == i + a)


@settings(max_examples=15)
@given(toom_cooks(3))
def test_the_identity_is_a_theorem(f: ToomCook):
    theorem = f.theorem()
    assert (theorem.facts, theorem.binders) == ((), f.K.box)
    assert theorem.lhs.text == f"{f.K.name}[$0,$1,$2]"
    assert theorem.rhs.text == "[$0+$1-$2==0]"
    assert not theorem.conditions


@pytest.mark.parametrize(("m", "r"), [(2, 3), (4, 3), (6, 3), (2, 5), (3, 3), (4, 5)])
def test_the_usual_sizes(m: int, r: int):
    f = derive.winograd(m, r)
    assert f.theorem().rhs.text == "[$0+$1-$2==0]"
    assert all(x.denominator == 1 for row in (*f.output, *f.input) for x in row)


@settings(max_examples=25)
@given(st.data(), toom_cooks(3))
def test_a_wrong_entry_is_refused(data: st.DataObject, f: ToomCook):
    name = data.draw(st.sampled_from(["output", "kernel", "input"]))
    matrix = getattr(f, name)
    k, j = data.draw(st.sampled_from(list(product(range(len(matrix)), range(len(matrix[0]))))))
    rows = [list(row) for row in matrix]
    rows[k][j] += data.draw(st.sampled_from([Fraction(1), Fraction(-1), Fraction(1, 1000)]))
    wrong = replace(f, **{name: tuple(map(tuple, rows))})
    assert any(entry(wrong, i, a, e) != (e == i + a) for i, a, e in product(*map(range, (f.m, f.r, f.m + f.r - 1))))
    with pytest.raises(Refused, match="trans"):
        wrong.theorem()
    assert wrong.A.name != f.A.name


TABLE = [
    ((2, 3), "0 1 -1", (16, 36), 64),
    ((4, 3), "0 1 -1 2 -1/2", (36, 144), 876),
    ((4, 3), "0 1 -1 2 -2", (36, 144), 2304),
    ((6, 3), "0 1 -1 2 -2 1/2 -1/2", (64, 324), 4579),
    ((4, 3), "0 1/2 -1/2 2 -2", (36, 144), 484),
]


@pytest.mark.parametrize(("size", "points", "counts", "amplified"), TABLE)
def test_counts_and_amplification(size: tuple[int, int], points: str, counts: tuple[int, int], amplified: int):
    f = derive.winograd(*size, points=[Fraction(p) for p in points.split()])
    assert (f.multiplications_2d, f.direct_2d) == counts
    assert round(f.amplification_2d) == amplified
    assert toom_cook(*size, points=f.points, scale="none").amplification == f.amplification


@settings(max_examples=60)
@given(st.integers(1, 5), st.integers(1, 4), st.data())
def test_no_other_small_points_amplify_less(m: int, r: int, data: st.DataObject):
    chosen = toom_cook(m, r)
    others = st.lists(st.sampled_from(SMALL_POINTS), min_size=m + r - 3, max_size=m + r - 3, unique=True)
    if m + r > 2:
        assert toom_cook(m, r, points=[0, *data.draw(others)]).amplification >= chosen.amplification


def test_names_tell_matrices_apart():
    f = toom_cook(2, 3, points=(0, 1, -1))
    others = [
        toom_cook(2, 3, points=(0, -1, 1)),
        toom_cook(3, 2, points=(0, 1, -1)),
        toom_cook(2, 3, points=(0, 1, Fraction(-1, 2))),
        toom_cook(2, 3, points=(0, 1, -12)),
        toom_cook(2, 3, points=(0, 1, -1), scale="none"),
    ]
    assert len({g.A.name for g in [f, *others]}) == 6
    assert (f.A.name, f.G.name, f.B.name, f.K.name) == tuple(f"{letter}_2_3_0_1_m1" for letter in "AGBK")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"m": 0, "r": 3}, "m=0: .* the nearest is m=1"),
        ({"m": 2, "r": -1}, "r=-1: .* the nearest is r=1"),
        ({"m": 2, "r": 3, "points": (0, 1)}, r"points=\(0, 1\): F\(2, 3\) has m \+ r - 2 = 3 finite points, not 2"),
        ({"m": 2, "r": 3, "points": (0, 1, 1)}, "have to be distinct"),
        ({"m": 2, "r": 3, "points": (0, 1, 0.5)}, "a float is no exact number"),
        ({"m": 2, "r": 3, "scale": "big"}, "scale='big': the scales are integer and none"),
        ({"m": 30, "r": 3}, r"m=30, r=3: .* the nearest m is 16"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        toom_cook(**arguments)
