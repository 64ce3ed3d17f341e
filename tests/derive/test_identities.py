"""The identities: Toom-Cook by tiles, flipped kernels and commutativity, by exact evaluation of both sides.

An evaluation knows no rule; which stages the tiled algorithm is made of is compared letter for letter.
"""

import random
from functools import cache
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from derive import commutativity, flipped_kernel, tiled_convolution
from derive.evaluate import RATIONALS, Evaluator, Table
from derive.kernel import Theorem
from derive.toomcook import toom_cook

F23 = toom_cook(2, 3)
F43 = toom_cook(4, 3)


def both_sides(theorem: Theorem, sizes: dict[str, int], seed: int = 0) -> list[tuple]:
    """The values of both sides at every point, free tensors holding drawn integers."""
    drawn = random.Random(seed)
    free = {t for side in (theorem.lhs, theorem.rhs) for u in side.tensors for t in u.reads_of_body if t.body is None}
    tables = {}
    for t in sorted(free, key=lambda t: t.name):
        box = tuple((lo.evaluate(sizes), hi.evaluate(sizes)) for lo, hi in t.box)
        tables[t.name] = Table.full(box, lambda *_: drawn.randint(-9, 9))
    evaluator = Evaluator(sizes, tables, RATIONALS)
    points = list(product(*(range(lo.evaluate(sizes), hi.evaluate(sizes)) for lo, hi in theorem.binders)))
    return [tuple(evaluator.value(side, at) for at in points) for side in (theorem.lhs, theorem.rhs)]


@cache
def tiled_theorem(m: int, r: int, axes: int) -> Theorem:
    return tiled_convolution(toom_cook(m, r), axes=axes)


@settings(max_examples=40)
@given(st.data(), st.integers(1, 4), st.integers(1, 3), st.integers(1, 2))
def test_both_sides_of_the_tiled_identity_agree(data: st.DataObject, m: int, r: int, axes: int):
    names = ["N", "C", "M", *(f"{letter}{k}" for k in range(axes) for letter in "Tn")]
    sizes = {name: data.draw(st.integers(0, 3 if name[0] != "n" else 7), label=name) for name in names}
    sizes |= {f"p{k}": data.draw(st.integers(-2, 4), label="p") for k in range(axes)}
    theorem = tiled_theorem(m, r, axes)
    left, right = both_sides(theorem, sizes, data.draw(st.integers(0, 99)))
    assert left == right


def test_the_tiled_identity_at_a_case_that_is_not_all_zero():
    left, right = both_sides(
        tiled_convolution(F43, axes=2), {"N": 1, "C": 2, "M": 1, "T0": 2, "T1": 1, "n0": 7, "n1": 5, "p0": 1, "p1": 2}
    )
    assert left == right
    assert len(set(left)) > 16


@pytest.mark.parametrize(("axes", "nearest"), [(0, 1), (3, 2), (2.0, 1)])
def test_tiles_are_nested_on_one_axis_or_two(axes: object, nearest: int):
    with pytest.raises(ValueError, match=f"axes={axes}: .*; the nearest is {nearest}"):
        tiled_convolution.__wrapped__(F23, axes=axes)


@pytest.mark.parametrize(("axes", "nearest"), [(0, 1), (4, 3)])
def test_kernels_have_one_axis_to_three(axes: int, nearest: int):
    with pytest.raises(ValueError, match=f"axes={axes}: .*; the nearest is {nearest}"):
        flipped_kernel(axes=axes)


@settings(max_examples=20)
@given(st.fixed_dictionaries({n: st.integers(0, 4) for n in ("N", "C", "M", "r0", "r1", "n0", "n1", "o0", "o1")}))
def test_flipped_and_swapped_by_evaluation(sizes: dict[str, int]):
    rows = {"r": sizes["r0"], "n": sizes["n0"]}
    for theorem, at in ((flipped_kernel(), sizes), (flipped_kernel(axes=2), sizes), (commutativity(), rows)):
        left, right = both_sides(theorem, at)
        assert left == right


def test_theorems_hold_without_facts():
    tiled = (tiled_convolution(F23), tiled_convolution(F43, axes=2))
    for theorem in (flipped_kernel(), flipped_kernel(axes=3), commutativity(), *tiled):
        assert theorem.facts == ()
        assert not theorem.conditions
    assert tiled[0].theory == "field"


def test_the_tiled_identity_says_what_it_should():
    """Letter for letter: which stages the left side is made of, and the definition on the right."""
    theorem = tiled_convolution(toom_cook(2, 3, points=(0, 1, -1)), axes=2)
    stages = {t.name: t for side in theorem.lhs.tensors for t in side.reads_of_body}
    name = "2_3_0_1_m1"
    assert theorem.lhs.text == f"Sum{{0<=$6<4,0<=$7<4}}*A_{name}[$4,$6]*A_{name}[$5,$7]*P[$6,$7,$1,$0,$2,$3]"
    assert stages["P"].body.text == "Sum{0<=$6<C}*U[$0,$1,$2,$6]*V[$0,$1,$6,$3,$4,$5]"
    assert stages["U"].body.text == f"Sum{{0<=$4<3,0<=$5<3}}*G_{name}[$0,$4]*G_{name}[$1,$5]*W[$2,$3,$4,$5]"
    reads = f"B_{name}[$0,$6]*B_{name}[$1,$7]*X[$3,$2,2*$4+$6-p0,2*$5+$7-p1]"
    assert stages["V"].body.text == f"Sum{{0<=$6<4,0<=$7<4}}*{reads}"
    assert theorem.rhs.text == ("Sum{0<=$6<C,0<=$7<3,0<=$8<3}*W[$1,$6,$7,$8]*X[$0,$6,2*$2+$4+$7-p0,2*$3+$5+$8-p1]")
