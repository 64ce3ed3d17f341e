"""False equations, each with the step that would prove it: the kernel must refuse that step, or guard its result.

The first part holds those that a prototype proved.  The rest is what a reader with bad intentions finds by going
through the rules one after another: a side condition that is missing, an argument of an unexpected kind, a variable
that means something else where it arrives, a tensor that is free in one place and defined in another.
"""

from fractions import Fraction

import pytest

from derive import tactics
from derive.indices import Divides, NonNegative, Zero, at_least, equal, index, inside, interval, symbol, symbols, var
from derive.kernel import begin, chain, rewrite, specialise, sym, trans, use, vector_jacobian
from derive.obligations import Refused
from derive.rules import (
    Cancel,
    Case,
    Contract,
    Count,
    Differentiate,
    Drop,
    ExpSum,
    LogFactor,
    RecipFactor,
    RecipScale,
    Reguard,
    Reindex,
    RewriteIndex,
    Sigmoid,
    Unfold,
)
from derive.terms import Apply, Derivative, Expr, Maximum, Monomial, constant, define, tensor, term
from tests.derive.meaning import Meaning

n, m, s, a = symbols("n m s a")
i, j, k = var(0), var(1), var(2)
X, Y, Z = tensor("X", n), tensor("Y", n), tensor("Z", n)
v = tensor("v", n)
x, y, z = tensor("x"), tensor("y"), tensor("z")
ONE = constant(0, 1)


def total(t, *, over=None, depth=0):
    """The sum of a vector."""
    return term(depth, t[var(depth)], over=[over or t.box[0]])


def function(name, *factors, depth=0, **rest):
    return Apply(name, term(depth, *factors, **rest))


def refused(theorem, rule, where=(0,), match=None):
    with pytest.raises(ValueError, match=match):
        pytest.fail(str(rewrite(theorem, where, rule)))


def agrees(theorem, sizes, datum=lambda name, at: sum(at) + len(name) + 2):
    """Whether both sides are worth the same at these sizes, everywhere in the intervals."""
    world = Meaning(sizes, datum)
    return all(world.value(theorem.lhs, at) == world.value(theorem.rhs, at) for at in world.points(theorem.binders, ()))


# --- what a prototype proved ----------------------------------------------------------------------------------------


def test_a_fact_captures_no_bound_variable():
    """Sum_{i < 10} A = Sum_{i < 3} A, from a fact ``i <= 2`` about a size of that name."""
    A = tensor("A", 10)
    fact = at_least(2, symbol("i"))
    t = begin(total(A), facts=[fact, at_least(symbol("i"), 0)])
    refused(t, Reguard((interval(0, 3),), ()), match="does not follow")
    with pytest.raises(Refused, match="speaks of a variable"):
        begin(total(A), facts=[at_least(2, i)])
    with pytest.raises(Refused, match="speaks of a variable"):
        begin(term(1, A[i]), facts=[at_least(2, i)], over=[interval(0, 10)])
    with pytest.raises(Refused, match="speaks of a variable"):
        specialise(t, facts=[fact, at_least(2, i)])
    with pytest.raises(Refused, match="do not speak of variables"):
        specialise(t, facts=[fact], sizes={"i": i})


def test_a_fact_of_a_chain_captures_no_bound_variable():
    """With the fact ``h <= -1`` every derivative would be 0."""
    product = identity_product()
    with pytest.raises(Refused, match="speaks of a variable"):
        chain(total(PASSED), "g", product, facts=[at_least(n, 1), at_least(-1, i)])


def test_reindex_leaves_no_coefficient_behind():
    """Sum_k k X[k]: a coefficient is a number, what depends on k is a factor and moves with it."""
    with pytest.raises(TypeError, match="Fraction is needed"):
        begin(Expr(0, (Monomial(n, (interval(0, n),), (), (X[i],)),)))
    weight = define("K", [n], term(1, over=[interval(0, i)]))
    t = begin(term(0, weight[i], X[i], over=[interval(0, n)]), facts=[at_least(n, 1)])
    flipped = rewrite(t, (0,), Reindex((interval(0, n),), (n - 1 - i,), (n - 1 - i,)))
    assert flipped.rhs.monomials[0].factors == (weight[n - 1 - i], X[n - 1 - i])
    assert agrees(flipped, {"n": 3})


def test_the_second_derivative_of_a_square_is_not_zero():
    inner = term(2, v[k], v[k], over=[interval(0, n)])
    twice = term(2, Derivative(term(2, Derivative(inner, v, (i,))), v, (j,)))
    t = begin(twice, facts=[at_least(n, 1)], over=[interval(0, n), interval(0, n)])
    refused(t, Differentiate(0), match="a nested derivative")
    t = rewrite(t, (0, 0, 0), Differentiate(0))
    t = tactics.contract_all(rewrite_all(t, Differentiate))
    t = tactics.tidy(t)
    assert t.rhs == term(2, guards=[equal(i, j)], coefficient=2)
    assert agrees(t, {"n": 3})


def rewrite_all(t, rule):
    """Apply a rule to the first factor of every monomial that it takes."""
    done = False
    while not done:
        done = True
        for number, one in enumerate(t.rhs.monomials):
            if any(isinstance(f, Derivative) for f in one.factors):
                position = next(p for p, f in enumerate(one.factors) if isinstance(f, Derivative))
                t, done = rewrite(t, (number,), rule(position)), False
                break
    return t


