"""The convolution theorem: roots against complex numbers, both sides by exact evaluation, what is no root refused."""

import cmath
import random
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from derive import fourier
from derive.evaluate import RATIONALS, Evaluator, Table
from derive.indices import variables
from derive.obligations import Refused
from derive.terms import Tensor, term

SHORT = (1, 2, 3, 4)


def values(t: Tensor) -> dict[tuple[int, ...], int]:
    box = [range(lo.constant, hi.constant) for lo, hi in t.box]
    evaluator, read = Evaluator({}, {}, RATIONALS), term(t.rank, t[variables(0, t.rank)])
    return {at: evaluator.value(read, at) for at in product(*box)}


@pytest.mark.parametrize("n", range(1, 9))
def test_coordinates_are_those_of_the_root(n: int):
    root = cmath.exp(2j * cmath.pi / n)
    powers, multiplied = values(fourier.zeta(n)), values(fourier.table(n))
    f = fourier.zeta(n).box[1][1].constant
    for k in range(n):
        assert abs(sum(complex(powers[k, u]) * root**u for u in range(f)) - root**k) < 1e-9
    for u, v in product(range(f), repeat=2):
        assert abs(sum(complex(multiplied[u, v, z]) * root**z for z in range(f)) - root ** (u + v)) < 1e-9


def test_cyclotomic_polynomials():
    assert [fourier.cyclotomic(n) for n in (1, 2, 3, 5, 8)] == [(-1, 1), (1, 1), (1, 1, 1), (1,) * 5, (1, 0, 0, 0, 1)]
    assert fourier.cyclotomic(12) == (1, 0, -1, 0, 1)


@pytest.mark.parametrize("n", SHORT)
def test_the_theorems(n: int):
    assert fourier.powers_multiply(n).rhs.tensors == {fourier.zeta(n)}
    assert fourier.orthogonality(n).rhs.text == f"[$1==0][{n} | $0]"
    theorem = fourier.convolution_theorem(n)
    coordinate = "[$3==0]" if n > 2 else ""  # the field of +1 and -1 has one coordinate
    position = f"$2-$5-{n}*(($2-$5)//({n}))" if n > 1 else "0"
    assert theorem.rhs.text == f"Sum{{0<=$4<C,0<=$5<{n}}}{coordinate}*W[$1,$4,$5]*X[$0,$4,{position}]".replace(
        "}*", "}*"
    )
    assert theorem.facts == ()
    assert not theorem.conditions


@settings(max_examples=15)
@given(st.sampled_from(SHORT), st.integers(0, 2), st.integers(0, 2), st.integers(0, 99))
def test_both_sides_agree(n: int, batch: int, channels: int, seed: int):
    theorem, drawn = fourier.convolution_theorem(n), random.Random(seed)
    sizes = {"N": batch, "C": channels, "M": 2}
    given = {
        name: Table.full(((0, a), (0, channels), (0, n)), lambda *_: drawn.randint(-9, 9))
        for name, a in (("W", 2), ("X", batch))
    }
    evaluator = Evaluator(sizes, given, RATIONALS)
    for at in product(*(range(hi.evaluate(sizes)) for _, hi in theorem.binders)):
        b, o, k, y = at
        circular = sum(
            given["W"].values[(o * channels + c) * n + a] * given["X"].values[(b * channels + c) * n + (k - a) % n]
            for c in range(channels)
            for a in range(n)
        )
        assert evaluator.value(theorem.lhs, at) == evaluator.value(theorem.rhs, at) == (circular if y == 0 else 0)


def test_another_number_is_no_root(monkeypatch: pytest.MonkeyPatch):
    """With i^2 = 1 in place of -1, powers do not multiply; with 1 for every power, they are not orthogonal."""
    monkeypatch.setattr(fourier, "_powers", lambda n: ((1, 0), (0, 1), (1, 0), (0, -1)))
    with pytest.raises(Refused, match="trans"):
        fourier.powers_multiply.__wrapped__(4)
    monkeypatch.setattr(fourier, "_powers", lambda n: ((1,),) * n)
    assert fourier.powers_multiply.__wrapped__(2)
    with pytest.raises(Refused, match="trans"):
        fourier.orthogonality.__wrapped__(2)


@pytest.mark.parametrize(("n", "nearest"), [(0, 1), (-3, 1), (9, 8), (True, 1), (2.0, 1)])
def test_lengths_out_of_range(n: object, nearest: int):
    for theorem in (fourier.powers_multiply, fourier.orthogonality, fourier.convolution_theorem):
        with pytest.raises(ValueError, match=f"the nearest is {nearest}"):
            theorem(n)
