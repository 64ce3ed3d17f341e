"""From a dense layer to a convolution: proofs for 1, 2 and 3 axes, counted and evaluated; wrong ones refused."""

import importlib
import itertools

import pytest
import sympy
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import derive
from derive import kernel, tactics
from derive.dense import (
    DENSE,
    INVARIANT,
    LAYER,
    LOCAL,
    REINDEXED,
    dense_layer,
    dense_weight,
    of_layer,
    offset_weight,
    one_channel,
    with_channels,
)
from derive.indices import Index, at_least, equal, index, interval, symbol, var, variables
from derive.layers import symbolic
from derive.reduction import (
    book_counts,
    book_reduction,
    layer_counts,
    layer_equation,
    layer_theorem,
    milestones,
    prove,
    stationarity,
    weight_patterns,
)
from derive.rules import Reguard, Reindex, Unfold
from derive.terms import Read, tensor, term
from tests.derive.brute import datum, element, points, value

KINDS = {1: derive.Conv1d, 2: derive.Conv2d, 3: derive.Conv3d}
AXES = [1, 2, 3]


# --- the theorems -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("axes", AXES)
def test_the_last_line_is_the_layer(axes: int, bias: bool) -> None:
    theorem = layer_theorem(axes, bias)
    layer, shape = symbolic(KINDS[axes])
    if not bias:
        layer = type(layer)(layer.in_channels, layer.out_channels, *_settings(layer), bias=False)
    applied = layer.on(tensor("X", *shape))
    assert theorem.rhs == applied.y.body
    assert theorem.binders == applied.y.box
    assert set(theorem.facts) >= set(applied.facts)
    hidden = [equal(symbol(f"m{w.axis}"), w.last + 1) for w in applied.windows]
    assert [f for f in theorem.facts if f not in applied.facts] == hidden
    assert theorem.theory == "commutative ring"
    assert not theorem.conditions
    (z,) = layer_equation(axes, bias).rhs.tensors
    assert z == applied.y


def _settings(layer: object) -> tuple[object, ...]:
    return tuple(getattr(layer, name) for name in ("kernel_size", "stride", "padding", "dilation"))


@pytest.mark.parametrize("groups", [2, 4])
def test_a_grouped_layer_is_refused(groups: int) -> None:
    layer = derive.Conv2d(4, 4, 3, groups=groups)
    for ask in (derive.reduction, layer_counts):
        with pytest.raises(
            derive.LayerError, match=f"groups={groups} has no reduction here.* nearest legal value is 1"
        ):
            ask(layer)


@pytest.mark.parametrize("axes", AXES)
def test_the_book_ends_at_near_offsets(axes: int) -> None:
    *_, last = milestones(one_channel(axes))
    i, a = variables(0, axes), variables(axes, axes)
    (w,) = (t for t in last.theorem.rhs.tensors if t.name == "w")
    (x,) = (t for t in last.theorem.rhs.tensors if t.name == "X")
    near = [interval(-symbol("D"), symbol("D") + 1)] * axes
    moved = tuple(p + o for p, o in zip(i, a, strict=True))
    assert last.theorem.rhs == term(axes, w[a], x[moved], over=near) + term(axes, tensor("u")[()])
    assert [f.text for f in last.theorem.facts] == ["n-1>=0", "D>=0"]


@pytest.mark.parametrize("axes", AXES)
def test_each_milestone_is_for_all_weights_of_its_kind(axes: int) -> None:
    names = [[t.name for t in m.parameters] for m in milestones(of_layer(axes))]
    assert names == [["F", "U"], ["F", "U"], ["v", "u"], ["W", "u"], ["W", "u"]]
    names = [[t.name for t in m.parameters] for m in milestones(with_channels(axes))]
    assert names == [["F", "U"], ["F", "U"], ["v", "u"], ["w", "u"]]


@pytest.mark.parametrize("axes", AXES)
def test_an_odd_kernel_with_half_padding_keeps_the_size(axes: int) -> None:
    """The book's reach D is kernel_size 2 D + 1 with padding D, and then as many outputs as inputs."""
    reach, n = symbol("D"), symbol("n")
    sizes: dict[str, Index] = {}
    for k in range(axes):
        sizes |= {f"k{k}": 2 * reach + 1, f"p{k}": reach, f"s{k}": index(1), f"d{k}": index(1)}
        sizes |= {f"n{k}": n, f"o{k}": n, f"m{k}": n}
    counts = [at_least(symbol("N"), 0), *(at_least(symbol(s), 1) for s in "CMn"), at_least(reach, 0)]
    theorem = kernel.specialise(layer_theorem(axes), facts=counts, sizes=sizes)
    (z, *_) = (f for f in theorem.lhs.monomials[0].factors if isinstance(f, Read))
    assert z.at == variables(0, 2 + axes)