def test_a_divergent_sum_cannot_be_written():
    """Every variable has two ends, and they are in scope; an interval is given up only for one that means the same."""
    for ends in ((index(0), None), (index(0),), (None, n)):
        with pytest.raises((AttributeError, TypeError, IndexError, ValueError)):
            pytest.fail(str(begin(Expr(0, (Monomial(Fraction(1), (ends,), (), (X[i],)),)))))
    with pytest.raises(ValueError, match="not bound"):
        begin(Expr(0, (Monomial(Fraction(1), (interval(0, i + 1),), (), (X[i],)),)))
    ones = begin(term(0, over=[interval(0, n)]), facts=[at_least(n, 1)])
    refused(ones, Reguard((interval(0, n + 1),), ()), match="old guard does not follow")
    refused(ones, Reindex((interval(0, 2 * n),), (i // 2,), (2 * i,)), match="reindex")


def test_floor_by_a_negative_number_has_no_value():
    """7 // -2 is -4 by flooring and -3 by truncation or in Z3: it is neither here."""
    with pytest.raises(ValueError, match="divisors >= 1"):
        index(7) // index(-2)
    wide = tensor("A", (-9, 9))
    with pytest.raises(Refused, match="a divisor"):
        begin(term(0, wide[7 // m]))
    with pytest.raises(Refused, match="a divisor"):
        begin(term(0, wide[7 // m]), facts=[equal(m, -2)])
    t = begin(term(0, wide[7 // m]), facts=[at_least(m, 1)])
    refused(t, RewriteIndex(0, 0, index(-3)))
    with pytest.raises(ValueError, match=r"divisors >= 1|fact of the theorem"):
        specialise(t, facts=[], sizes={"m": index(-2)})
    with pytest.raises(Refused, match="fact of the theorem"):
        specialise(t, facts=[equal(s, -2)], sizes={"m": s})


def test_a_divisor_is_positive_wherever_it_stands():
    shifted = tensor("A", (-9, 9))
    bare = [
        term(0, guards=[Divides(m, n)]),
        term(0, guards=[at_least(n // m, 0)]),
        term(0, over=[interval(0, n // m)]),
        term(0, function("exp", shifted[n // m])),
        term(0, Maximum((interval(0, 3),), (), term(1, shifted[n // (m + i)]))),
        term(0, Maximum((interval(0, n // m),), (), term(1, X[i]))),
        term(0, Derivative(term(0, shifted[1]), shifted, (n // m,))),
        term(0, define("D", [n // m], constant(1, 1))[0]),
        term(0, define("D", [n], term(1, shifted[i // m]))[0]),
    ]
    for e in bare:
        with pytest.raises(Refused, match=r"a divisor|a maximum"):
            begin(e, facts=[at_least(m, 0)])
    with pytest.raises(Refused, match="a divisor"):
        begin(constant(1, 1), over=[interval(0, n // m)])
    for fact in (at_least(n // m, 1), Divides(m, n), equal(n // (m // s), 1)):
        with pytest.raises(Refused, match="a divisor"):
            begin(ONE, facts=[fact])
        with pytest.raises(Refused, match="a divisor"):
            specialise(begin(ONE), facts=[fact])


def test_no_symbol_is_taken_for_a_variable():
    """Variables have no names, so none that a user chooses can be one of theirs."""
    for name in ("i", "k", "_0", "v0", "Var0"):
        size = symbol(name)
        t = begin(term(0, X[i], over=[interval(0, n)], guards=[at_least(size, 2)]), facts=[at_least(n, 3)])
        refused(t, Reguard((interval(2, n),), t.rhs.monomials[0].guards), match="does not follow")
        put = specialise(t, facts=[at_least(n, 3)], sizes={name: n})
        assert put.rhs == term(0, X[i], over=[interval(0, n)], guards=[at_least(n, 2)])
    for name in ("$0", "$1", "quotient!0", "remainder!0"):
        with pytest.raises(ValueError, match="identifier"):
            symbol(name)


def test_a_variable_has_a_place():
    """Var(-1) would be Python's *last variable*, whichever that is where it arrives."""
    with pytest.raises(ValueError, match="counted from 0"):
        var(-1)


def test_differentiate_adds_that_the_index_is_in_the_box():
    """d(Sum_{k < n + 1} v[k]) / dv[n] is 0: v is 0 there and cannot vary."""
    t = begin(term(1, Derivative(term(1, v[j], over=[interval(0, n + 1)]), v, (i,))), over=[interval(-1, n + 2)])
    t = rewrite(t, (0,), Differentiate(0))
    assert set(inside(i, interval(0, n))) <= set(t.rhs.monomials[0].guards)
    assert agrees(t, {"n": 2})
    t = tactics.contract_all(t)
    refused(t, Reguard((), ()), match="new ones")
    assert agrees(t, {"n": 2})


# --- weight sharing and derivatives by defined tensors --------------------------------------------------------------

shared = define("W", [n], term(1, v[0]))


def test_weight_sharing_is_a_definition():
    """d(Sum W)/dv is not 0, though no v is in sight."""
    t = begin(term(0, Derivative(total(shared), v, (index(0),))), facts=[at_least(n, 1)])
    refused(t, Differentiate(0), match="still folded")
    t = rewrite(t, (0, 0, 0), Unfold(0))
    t = rewrite(t, (0,), Differentiate(0))
    assert agrees(t, {"n": 3})
    assert Meaning({"n": 3}, lambda *_: 1).value(t.lhs) == 3


def test_a_tensor_that_is_differentiated_by_stays_folded():
    """Unfolding W under d/dW would give d(Sum v)/dW = 0, where it is the number of entries."""
    t = begin(term(0, Derivative(total(shared), shared, (index(0),))), facts=[at_least(n, 1)])
    refused(t, Unfold(0), (0, 0, 0), match="stay folded")
    deep = term(0, Derivative(term(0, function("exp", shared[0])), shared, (index(0),)))
    refused(begin(deep, facts=[at_least(n, 1)]), Unfold(0), (0, 0, 0, 0, 0), match="stay folded")


def test_an_equation_about_a_tensor_is_not_used_under_its_derivative():
    """W[i] = v[0] is no identity in W; neither is it through another definition, or backwards."""
    facts = [at_least(n, 1)]
    equation = rewrite(begin(term(1, shared[i]), facts=facts, over=shared.box), (0,), Unfold(0))
    other = define("V", [n], term(1, shared[i]))
    through = rewrite(begin(term(1, other[i]), facts=facts, over=other.box), (0,), Unfold(0))
    through = rewrite(through, (0,), Unfold(0))
    for e, by, at in (
        (shared[0], equation, 0),
        (v[0], sym(equation), 0),
        (other[0], through, 0),
        (v[0], sym(through), 0),
    ):
        t = begin(term(0, Derivative(term(0, e), shared, (index(0),))), facts=facts)
        with pytest.raises(Refused, match="may rest on the definition of W"):
            use(t, (0, 0, 0), by, (index(at),))


def test_an_alias_does_not_help():
    """V := v[0] is W by another name, but not a function of W."""
    facts = [at_least(n, 1)]
    alias = define("V", [n], term(1, v[0]))
    one = rewrite(begin(term(1, alias[i]), facts=facts, over=alias.box), (0,), Unfold(0))
    two = rewrite(begin(term(1, shared[i]), facts=facts, over=shared.box), (0,), Unfold(0))
    same = tactics.agree(one, two)
    assert same.rhs == term(1, shared[i])
    t = begin(term(0, Derivative(term(0, alias[0]), shared, (index(0),))), facts=facts)
    with pytest.raises(Refused, match="may rest on the definition of W"):
        use(t, (0, 0, 0), same, (index(0),))


def test_a_derivative_waits_until_everything_is_unfolded():
    """Whatever holds the tensor inside: a definition, a cotangent, a maximum, another derivative."""
    facts = [at_least(n, 1)]
    cotangent = define("g", [n], term(1, Derivative(term(1, v[j], v[j], over=[interval(0, n)]), v, (i,))))
    largest = term(0, Maximum((interval(0, n),), (), term(1, v[i])))
    nested = term(0, Derivative(term(0, v[0], v[0]), v, (index(0),)))
    by_defined = term(0, Derivative(term(0, y[()]), define("S", (), total(v)), ()))
    for e, says in (
        (term(0, shared[0]), "still folded"),
        (term(0, cotangent[0]), "still folded"),
        (term(0, function("exp", shared[0])), "still folded"),
        (largest, "a maximum"),
        (nested, "a nested derivative"),
        (by_defined, "a nested derivative"),
    ):
        t = begin(term(0, Derivative(e, v, (index(0),))), facts=facts)
        refused(t, Differentiate(0), match=says)


# --- reguard, drop and boxes ----------------------------------------------------------------------------------------


def test_boxes_of_reads_inside_a_function_are_not_used():
    """exp(X[i]) is 1, not 0, where X is outside its box."""
    wide = interval(0, n + 1)
    t = begin(term(0, function("exp", X[i], depth=1), over=[wide]), facts=[at_least(n, 1)])
    refused(t, Reguard((interval(0, n),), ()), match="does not follow")
    outside = begin(term(0, function("exp", X[n])), facts=[at_least(n, 1)])
    refused(outside, Drop(), match="satisfiable")
    direct = begin(term(0, X[i], over=[wide]), facts=[at_least(n, 1)])
    assert rewrite(direct, (0,), Reguard((interval(0, n),), ())).rhs == total(X)


def test_boxes_of_reads_under_a_maximum_are_not_used():
    """The largest of X over a window that sticks out is at least 0, whatever X is."""
    window = Maximum((interval(0, n + 1),), (), term(1, X[i]))
    t = begin(term(0, window), facts=[at_least(n, 1)])
    refused(t, Reguard((), (at_least(n, 2),)), match="does not follow")
    refused(t, Drop(), match="satisfiable")
    inner = rewrite(t, (0, 0, 0), Case(at_least(n - 1, i)))
    done = tactics.tidy(inner)
    assert agrees(done, {"n": 3}, lambda name, at: -1 - at[0])
    assert done.rhs.monomials[0].factors[0].binders == (interval(0, n + 1),)


def test_a_maximum_over_nothing_is_refused():
    for binders, facts in (((interval(0, n),), [at_least(n, 0)]), ((interval(0, 0),), []), ((interval(2, 1),), [])):
        with pytest.raises(Refused, match="a maximum over nothing"):
            begin(term(0, Maximum(binders, (), term(1, X[i]))), facts=facts)
    with pytest.raises(Refused, match="under guards"):
        begin(term(0, Maximum((interval(0, 3),), (at_least(i, 5),), term(1, X[i]))))
    held = begin(term(0, Maximum((interval(0, n),), (), term(1, X[i])), guards=[at_least(n, 1)]))
    looser = rewrite(held, (0,), Case(at_least(n, 2)))
    for number in (0, 1):
        refused(looser, Reguard((), (at_least(n, 0),)), (number,))
    bare = begin(term(0, Maximum((interval(0, n),), (), term(1, X[i]))), facts=[at_least(n, 1)])
    with pytest.raises(Refused, match="a fact of the theorem"):
        specialise(bare, facts=[], sizes={"n": index(0)})


def test_a_box_is_that_of_the_read_not_of_its_name():
    """Two tensors of one name: the box of one says nothing about the other."""
    with pytest.raises(Refused, match="two different tensors are called X"):
        begin(term(0, X[n], tensor("X", n + 1)[n]))


def test_drop_needs_a_contradiction():
    facts = [at_least(n, 1)]
    refused(begin(term(0, X[n - 1]), facts=facts), Drop(), match="satisfiable")
    refused(begin(term(0, X[i], over=[interval(0, m)]), facts=facts), Drop(), match="satisfiable")
    refused(begin(term(0, guards=[at_least(0, n)])), Drop(), match="satisfiable")
    refused(begin(term(0, Derivative(term(0, X[n]), X, (n,))), facts=facts), Drop(), match="satisfiable")
    assert rewrite(begin(term(0, X[n]), facts=facts), (0,), Drop()).rhs.monomials == ()


def test_reguard_is_an_equivalence():
    t = begin(term(0, X[i], over=[interval(0, n)], guards=[at_least(i, 2)]), facts=[at_least(n, 1)])
    for binders, guards in (
        ((interval(0, n),), ()),
        ((interval(3, n),), ()),
        ((interval(0, n),), (at_least(i, 2), at_least(i, 3))),
        ((interval(0, n - 1),), (at_least(i, 2),)),
        ((interval(2, m),), ()),
    ):
        refused(t, Reguard(binders, guards), match="does not follow")
    assert rewrite(t, (0,), Reguard((interval(2, n),), ())).rhs == term(0, X[i], over=[interval(2, n)])
    assert rewrite(t, (0,), Reguard((interval(2, n + 3),), ())).rhs == term(0, X[i], over=[interval(2, n + 3)])


def test_reguard_keeps_to_its_scope():
    t = begin(term(0, X[i], over=[interval(0, n)]), facts=[at_least(n, 1)])
    for binders, guards in (
        ((interval(0, j),), ()),
        ((interval(0, i + 1),), ()),
        ((interval(0, n),), (at_least(j, 0),)),
        ((), ()),
        ((interval(0, n), interval(0, 1)), ()),
    ):
        refused(t, Reguard(binders, guards))


# --- reindex --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule",
    [
        Reindex((interval(0, n),), (i + 1,), (i - 1,)),
        Reindex((interval(0, n - 1),), (i + 1,), (i - 1,)),
        Reindex((interval(0, n),), (i // 2,), (2 * i,)),
        Reindex((interval(0, n),), (2 * i,), (i // 2,)),
        Reindex((interval(0, n),), (index(0),), (i,)),
        Reindex((interval(0, n),), (i * i,), (i,)),
        Reindex((interval(0, 2), interval(0, n)), (j,), (index(0), i)),
        Reindex((interval(0, n), interval(0, n)), (i + j,), (i, index(0))),
        Reindex((), (index(0),), ()),
        Reindex((interval(0, n),), (j,), (i,)),
        Reindex((interval(0, n),), (i,), (j,)),
        Reindex((interval(0, i + 1),), (i,), (i,)),
        Reindex((interval(0, n),), (i, i), (i,)),
        Reindex((interval(0, n),), (i,), (i, i)),
        Reindex((interval(0, n),), ((i // m) * m,), (i,)),
        Reindex((interval(0, n // m),), (i * m,), (i // m,)),
        Reindex((interval(0, n),), (i,), (i,), (at_least(i, 1),)),
        Reindex((interval(0, n),), (i,), (i,), (Divides(m, i),)),
    ],
)
def test_a_change_of_variables_is_one_to_one(rule):
    t = begin(total(X), facts=[at_least(n, 2)])
    refused(t, rule)


def test_a_change_of_variables_may_leave_gaps_behind_guards():
    """2 i for even numbers only: the range of the old variable comes along, and what is not hit is guarded away."""
    t = begin(total(X), facts=[at_least(n, 1)])
    shifted = rewrite(t, (0,), Reindex((interval(-3, n + 5),), (i + 1,), (i - 1,)))
    assert agrees(shifted, {"n": 4})
    ones = begin(term(0, over=[interval(0, n)]), facts=[at_least(n, 1)])
    assert agrees(rewrite(ones, (0,), Reindex((interval(-3, n + 5),), (i + 1,), (i - 1,))), {"n": 4})
    strided = rewrite(t, (0,), Reindex((interval(0, 3 * n),), (i // 3,), (3 * i,), (Divides(index(3), i),)))
    assert agrees(strided, {"n": 3})


# --- contract -------------------------------------------------------------------------------------------------------


def contracted(slope, offset, facts, box=(-20, 20)):
    A = tensor("A", box)
    e = term(1, A[j], over=[interval(-9, 9)], guards=[Zero(slope * j + offset)])
    t = begin(e, facts=facts, over=[interval(-9, 9)])
    return rewrite(t, (0,), Contract(0, t.rhs.monomials[0].guards[0]))


@pytest.mark.parametrize("slope", [-3, -2, -1, 1, 2, 3])
@pytest.mark.parametrize("offset", [-i, i, -i + 1, 2 * i - 3, i * i])
def test_a_slope_of_either_sign_and_an_offset_that_is_no_multiple(slope, offset):
    """Truncating instead of flooring, or dropping [a | b], would be seen at the odd indices."""
    t = contracted(index(slope), offset, [])
    assert agrees(t, {})
    if abs(slope) != 1:
        assert any(isinstance(g, Divides) for g in t.rhs.monomials[0].guards)


def test_a_slope_is_known_to_be_positive_or_negative():
    assert agrees(contracted(s, -i, [at_least(s, 1)]), {"s": 2})
    assert agrees(contracted(-s, i + 1, [at_least(s, 1)]), {"s": 3})
    for facts in ([], [at_least(s, 0)], [at_least(0, s)], [at_least(s * s, 1)]):
        with pytest.raises(Refused, match="contract: the coefficient"):
            contracted(s, -i, facts)


def test_the_equation_does_not_prove_its_own_slope():
    """[s k = 6]: that s is not 0 follows from the equation only, and is gone with it."""
    for facts in ([], [at_least(s, 0)]):
        with pytest.raises(Refused, match="contract: the coefficient"):
            contracted(s, index(-6), facts)


def test_the_interval_of_the_variable_becomes_a_guard():
    """Sum_{k < 3} [k = i] A[k] is not A[i]."""
    A = tensor("A", (-20, 20))
    t = begin(term(1, A[j], over=[interval(0, 3)], guards=[equal(i, j)]), over=[interval(-9, 9)])
    t = rewrite(t, (0,), Contract(0, equal(i, j)))
    assert set(inside(i, interval(0, 3))) <= set(t.rhs.monomials[0].guards)
    assert agrees(t, {})


def test_contract_solves_only_what_is_there():
    e = term(1, X[j], over=[interval(0, n)], guards=[Zero(j * j - i), Zero(j // 2 - i), at_least(j, i)])
    t = begin(e, facts=[at_least(n, 1)], over=[interval(0, n)])
    for rule in (
        Contract(0, Zero(j * j - i)),
        Contract(0, Zero(j // 2 - i)),
        Contract(0, at_least(j, i)),
        Contract(0, Zero(j - i)),
        Contract(1, Zero(j // 2 - i)),
        Contract(-1, Zero(j // 2 - i)),
    ):
        refused(t, rule)
    dependent = term(0, X[j], over=[interval(0, n), interval(0, i + 1)], guards=[equal(i, 2)])
    refused(begin(dependent), Contract(0, equal(i, 2)), match="interval of another variable")


# --- case, count, rewrite index -------------------------------------------------------------------------------------


@pytest.mark.parametrize("guard", [equal(i, 1), Divides(index(2), i)])
def test_cases_are_those_of_an_inequality(guard):
    """[e = 0] and [e <= -1] leave out e >= 1."""
    t = begin(term(1, X[i]), facts=[at_least(n, 1)], over=X.box)
    refused(t, Case(guard), match="only of such a guard")


def test_cases_cover_everything_once():
    t = begin(term(1, X[i]), facts=[at_least(n, 1)], over=X.box)
    for e in (i - 1, 2 - i, index(3), index(-1), i // 2 - 1):
        assert agrees(rewrite(t, (0,), Case(NonNegative(e))), {"n": 4})
    refused(t, Case(NonNegative(j)), match="not bound")
    refused(t, Case(NonNegative(i // m)), match="a divisor")


def test_count_needs_numbers_and_an_idle_variable():
    for e, variable in (
        (term(0, over=[interval(0, n)]), 0),
        (term(0, X[i], over=[interval(0, 3)]), 0),
        (term(0, over=[interval(0, 3)], guards=[at_least(i, 1)]), 0),
        (term(0, function("exp", X[i], depth=1), over=[interval(0, 3)]), 0),
        (term(0, over=[interval(0, 3), interval(0, i)]), 0),
        (term(0, over=[interval(0, 3)]), 1),
        (term(0, over=[interval(0, 3)]), -1),
    ):
        refused(begin(e), Count(variable))
    t = begin(term(0, X[j], over=[interval(2, 5), interval(0, n)]), facts=[at_least(n, 1)])
    assert rewrite(t, (0,), Count(0)).rhs == total(X).scaled(3)


def test_an_empty_interval_counts_nothing():
    """Not max(hi - lo, 0) but hi - lo would give -5, as Karr's convention does."""
    assert rewrite(begin(term(0, over=[interval(0, -5)])), (0,), Count(0)).rhs.monomials == ()


def test_an_index_is_rewritten_only_by_an_equal_one():
    t = begin(term(1, X[i]), facts=[at_least(n, 1)], over=X.box)
    for new in (i + 1, j, index(0), i // m, (2 * i + 1) // 2 + 1):
        refused(t, RewriteIndex(0, 0, new))
    refused(t, RewriteIndex(0, 1, i))
    refused(t, RewriteIndex(1, 0, i))
    refused(t, RewriteIndex(0, -1, i))
    assert rewrite(t, (0,), RewriteIndex(0, 0, (2 * i + 1) // 2)).rhs == term(1, X[(2 * i + 1) // 2])


def test_the_box_of_a_read_is_no_reason_to_move_it():
    """X[i] and X[0] differ outside the box, where the first is zero."""
    one = tensor("A", 1)
    t = begin(term(1, one[i]), over=[interval(0, n)])
    refused(t, RewriteIndex(0, 0, index(0)))


# --- unfold ---------------------------------------------------------------------------------------------------------


def test_a_body_is_guarded_by_its_box():
    """D := 1 for 0 <= i < n; D[n] is 0."""
    D = define("D", [n], constant(1, 1))
    assert rewrite(begin(term(0, D[n]), facts=[at_least(n, 1)]), (0,), Unfold(0)).rhs.monomials == ()
    both = begin(term(1, D[i]), facts=[at_least(n, 1)], over=[interval(-2, n + 2)])
    assert agrees(rewrite(both, (0,), Unfold(0)), {"n": 2})


def test_a_body_inside_a_function_is_guarded_there():
    """exp(D[n]) is exp(0) = 1, not 0."""
    D = define("D", [n], constant(1, 1))
    t = begin(term(1, function("exp", D[i], depth=1)), facts=[at_least(n, 1)], over=[interval(-2, n + 2)])
    unfolded = rewrite(t, (0, 0, 0), Unfold(0))
    assert unfolded.rhs.monomials[0].guards == ()
    assert agrees(unfolded, {"n": 2})


def test_unfolding_captures_nothing():
    D = define("D", [n], term(1, X[i - j], Y[j], over=[interval(0, n)]))
    t = begin(term(1, D[j], X[i], over=[interval(0, n)]), facts=[at_least(n, 1)], over=X.box)
    position = t.rhs.monomials[0].factors.index(D[j])
    done = rewrite(t, (0,), Unfold(position))
    assert agrees(done, {"n": 3}, lambda name, at: (at[0] + 2) ** len(name) * (1 + ord(name) % 5))


# --- use ------------------------------------------------------------------------------------------------------------


def test_an_index_given_to_an_equation_is_in_scope():
    """exp(Sum_k A[i, k]) = exp(Sum_k A[i, 3 - k]) for i < 2, at i := k - 2 (k // 2) with the k that the sum binds."""
    A = tensor("A", 2, 4)
    facts = []
    t = begin(term(1, function("exp", A[i, j], depth=1, over=[interval(0, 4)])), facts=facts, over=[interval(0, 2)])
    t = rewrite(t, (0, 0, 0), Reindex((interval(0, 4),), (3 - j,), (3 - j,)))
    odd = i - 2 * (i // 2)
    other = begin(term(0, function("exp", A[odd, i], depth=0, over=[interval(0, 4)])))
    with pytest.raises(ValueError, match="not bound"):
        use(other, (0,), t, (odd,))


def test_an_equation_holds_in_its_intervals_only():
    facts = [at_least(n, 3)]
    D = define("D", [n], term(1, X[i]))
    equation = rewrite(begin(term(1, D[i]), facts=facts, over=[interval(0, 2)]), (0,), Unfold(0))
    t = begin(term(1, D[i]), facts=facts, over=D.box)
    with pytest.raises(Refused, match="leaves the interval"):
        use(t, (0,), equation, (i,))
    with pytest.raises(Refused, match="leaves the interval"):
        use(begin(term(0, D[n - 1]), facts=facts), (0,), equation, (n - 1,))
    with pytest.raises(Refused, match="1 variables"):
        use(t, (0,), equation, ())


def test_outside_the_box_an_equation_is_used_under_guards():
    """X[i] = 1 X[i] for i in the box; where the left side is read outside it, both sides are 0 only if guarded."""
    facts = [at_least(n, 1)]
    D = define("D", [n], constant(1, 1))
    equation = rewrite(begin(term(1, D[i]), facts=facts, over=D.box), (0,), Unfold(0))
    assert equation.rhs == constant(1, 1)
    t = use(begin(term(1, D[i]), facts=facts, over=[interval(-2, n + 2)]), (0,), equation, (i,))
    assert agrees(t, {"n": 2})
    inside_function = begin(term(1, function("exp", D[i], depth=1)), facts=facts, over=[interval(-2, n + 2)])
    assert agrees(use(inside_function, (0, 0, 0), equation, (i,)), {"n": 2})


def test_the_box_of_a_read_inside_a_function_excuses_no_index():
    """exp(D[i]) = exp(1) for i < n; at i = n the left side is 1, not 0."""
    facts = [at_least(n, 1)]
    D = define("D", [n], constant(1, 1))
    equation = begin(term(1, function("exp", D[i], depth=1)), facts=facts, over=D.box)
    equation = rewrite(equation, (0, 0, 0), Unfold(0))
    t = begin(term(1, function("exp", D[i], depth=1)), facts=facts, over=[interval(0, n + 1)])
    with pytest.raises(Refused, match="leaves the interval"):
        use(t, (0,), equation, (i,))


def test_an_equation_needs_its_facts():
    equation = rewrite(begin(term(0, X[n - 1], guards=[at_least(n, 5)]), facts=[at_least(n, 5)]), (0,), Reguard((), ()))
    for facts in ([], [at_least(n, 4)]):
        with pytest.raises(Refused):
            use(begin(term(0, X[n - 1]), facts=facts), (0,), sym(equation), ())
        with pytest.raises(Refused, match="fact of the theorem"):
            specialise(equation, facts=facts)


def test_every_factor_is_there_as_often_as_the_equation_says():
    facts = [at_least(n, 1)]
    D = define("D", (), term(0, x[()], x[()]))
    fold = sym(rewrite(begin(term(0, D[()]), facts=facts), (0,), Unfold(0)))
    with pytest.raises(Refused, match="not a factor"):
        use(begin(term(0, x[()]), facts=facts), (0,), fold, ())
    with pytest.raises(Refused, match="not a factor"):
        use(begin(term(0, y[()]), facts=facts), (0,), fold, ())
    cube = use(begin(term(0, x[()], x[()], x[()], coefficient=5), facts=facts), (0,), fold, ())
    assert cube.rhs == term(0, D[()], x[()], coefficient=5)


def test_an_equation_between_sums_is_not_one_between_products():
    equation = begin(term(0, X[i], over=[interval(0, n)]), facts=[at_least(n, 1)])
    with pytest.raises(Refused, match="one product of factors"):
        use(begin(term(0, X[0]), facts=[at_least(n, 1)]), (0,), equation, ())
    two = begin(term(0, x[()]) + term(0, y[()]))
    with pytest.raises(Refused, match="one product of factors"):
        use(begin(term(0, x[()])), (0,), two, ())
    nothing = begin(term(0, x[()]) - term(0, x[()]))
    with pytest.raises(Refused, match="one product of factors"):
        use(begin(term(0, x[()])), (0,), nothing, ())


def test_the_coefficient_of_an_equation_counts():
    D = define("D", (), term(0, x[()], coefficient=3))
    fold = sym(rewrite(begin(term(0, D[()])), (0,), Unfold(0)))
    t = use(begin(term(0, x[()], y[()], coefficient=2)), (0,), fold, ())
    assert t.rhs == term(0, D[()], y[()], coefficient=Fraction(2, 3))


# --- trans ----------------------------------------------------------------------------------------------------------


def test_equations_are_joined_only_where_they_meet():
    facts = [at_least(n, 1)]
    one, two = begin(term(1, X[i]), facts=facts, over=X.box), begin(term(1, Y[i]), facts=facts, over=X.box)
    for other in (
        two,
        begin(term(1, X[i]), over=X.box),
        begin(term(1, X[i]), facts=facts, over=[interval(0, 1)]),
        begin(term(1, tensor("X", n + 1)[i]), facts=facts, over=X.box),
        begin(term(1, define("X", [n], constant(1, 1))[i]), facts=facts, over=X.box),
    ):
        with pytest.raises(Refused, match="trans"):
            trans(one, other)


# --- specialise -----------------------------------------------------------------------------------------------------


def product_rule():
    """d(x y)/dx = y."""
    t = begin(term(0, Derivative(term(0, x[()], y[()]), x, ())))
    return rewrite(t, (0,), Differentiate(0))


def test_nothing_that_depends_on_the_variable_is_put_in():
    """d(x y)/dx = y with y := x would say d(x x)/dx = x."""
    t = product_rule()
    square = define("q", (), term(0, x[()], x[()]))
    through = define("r", (), term(0, square[()]))
    slope = define("d", (), term(0, Derivative(term(0, square[()]), square, ())))
    for put in (x, square, through, slope):
        with pytest.raises(Refused, match=r"differentiated by|two tensors become one"):
            specialise(t, facts=[], tensors={"y": put})
    with pytest.raises(Refused, match="differentiated by"):
        specialise(t, facts=[], tensors={"x": z, "y": define("y", (), term(0, z[()]))})
    assert specialise(t, facts=[], tensors={"y": z}).rhs == term(0, z[()])


def test_two_variables_stay_independent():
    """d(x y)/dx + d(x y)/dy = x + y with y := x would say 3 x = 2 x."""
    e = term(0, x[()], y[()])
    t = begin(term(0, Derivative(e, x, ())) + term(0, Derivative(e, y, ())))
    while any(isinstance(f, Derivative) for one in t.rhs.monomials for f in one.factors):
        number = next(p for p, one in enumerate(t.rhs.monomials) if isinstance(one.factors[0], Derivative))
        t = rewrite(t, (number,), Differentiate(0))
    assert t.rhs == term(0, x[()]) + term(0, y[()])
    for put in ({"y": define("q", (), term(0, x[()]))}, {"x": define("q", (), term(0, y[()]))}, {"y": x}, {"x": y}):
        with pytest.raises(Refused, match=r"differentiated by|two tensors become one"):
            specialise(t, facts=[], tensors=put)
    both = {"x": define("p", (), term(0, z[()])), "y": define("q", (), term(0, z[()]))}
    assert agrees(specialise(t, facts=[], tensors=both), {})


def test_a_variable_inside_a_definition_counts():
    """g := d(x y)/dx is a definition; y := x would change what it means."""
    g = define("g", (), term(0, Derivative(term(0, x[()], y[()]), x, ())))
    t = rewrite(begin(term(0, g[()])), (0,), Unfold(0))
    t = rewrite(t, (0,), Differentiate(0))
    assert t.rhs == term(0, y[()])
    with pytest.raises(Refused, match=r"differentiated by|two tensors become one"):
        specialise(t, facts=[], tensors={"y": x})


def test_what_is_put_in_has_the_same_box_and_body():
    t = begin(total(X), facts=[at_least(n, 1)])
    t = rewrite(t, (0,), Reguard((interval(0, n + 1),), ()))
    with pytest.raises(Refused, match="box"):
        specialise(t, facts=[at_least(n, 1)], tensors={"X": tensor("X", n + 1)})
    D = define("D", [n], constant(1, 1))
    unfolded = rewrite(begin(term(1, D[i]), facts=[at_least(n, 1)], over=D.box), (0,), Unfold(0))
    for other in (define("D", [n], constant(1, 2)), tensor("D", n), X):
        with pytest.raises(Refused, match="not defined by the same body"):
            specialise(unfolded, facts=[at_least(n, 1)], tensors={"D": other})


def test_sizes_are_replaced_in_boxes_and_bodies():
    """With n := 3 the box of X is 3 as well: a guard that a box gave would otherwise be wrong."""
    D = define("D", [n], term(1, X[n - 1 - i]))
    t = rewrite(begin(term(0, D[i], over=[interval(0, n + 1)]), facts=[at_least(n, 1)]), (0,), Unfold(0))
    put = specialise(t, facts=[], sizes={"n": index(3)})
    assert put.rhs.monomials[0].binders == (interval(0, 4),)
    assert {f.tensor.box for one in put.rhs.monomials for f in one.factors} == {(interval(0, 3),)}
    assert agrees(put, {})
    with pytest.raises(Refused, match="fact of the theorem"):
        specialise(t, facts=[], sizes={"n": index(0)})


# --- chain ----------------------------------------------------------------------------------------------------------

FACTS = [at_least(n, 1)]
PASSED = define("Y", [n], term(1, X[i]))
G = tensor("G", n)


def jacobian(cotangent, output, target, names=()):
    t = begin(vector_jacobian(cotangent, output, target), facts=FACTS, over=target.box)
    return tactics.derivative(t, names)


def identity_product():
    return jacobian(G, PASSED, X, ["Y"])


def test_a_loss_goes_through_the_output():
    loss = term(0, PASSED[i], PASSED[i], over=[interval(0, n)])
    t = chain(loss, "dY", identity_product(), facts=FACTS)
    assert agrees(t, {"n": 3})


@pytest.mark.parametrize(
    "loss",
    [
        term(0, PASSED[i], X[i], over=[interval(0, n)]),
        total(PASSED) + total(X),
        total(PASSED) + term(0, function("exp", X[0])),
        total(PASSED) + total(define("Q", [n], term(1, X[i], PASSED[i]))),
        total(define("V", [n], term(1, X[i]))),
        total(X),
    ],
)
def test_a_loss_that_bypasses_the_output_is_refused(loss):
    with pytest.raises(Refused, match="not only through Y"):
        chain(loss, "dY", identity_product(), facts=FACTS)


@pytest.mark.parametrize(
    "loss",
    [
        term(0, PASSED[i], G[i], over=[interval(0, n)]),
        total(PASSED) + total(define("Q", [n], term(1, G[i]))),
    ],
)
def test_a_cotangent_is_free(loss):
    """d(Sum G Y)/dX = G says nothing about G := dL/dY if L reads G."""
    with pytest.raises(Refused, match="not free"):
        chain(loss, "dY", identity_product(), facts=FACTS)


def test_a_cotangent_is_not_defined():
    defined = define("G", [n], term(1, X[i]))
    t = begin(vector_jacobian(defined, PASSED, X), facts=FACTS, over=X.box)
    with pytest.raises(Refused, match="chain: the product has to say"):
        chain(total(PASSED), "dY", t, facts=FACTS)


def test_a_cotangent_is_not_read_by_the_output():
    mixed = define("Y", [n], term(1, X[i], G[i]))
    t = begin(vector_jacobian(G, mixed, X), facts=FACTS, over=X.box)
    with pytest.raises(Refused, match="not free"):
        chain(total(mixed), "dY", t, facts=FACTS)


def test_a_cotangent_is_not_the_variable():
    """d(Sum X[i] Y[i])/dX[h] = Y[h] with Y free of X would say d(Sum Y)/dX = Y, where it is 0."""
    constant_output = define("Y", [n], term(1, Z[i]))
    t = jacobian(X, constant_output, X)
    assert t.rhs == term(1, constant_output[i])
    with pytest.raises(Refused, match="has to be another tensor"):
        chain(total(constant_output), "dY", t, facts=FACTS)


def test_a_variable_that_is_defined_from_the_output_is_seen():
    """X := Y is free in d/dX; d(Sum G Y)/dX = 0, which says nothing about a loss that reads X itself."""
    output = define("Y", [n], term(1, Z[i]))
    target = define("X", [n], term(1, output[i]))
    t = jacobian(G, output, target)
    assert t.rhs.monomials == ()
    for loss in (total(target), total(output) + total(target), total(define("Q", [n], term(1, target[i])))):
        with pytest.raises(Refused, match="not only through Y"):
            chain(loss, "dY", t, facts=FACTS)
    assert agrees(chain(total(output), "dY", t, facts=FACTS), {"n": 2})


def test_a_product_is_a_whole_vector_jacobian_product():
    """Part of the sum, part of the indices, other indices, another factor: none of them is the product."""
    whole = vector_jacobian(G, PASSED, X)
    inner = whole.monomials[0].factors[0]
    part = term(1, G[j], PASSED[j], over=[interval(0, n - 1)])
    twice = term(1, G[j], PASSED[j], over=[interval(0, n)], coefficient=2)
    flipped = term(1, G[j], PASSED[n - 1 - j], over=[interval(0, n)])
    for e, over in (
        (whole, [interval(0, 1)]),
        (term(1, Derivative(inner.expr, X, (i + 1,))), X.box),
        (term(1, Derivative(part, X, (i,))), X.box),
        (term(1, Derivative(twice, X, (i,))), X.box),
        (term(1, Derivative(flipped, X, (i,))), X.box),
        (whole.scaled(2), X.box),
        (whole + term(1, X[i]), X.box),
        (whole * term(1, X[i]), X.box),
        (term(1, X[i]), X.box),
    ):
        t = begin(e, facts=FACTS, over=over)
        with pytest.raises(Refused, match="chain: the product has to say"):
            chain(total(PASSED), "dY", t, facts=FACTS)


def test_a_product_is_worked_out():
    """While a derivative or a definition still holds G, putting dL/dY for G would differentiate it too."""
    raw = begin(vector_jacobian(G, PASSED, X), facts=FACTS, over=X.box)
    with pytest.raises(Refused, match="not worked out"):
        chain(total(PASSED), "dY", raw, facts=FACTS)
    D = define("D", [n], term(1, G[i]))
    fold = sym(rewrite(begin(term(1, D[i]), facts=FACTS, over=D.box), (0,), Unfold(0)))
    folded = use(identity_product(), (0,), fold, (i,))
    assert folded.rhs == term(1, D[i])
    with pytest.raises(Refused, match="not worked out"):
        chain(total(PASSED), "dY", folded, facts=FACTS)


def test_a_chain_keeps_to_its_facts_and_names():
    with pytest.raises(Refused, match="a fact of the product"):
        chain(total(PASSED), "dY", identity_product(), facts=[])
    with pytest.raises(Refused, match="a number is needed"):
        chain(term(1, PASSED[i]), "dY", identity_product(), facts=FACTS)
    for name in ("X", "Y"):
        with pytest.raises(Refused, match="two different tensors"):
            chain(total(PASSED), name, identity_product(), facts=FACTS)


# --- laws and their conditions --------------------------------------------------------------------------------------


def test_cancelling_records_that_the_number_is_not_zero():
    X0 = X[0]
    t = rewrite(begin(term(0, X0, function("recip", X0))), (0,), Cancel(0, 1))
    assert t.rhs == ONE
    assert t.conditions == ("X[0] is not 0",)
    assert sym(t).conditions == t.conditions
    assert trans(t, begin(ONE)).conditions == t.conditions
    assert use(begin(term(0, X0, function("recip", X0))), (0,), t, ()).conditions == t.conditions


def test_only_what_is_positive_by_its_form_needs_no_condition():
    certain = (function("exp", X[0]), function("sigmoid", X[0]), function("recip", function("exp", X[0])))
    for f in certain:
        positions = [0, 1] if f.text < function("recip", f).text else [1, 0]
        t = rewrite(begin(term(0, f, function("recip", f))), (0,), Cancel(*positions))
        assert t.conditions == ()
    for f in (function("relu", X[0]), function("tanh", X[0]), function("log", X[0]), x[()]):
        e = term(0, f, function("recip", f))
        first = e.monomials[0].factors.index(f)
        assert rewrite(begin(e), (0,), Cancel(first, 1 - first)).conditions != ()


def test_a_condition_follows_its_theorem():
    """x recip(x) = 1 where x is not 0; with x := 0 the condition is about the new tensor, and plainly false."""
    t = rewrite(begin(term(0, x[()], function("recip", x[()]))), (0,), Cancel(1, 0))
    nothing = define("q", (), term(0, z[()], guards=[at_least(-1, n)]))
    put = specialise(t, facts=[at_least(n, 1)], tensors={"x": nothing})
    assert put.conditions == ("x[] is not 0 (with x := q)",)
    indexed = begin(term(1, X[i], function("recip", X[i], depth=1)), facts=FACTS, over=X.box)
    indexed = rewrite(indexed, (0,), Cancel(0, 1))
    there = begin(term(0, X[n - 1], function("recip", X[n - 1])), facts=FACTS)
    assert use(there, (0,), indexed, (n - 1,)).conditions == ("X[$0] is not 0 (with $0 := n-1)",)
    resized = specialise(indexed, facts=[], sizes={"n": index(3)})
    assert resized.conditions == ("X[$0] is not 0 (with n := 3)",)


def test_a_condition_of_a_product_goes_through_a_chain():
    """Cancelling G recip(G) assumes something of G, which is then the cotangent."""
    output = define("Y", [n], term(1, X[i]))
    t = jacobian(G, output, X, ["Y"])
    recip = function("recip", G[i], depth=1)
    grown = begin(term(1, G[i], G[i], recip), facts=FACTS, over=X.box)
    factors = grown.rhs.monomials[0].factors
    shrunk = rewrite(grown, (0,), Cancel(factors.index(G[i]), factors.index(recip)))
    assert shrunk.rhs == t.rhs
    joined = trans(t, sym(shrunk))
    done = chain(total(output), "dY", joined, facts=FACTS)
    assert done.conditions == ("G[$0] is not 0 (with G := dY)",)


def test_a_pair_is_a_number_and_its_reciprocal():
    e = term(0, x[()], y[()], function("recip", x[()]), function("recip", x[()], y[()]))
    factors = begin(e).rhs.monomials[0].factors
    number = {f: p for p, f in enumerate(factors)}
    t = begin(e)
    for first, second in (
        (number[y[()]], number[function("recip", x[()])]),
        (number[x[()]], number[function("recip", x[()], y[()])]),
        (number[x[()]], number[x[()]]),
        (number[function("recip", x[()])], number[x[()]]),
        (number[x[()]], 9),
        (-4, number[function("recip", x[()])]),
    ):
        refused(t, Cancel(first, second))
    doubled = term(0, x[()], Apply("recip", term(0, x[()], coefficient=2)))
    refused(begin(doubled), Cancel(1, 0), match="not the reciprocal")
    refused(begin(term(0, X[i], function("recip", X[0], depth=1), over=[interval(0, n)])), Cancel(0, 1))


@pytest.mark.parametrize(("law", "name"), [(RecipFactor, "recip"), (LogFactor, "log")])
def test_a_sum_of_exponentials_is_positive_only_where_it_is_not_empty(law, name):
    """Over no class at all the sum is 0, which has neither a reciprocal nor a logarithm."""
    n, y = symbol("n"), tensor("y", symbol("n"))
    shift_ = Apply("exp", term(0, tensor("M")[()]))
    inner = Apply("exp", term(1, tensor("M")[()])), Apply("exp", term(1, y[var(0)]))
    e = term(0, Apply(name, term(0, *inner, over=[interval(0, n)])))
    for least, conditions in ((0, 1), (1, 0)):
        assert len(rewrite(begin(e, facts=[at_least(n, least)]), (0,), law(0, shift_)).conditions) == conditions


def test_reciprocals_and_logarithms_record_their_conditions():
    e = term(0, function("recip", x[()], y[()]))
    assert "not 0" in rewrite(begin(e), (0,), RecipFactor(0, x[()])).conditions[0]
    logarithm = term(0, Apply("log", term(0, function("exp", x[()]), y[()])))
    assert "positive" in rewrite(begin(logarithm), (0,), LogFactor(0, function("exp", x[()]))).conditions[0]


def test_a_common_factor_is_common():
    """recip(x y + z) is not recip(x) recip(y + z), and what depends on the sum's variable stays inside it."""
    mixed = Apply("recip", term(0, x[()], y[()]) + term(0, z[()]))
    refused(begin(term(0, mixed)), RecipFactor(0, x[()]), match="not a factor of every term")
    summed = Apply("recip", term(0, X[i], Y[i], over=[interval(0, n)]))
    for common in (X[0], X[i], X[j]):
        refused(begin(term(0, summed)), RecipFactor(0, common))
    nothing = Apply("recip", Expr(0, ()))
    refused(begin(term(0, nothing)), RecipFactor(0, x[()]), match="nothing can be taken out")
    logarithm = Apply("log", term(0, x[()], y[()]))
    refused(begin(term(0, logarithm)), LogFactor(0, x[()]), match="an exponential")
    refused(begin(term(0, Apply("log", Expr(0, ())))), LogFactor(0, function("exp", x[()])))


def test_a_law_is_about_one_function():
    for rule in (ExpSum(0, (0,)), Sigmoid(0), RecipScale(0, Fraction(2)), RecipFactor(0, x[()])):
        refused(begin(term(0, function("relu", x[()]))), rule, match="is no")
        refused(begin(term(0, x[()])), rule, match="is no")
    refused(begin(term(0, function("recip", x[()]))), RecipScale(0, Fraction(0)), match="scale=0")


def test_a_kink_is_a_named_convention():
    """relu'(0) = 0 is what frameworks do, and no theorem: it stands among the conditions."""
    for name in ("relu", "step"):
        t = begin(term(0, Derivative(term(0, function(name, x[()], y[()])), x, ())))
        assert rewrite(t, (0,), Differentiate(0)).conditions == (
            f"where x[]*y[] is 0, {name} has the derivative 0 by convention",
        )
    deep = begin(term(0, Derivative(term(0, function("exp", function("relu", x[()]))), x, ())))
    assert "by convention" in rewrite(deep, (0,), Differentiate(0)).conditions[0]
    free = begin(term(0, Derivative(term(0, function("relu", y[()]), x[()]), x, ())))
    assert rewrite(free, (0,), Differentiate(0)).conditions == ()


# --- theories -------------------------------------------------------------------------------------------------------


def test_a_theory_never_gets_weaker():
    """That x recip(x) = 1 is gone from the last line does not make it a statement about rings."""
    t = rewrite(begin(term(0, x[()], function("recip", x[()]))), (0,), Cancel(1, 0))
    assert t.theory == "field"
    assert sym(t).theory == "field"
    assert trans(t, begin(ONE)).theory == "field"
    assert use(begin(term(0, x[()], function("recip", x[()]))), (0,), t, ()).theory == "field"
    assert specialise(t, facts=[]).theory == "field"
    exp = function("exp", x[()])
    gone = rewrite(begin(term(0, exp, function("recip", exp))), (0,), Cancel(0, 1))
    assert gone.theory == "reals with elementary functions"
    half = define("h", (), constant(0, Fraction(1, 2)))
    assert begin(term(0, half[()])).theory == "field"
    assert begin(term(0, Maximum((interval(0, 2),), (), term(1, X[i])))).theory == "ordered field"
    assert begin(total(X)).theory == "commutative ring"


def test_a_chain_has_the_theory_of_its_loss():
    loss = term(0, function("exp", PASSED[0]))
    assert chain(loss, "dY", identity_product(), facts=FACTS).theory == "reals with elementary functions"


# --- addresses ------------------------------------------------------------------------------------------------------


def test_an_address_is_exact():
    t = begin(term(0, function("exp", x[()]), y[()]))
    exp = next(p for p, f in enumerate(t.rhs.monomials[0].factors) if isinstance(f, Apply))
    read = 1 - exp
    for where in ((), (1,), (-1,), (0, exp), (0, exp, 1), (0, read, 0), (0, 2, 0), (0, -1, 0)):
        refused(t, Drop(), where)


def test_what_is_known_outside_a_function_holds_inside_it():
    """Under [i >= 1] the argument may be simplified; what is known inside it does not come out."""
    inner = term(1, X[i], guards=[at_least(i, 1)])
    guarded = begin(term(1, Apply("exp", inner), guards=[at_least(i, 1)]), facts=FACTS, over=X.box)
    done = rewrite(guarded, (0, 0, 0), Reguard((), ()))
    assert agrees(done, {"n": 3})
    bare = begin(term(1, Apply("exp", inner)), facts=FACTS, over=X.box)
    refused(bare, Reguard((), ()), (0, 0, 0), match="does not follow")
    outer = begin(term(1, Apply("exp", inner), guards=[at_least(i, 1)]), facts=FACTS, over=X.box)
    refused(outer, Reguard((), ()), (0,), match="does not follow")


def test_a_product_with_a_function_is_zero_where_a_direct_read_is():
    """X[i] exp(..) vanishes outside the box of X, which is used for the monomial."""
    e = term(0, X[i], function("exp", Y[i], depth=1), over=[interval(-1, n + 1)])
    t = rewrite(begin(e, facts=FACTS), (0,), Reguard((interval(0, n),), ()))
    assert agrees(t, {"n": 2})
    inner = Apply("exp", term(1, Y[i], guards=[at_least(i, 0)]))
    t = begin(term(0, X[i], inner, over=[interval(-1, n + 1)]), facts=FACTS)
    exp = next(p for p, f in enumerate(t.rhs.monomials[0].factors) if isinstance(f, Apply))
    plain = rewrite(t, (0, exp, 0), Reguard((), ()))  # by Y's own box, not by that of X
    assert agrees(plain, {"n": 2})


def test_names_of_tensors_are_unique_across_the_equation():
    """A step must not bring in a second tensor of a name that the other side has."""
    D = define("D", (), term(0, tensor("X", 5)[0]))
    with pytest.raises(Refused, match="two different tensors are called X"):
        begin(term(0, X[0], D[()]))
    gone = begin(term(0, x[()], y[()]) - term(0, x[()], y[()]) + ONE)
    assert gone.rhs == ONE
    for put in ({"y": define("x", (), ONE)}, {"x": define("p", (), term(0, tensor("y", 2)[0]))}):
        with pytest.raises(Refused, match="two different tensors are called"):
            specialise(begin(term(0, x[()], y[()])), facts=[], tensors=put)