def test_a_layer_at_numbers_is_an_instance() -> None:
    layer = derive.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(2, 3))
    applied = layer.on(tensor("X", 2, 3, 9, 7))
    sizes = {"N": index(2), "C": index(3), "M": index(4)}
    for k, w in enumerate(applied.windows):
        sizes |= {f"n{k}": w.size, f"k{k}": w.kernel, f"s{k}": w.stride, f"d{k}": w.dilation}
        sizes |= {f"p{k}": w.before, f"o{k}": w.output, f"m{k}": w.last + 1}
    theorem = kernel.specialise(layer_theorem(2), facts=[], sizes=sizes)
    assert theorem.rhs == applied.y.body
    assert theorem.binders == applied.y.box


# --- what they mean -----------------------------------------------------------------------------------------------


@st.composite
def legal(draw: st.DrawFn) -> dict[str, int]:
    """Numbers of a legal layer on one axis; remainders, s != d and even kernels are drawn most."""
    k, d = draw(st.sampled_from([1, 2, 2, 3, 4])), draw(st.integers(1, 3))
    s = draw(st.integers(1, 4).filter(lambda s: s != d) | st.integers(1, 4))
    p, o, remainder = draw(st.integers(0, 3)), draw(st.integers(1, 3)), draw(st.sampled_from([s - 1, s // 2, 0]))
    last = (o - 1) * s + remainder
    n = last + d * (k - 1) + 1 - 2 * p
    assume(1 <= n <= 9)
    sizes = {"n": n, "k": k, "s": s, "d": d, "p": p, "o": o, "m": last + 1}
    return {f"{name}0": size for name, size in sizes.items()} | {"N": 1, "C": draw(st.integers(1, 2)), "M": 2}


@settings(max_examples=60)
@given(legal())
def test_dense_layer_and_convolution_agree_in_numbers(sizes: dict[str, int]) -> None:
    theorem = layer_theorem(1)
    assert all(f.holds(sizes) for f in theorem.facts)
    n, k, s, d, p = (sizes[f"{name}0"] for name in "nksdp")
    for b, m, i in points(theorem.binders, sizes):
        cells = [(c, a, i * s + a * d - p) for c in range(sizes["C"]) for a in range(k)]
        expected = sum(datum("W", (m, c, a)) * datum("X", (b, c, h)) for c, a, h in cells if 0 <= h < n)
        assert value(theorem.lhs, sizes, (b, m, i)) == expected + datum("u", (m,))


@settings(max_examples=25)
@given(n=st.integers(1, 4), reach=st.integers(0, 4), stage=st.sampled_from([DENSE, REINDEXED, INVARIANT, LOCAL]))
def test_every_milestone_keeps_the_value(n: int, reach: int, stage: int) -> None:
    """Also for a reach beyond the image, D >= n."""
    theorem = prove(one_channel(2), stage)[0]
    sizes = {"n": n, "D": reach}
    for at in itertools.islice(points(theorem.binders, sizes), 6):
        assert value(theorem.lhs, sizes, at) == value(theorem.rhs, sizes, at)


def test_the_exact_range_of_invariance() -> None:
    s, sizes = one_channel(1), {"n": 4, "D": 1}
    theorem = stationarity(s)
    v_by_position = offset_weight(s, INVARIANT)
    for i, a in points(theorem.binders, sizes):
        inside = 0 <= i + a < 4
        assert element(v_by_position, (i, a), sizes) == (datum("v", (a,)) if inside else 0)
        assert value(theorem.rhs, sizes, (i, a)) == element(v_by_position, (i, a), sizes)


# --- parameters ---------------------------------------------------------------------------------------------------


def test_the_numbers_of_the_book() -> None:
    dense, renamed, shared, near = book_counts()
    assert (dense.value, shared.value, near.value) == (10**12 + 10**6, 1999**2 + 1, 21**2 + 1)
    assert (dense.rounded, shared.rounded, near.rounded) == (10**12, 4 * 10**6, 4 * 10**2)
    assert renamed.value == dense.value
    n, reach = sympy.symbols("n D", integer=True)
    assert [c.expression for c in (dense, shared, near)] == [
        n**4 + n**2,
        (2 * n - 1) ** 2 + 1,
        (2 * reach + 1) ** 2 + 1,
    ]


@pytest.mark.parametrize("axes", AXES)
@given(n=st.integers(1, 4), reach=st.integers(0, 3))
@settings(max_examples=10)
def test_counts_are_of_different_weights(axes: int, n: int, reach: int) -> None:
    """The numbers in the weight matrix are counted one by one, and a bias is added for each pixel or for all."""
    assume(reach <= n - 1 and n**axes <= 16)
    dense, _, shared, near = book_counts(axes, n=n, reach=reach)
    patterns = weight_patterns(n, reach, axes)
    distinct = {name: {e for row in rows for e in row} - {None} for name, rows in patterns.items()}
    assert len(distinct["dense"]) + n**axes == dense.value
    assert len(distinct["invariant"]) + 1 == shared.value
    assert len(distinct["local"]) + 1 == near.value


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (derive.Conv1d(2, 3, 4, stride=3, padding=2, dilation=2, bias=False), (1, 2, 11)),
        (derive.Conv2d(6, 16, 5), (8, 6, 14, 14)),
        (derive.Conv2d(3, 5, (1, 4), stride=2, padding=(0, 3), dilation=(2, 1)), (1, 3, 6, 7)),
        (derive.Conv3d(1, 2, 2, padding=1), (1, 1, 3, 4, 5)),
    ],
)
def test_counts_of_a_layer(layer: derive.Conv2d, shape: tuple[int, ...]) -> None:
    counts = [c.value for c in layer_counts(layer, shape)]
    cells = [int(sympy.prod(sizes)) for sizes in layer.parameter_shapes().values()]
    assert counts[-1] == sum(cells)
    unit = type(layer)(layer.in_channels, layer.out_channels, layer.kernel_size, 1, layer.padding, layer.dilation)
    hidden = [int(str(e)) for e in unit.output_shape(shape)[1:]]
    dense = sympy.prod(hidden) * sympy.prod(shape[1:]) + sympy.prod(hidden) * layer.bias
    assert counts[0] == counts[1] == dense
    assert counts[0] >= counts[2]
    assert counts[3] >= counts[4]


def test_counts_without_a_shape_are_formulas() -> None:
    *_, shared, near, last = layer_counts(derive.Conv1d(6, 16, 5, dilation=2))
    n0 = sympy.Symbol("n0", integer=True)
    assert sympy.expand(shared.value - (16 * 6 * (2 * n0 - 9) + 16)) == 0
    assert (near.value, last.value) == (16 * 6 * 9 + 16, 16 * 6 * 5 + 16)


def test_the_matrix_becomes_toeplitz_and_then_a_band() -> None:
    n, reach = 4, 1
    patterns = weight_patterns(n, reach)
    dense, shared, near = (patterns[name] for name in ("dense", "invariant", "local"))
    assert sorted(itertools.chain(*dense)) == list(range(n**4))
    cells = list(itertools.product(range(n), repeat=2))
    by_offset: dict[tuple[int, int], set[int | None]] = {}
    for (row, (i, j)), (column, (k, m)) in itertools.product(enumerate(cells), enumerate(cells)):
        by_offset.setdefault((k - i, m - j), set()).add(shared[row][column])
        near_enough = abs(k - i) <= reach and abs(m - j) <= reach
        assert (near[row][column] is not None) == near_enough
    assert all(len(found) == 1 for found in by_offset.values())
    assert len(set.union(*by_offset.values())) == len(by_offset) == (2 * n - 1) ** 2
    assert near[0][:6] == [4, 5, None, None, 7, 8]


# --- wrong reductions are refused ---------------------------------------------------------------------------------


def test_a_wrong_substitution_is_refused() -> None:
    s = one_channel(1)
    theorem = prove(s, DENSE)[0]
    (number,) = (k for k, m in enumerate(theorem.rhs.monomials) if m.binders)
    n, i, k = symbol("n"), var(0), var(1)
    good = Reindex((interval(1 - n, n),), (i + k,), (k - i,))
    assert kernel.rewrite(theorem, (number,), good)
    wrong = {
        "wrong sign": Reindex((interval(1 - n, n),), (i - k,), (k - i,)),
        "missing range": Reindex((interval(0, n),), (i + k,), (k - i,)),
        "one offset short": Reindex((interval(2 - n, n),), (i + k,), (k - i,)),
        "two to one": Reindex((interval(1 - n, n),), ((i + k) // 2,), (2 * k - i,)),
    }
    for rule in wrong.values():
        with pytest.raises(kernel.Refused, match="reindex"):
            kernel.rewrite(theorem, (number,), rule)


def test_invariance_without_its_range_is_refused() -> None:
    """V[i,a] = v[a] at every offset would be false."""
    theorem = stationarity(one_channel(1))
    with pytest.raises(kernel.Refused, match="not proved"):
        kernel.rewrite(theorem, (0,), Reguard((), ()))


def test_a_reach_that_is_too_small_is_refused() -> None:
    s = one_channel(1)
    theorem = prove(s, LOCAL)[0]
    (number,) = (k for k, m in enumerate(theorem.rhs.monomials) if m.binders)
    reach = symbol("D")
    for box in (interval(-reach, reach), interval(1 - reach, reach + 1), interval(0, reach + 1)):
        with pytest.raises(kernel.Refused, match="reguard"):
            kernel.rewrite(theorem, (number,), Reguard((box,), ()))


def test_a_stride_beyond_the_hidden_layer_leaves_a_guard() -> None:
    """Without the condition that the last window fits, H could be read outside its box: the guards stay."""
    s = of_layer(1)
    h = dense_layer(s, LAYER)
    assert s.applied is not None
    w = s.applied.windows[0]
    fits = at_least(w.last, w.stride * (w.output - 1))
    facts = [f for f in s.facts if f != fits]
    assert len(facts) == len(s.facts) - 1
    read = term(3, h[(var(0), var(1), var(2) * w.stride)])
    unfolded = kernel.rewrite(kernel.begin(read, facts=facts, over=s.applied.y.box), (0,), Unfold(0))
    assert all(any("m0" in g.text for g in m.guards) for m in unfolded.rhs.monomials)
    assert not any(m.guards for m in prove(s, DENSE)[0].rhs.monomials)


def test_other_sharing_gives_another_formula() -> None:
    """Weights defined by v[k + i] in place of v[k - i] are no convolution: the theorem's last line differs."""
    s = one_channel(1)
    n = symbol("n")
    v = tensor("v", interval(0, 2 * n - 1))
    mirrored = dense_weight(s, DENSE)
    mirrored = type(mirrored)(mirrored.name, mirrored.box, term(2, v[var(0) + var(1)]))
    theorem = kernel.specialise(prove(s, REINDEXED)[0], facts=s.facts, tensors={"F": mirrored})
    last = tactics.tidy(tactics.unfold_all(theorem, ["V", "F"]))
    assert "v[2*$0+$1]" in last.rhs.text


# --- for the reader -----------------------------------------------------------------------------------------------


def test_the_derivation_tells_the_layers_numbers() -> None:
    d = derive.reduction(derive.Conv2d(6, 16, 5, stride=2), (8, 6, 14, 14))
    assert d.theorem is layer_theorem(2)
    assert [n.title for n in d.notes] == [
        "Fully connected",
        "Re-indexed",
        "Translation invariant",
        "Local",
        "The layer",
    ]
    for text in ("C = 6, M = 16, k0 = 5, s0 = 2", "1883200 in the dense layer", "2416 in the layer"):
        assert text in d.introduction
    text = d.to_text(width=200)
    assert "W[o, c, a, e]" in text
    assert "1 - m0 ≤ a < n0" in text
    assert derive.Derivation.from_json(d.to_json()).digest == d.digest
    assert "F[i, j, k, l] := v[k - i, l - j]" in book_reduction().to_text(width=200)


def test_a_shape_that_is_not_legal_is_an_error_here_too() -> None:
    with pytest.raises(derive.LayerError, match="the nearest legal value is 5"):
        derive.reduction(derive.Conv2d(6, 16, 5), (8, 6, 4, 14))


def test_the_function_is_not_hidden_by_its_module() -> None:
    importlib.import_module("derive.reduction")
    assert callable(derive.reduction)
