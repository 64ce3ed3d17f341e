"""A ``Theorem`` exists only where the kernel proved it: every other way to one is tried here, and fails.

Whatever is built, copied, unpickled, subclassed or imitated outside ``derive.kernel`` has no contents, and every rule
that is given it refuses.  The same goes for rules and for pieces of terms that only look like the real ones.
"""

import copy
import pickle
from dataclasses import FrozenInstanceError, dataclass, replace
from fractions import Fraction
from types import SimpleNamespace
from typing import ClassVar
from weakref import proxy, ref

import pytest

from derive import kernel, rules
from derive.indices import Index, NonNegative, Sym, Zero, at_least, index, interval, symbols, var
from derive.kernel import (
    Theorem,
    begin,
    chain,
    place,
    rewrite,
    specialise,
    sym,
    trans,
    use,
    vector_jacobian,
)
from derive.rules import Cancel, Case, Contract, Drop, LogFactor, RecipFactor, Reguard, Unfold
from derive.terms import Apply, Expr, Monomial, Read, Tensor, constant, define, expression, tensor, term

n, m = symbols("n m")
ONE, TWO = constant(0, 1), constant(0, 2)
X = tensor("X", n)


def genuine() -> Theorem:
    return begin(term(1, X[var(0)]), facts=[at_least(n, 1)], over=X.box)


USES = {
    "sym": sym,
    "trans, first": lambda t: trans(t, genuine()),
    "trans, second": lambda t: trans(genuine(), t),
    "rewrite": lambda t: rewrite(t, (0,), Drop()),
    "place": lambda t: place(t, (0,)),
    "use, theorem": lambda t: use(t, (0,), genuine(), (index(0),)),
    "use, equation": lambda t: use(genuine(), (0,), t, (var(0),)),
    "specialise": lambda t: specialise(t, facts=[]),
    "chain": lambda t: chain(ONE, "g", t, facts=[]),
}
READS = ("facts", "binders", "lhs", "rhs", "theory", "steps", "conditions")


def hollow() -> Theorem:
    """The right type, made without the kernel."""
    return object.__new__(Theorem)


def imitation() -> SimpleNamespace:
    """Everything a theorem can be asked, and a lie."""
    known = kernel._contents(genuine())
    lie = replace(known, facts=(), binders=(), lhs=ONE, rhs=TWO)
    public = {name: getattr(lie, name) for name in ("facts", "binders", "lhs", "rhs", "theory", "steps")}
    return SimpleNamespace(_contents=lie, conditions=(), **public)


# --- making one ---------------------------------------------------------------------------------------------------


def test_a_theorem_cannot_be_constructed():
    with pytest.raises(TypeError, match=r"made by the rules of derive\.kernel only"):
        Theorem()
    with pytest.raises(TypeError):
        Theorem(ONE, TWO)


def test_a_theorem_cannot_be_subclassed():
    with pytest.raises(TypeError, match="cannot be subclassed"):

        class Mine(Theorem):
            pass

    with pytest.raises(TypeError, match="cannot be subclassed"):
        type("Mine", (Theorem,), {})


def test_a_subclass_by_way_of_a_mixin_is_no_theorem():
    """Another base class can swallow the hook that forbids subclasses; what it makes is refused all the same."""

    class Mixin:
        def __init_subclass__(cls, **_):
            pass

    class Mine(Mixin, Theorem):
        facts = ()
        binders = ()
        lhs = ONE
        rhs = TWO
        theory = "commutative ring"
        steps = ()

    for action in USES.values():
        with pytest.raises(TypeError, match="not made by the rules"):
            action(object.__new__(Mine))


@pytest.mark.parametrize("name", USES)
def test_a_hollow_theorem_is_refused_by_every_rule(name):
    with pytest.raises(TypeError, match="not made by the rules"):
        USES[name](hollow())


@pytest.mark.parametrize("name", READS)
def test_a_hollow_theorem_says_nothing(name):
    with pytest.raises(TypeError, match="not made by the rules"):
        getattr(hollow(), name)
    with pytest.raises(TypeError, match="not made by the rules"):
        repr(hollow())


@pytest.mark.parametrize("name", USES)
def test_an_imitation_is_refused_by_every_rule(name):
    with pytest.raises(TypeError, match="not made by the rules"):
        USES[name](imitation())


def test_rewriting_an_imitation_gives_no_theorem():
    lie = imitation()
    with pytest.raises(TypeError, match="not made by the rules"):
        rewrite(lie, (0,), Case(at_least(n, 1)))


@pytest.mark.parametrize("name", USES)
def test_a_proxy_is_refused(name):
    t = genuine()
    with pytest.raises(TypeError, match="not made by the rules"):
        USES[name](proxy(t))


# --- changing one -------------------------------------------------------------------------------------------------


def test_copies_are_the_theorem_itself():
    t = genuine()
    assert copy.copy(t) is t
    assert copy.deepcopy(t) is t
    assert copy.deepcopy([t, t])[1] is t


def test_replace_does_not_apply():
    with pytest.raises(TypeError):
        replace(genuine(), rhs=constant(1, 2))
    if hasattr(copy, "replace"):  # Python 3.13
        with pytest.raises(TypeError):
            copy.replace(genuine(), rhs=constant(1, 2))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_theorem_cannot_be_pickled(protocol):
    for thing in (genuine(), [genuine()], {"a": genuine()}):
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(thing, protocol)


def test_what_is_unpickled_is_hollow():
    """A hand-made pickle can create the object, as ``object.__new__`` can; it proves nothing."""
    made = pickle.loads(b"\x80\x02cderive.kernel\nTheorem\n)\x81.")
    assert type(made) is Theorem
    for action in USES.values():
        with pytest.raises(TypeError, match="not made by the rules"):
            action(made)


@pytest.mark.parametrize("name", [*READS, "_contents", "anything", "__dict__", "__slots__"])
def test_attributes_cannot_be_set(name):
    t = genuine()
    with pytest.raises((AttributeError, TypeError)):
        setattr(t, name, TWO)
    with pytest.raises((AttributeError, TypeError)):
        object.__setattr__(t, name, TWO)
    with pytest.raises((AttributeError, TypeError)):
        delattr(t, name)
    assert t.rhs == term(1, X[var(0)])


def test_what_a_theorem_shows_cannot_be_changed():
    t = genuine()
    with pytest.raises(FrozenInstanceError):
        t.rhs.monomials = ()
    with pytest.raises(FrozenInstanceError):
        t.steps[0].result = TWO
    with pytest.raises(FrozenInstanceError):
        t.facts[0].e = index(0)
    for part in (t.facts, t.binders, t.steps, t.conditions, t.rhs.monomials):
        assert isinstance(part, tuple)


def test_another_class_for_the_object_makes_it_worthless():
    class Lookalike:
        __slots__ = ("__weakref__",)
        rhs = TWO

    t = genuine()
    try:
        t.__class__ = Lookalike
    except TypeError:
        return
    with pytest.raises(TypeError, match="not made by the rules"):
        sym(t)


def test_an_equal_key_does_not_find_the_contents():
    """Contents are found by identity: nothing can be equal to a theorem but the theorem."""
    t = genuine()
    other = genuine()
    assert t != other
    assert hash(t) != hash(other)
    assert ref(t) != ref(other)


def test_the_two_sides_name_one_tensor_alike():
    """``X[0] = X[0]`` of two different tensors X would be no readable statement."""
    left = begin(term(0, X[0], Apply("recip", term(0, X[0]))))
    assert rewrite(left, (0,), Cancel(0, 1)).rhs == ONE
    other = define("X", [n], term(1, tensor("Y", n)[var(0)]))
    with pytest.raises(rules.Refused, match="two different tensors are called X"):
        begin(term(0, X[0], other[0]))


# --- look-alike rules ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Foreign:
    name: ClassVar[str] = "drop"

    def rewrite(self, at, ledger):
        return expression(at.depth, [])


class Derived(Drop):
    def rewrite(self, at, ledger):
        return expression(at.depth, [])


@pytest.mark.parametrize("rule", [Foreign(), Derived(), Drop, SimpleNamespace(rewrite=Foreign().rewrite), None, "drop"])
def test_only_the_rules_themselves_are_applied(rule):
    with pytest.raises(rules.Refused, match=r"only the rules of derive\.rules"):
        rewrite(begin(ONE), (0,), rule)


@pytest.mark.parametrize("rule", rules.RULES)
def test_a_rule_carries_no_method_of_its_own(rule):
    """An instance attribute would be found before the method of the class."""
    made = object.__new__(rule)
    assert not hasattr(made, "__dict__")
    for method in ("rewrite", "_check", "_solve"):
        with pytest.raises((AttributeError, TypeError)):
            object.__setattr__(made, method, lambda at, ledger: expression(at.depth, []))


def test_rules_are_a_fixed_list():
    assert isinstance(rules.RULES, tuple)
    assert set(rules.RULES) == set(rules.Rule.__args__)
    assert len({rule.name for rule in rules.RULES}) == len(rules.RULES)


# --- look-alike terms ---------------------------------------------------------------------------------------------


class AlwaysTrue(NonNegative):
    def holds(self, sizes, variables=()):
        return True


class EqualToAll(Zero):
    __hash__ = Zero.__hash__

    def __eq__(self, other):
        return True


class AnyRead(Read):
    __hash__ = Read.__hash__

    def __eq__(self, other):
        return True


class AnyApply(Apply):
    __hash__ = Apply.__hash__

    def __eq__(self, other):
        return True


class AnyTensor(Tensor):
    __hash__ = Tensor.__hash__

    def __eq__(self, other):
        return True


class AnyIndex(Index):
    __hash__ = Index.__hash__

    def __eq__(self, other):
        return True


class Small(Sym):
    text = "1"


def test_look_alike_terms_do_not_enter():
    for factor in (AnyRead(X, (index(0),)), Read(AnyTensor("X", X.box), (index(0),)), AnyApply("exp", ONE)):
        with pytest.raises(TypeError, match="is needed"):
            begin(term(0, factor))
    for e in (AnyIndex(n.terms), Index((((Small("n"),), 1),))):
        with pytest.raises(TypeError, match="is needed"):
            begin(term(0, X[e]))
        with pytest.raises(TypeError, match="is needed"):
            begin(ONE, facts=[NonNegative(e)])
    for guard in (AlwaysTrue(n), EqualToAll(n)):
        with pytest.raises(TypeError):
            begin(term(0, guards=[guard]))
        with pytest.raises(TypeError):
            begin(ONE, facts=[guard])


@pytest.mark.parametrize("coefficient", [0.1, 2, True, n, "1"])
def test_a_coefficient_is_a_rational_number(coefficient):
    """A symbol in it would escape substitution, a float would not be exact."""
    with pytest.raises(TypeError, match="Fraction is needed"):
        begin(Expr(0, (Monomial(coefficient, (), (), ()),)))


def test_look_alike_arguments_of_rules_are_refused():
    X0, Y0 = X[0], tensor("Y")[()]
    recip = Apply("recip", term(0, X0, Y0))
    log = Apply("log", term(0, Apply("exp", term(0, X0))))
    guarded = term(0, guards=[Zero(n)])
    summed = term(0, X[var(0)], over=[interval(0, n)], guards=[Zero(var(0) - 1)])
    attempts = [
        (term(0, X0), Case(AlwaysTrue(index(-1)))),
        (term(0, X0), Case(AlwaysTrue(n))),
        (guarded, Reguard((), (AlwaysTrue(n),))),
        (guarded, Reguard((), (EqualToAll(n - 1),))),
        (summed, Contract(0, EqualToAll(var(0) - 2))),
        (term(0, recip), RecipFactor(0, AnyRead(X, (index(5),)))),
        (term(0, log), LogFactor(0, AnyApply("exp", constant(0, 3)))),
        (term(0, X0), rules.RewriteIndex(0, 0, AnyIndex(n.terms))),
    ]
    for e, rule in attempts:
        with pytest.raises((TypeError, ValueError)):
            pytest.fail(str(rewrite(begin(e), (0,), rule)))


def test_look_alike_arguments_of_the_kernel_are_refused():
    other = begin(term(1, X[var(0)]), over=X.box)
    with pytest.raises(TypeError, match="is needed"):
        use(other, (0,), other, (AnyIndex(var(0).terms),))
    with pytest.raises(TypeError, match="is needed"):
        specialise(other, facts=[], sizes={"n": AnyIndex(m.terms)})
    with pytest.raises(TypeError, match="is needed"):
        specialise(other, facts=[], tensors={"X": AnyTensor("X", X.box)})


def test_a_scale_is_read_once():
    """A number that says something else each time it is asked would scale the two sides differently."""

    class Fickle(Fraction):
        def __rtruediv__(self, other):
            raise AssertionError("asked")

    t = rewrite(begin(term(0, Apply("recip", term(0, X[0])))), (0,), rules.RecipScale(0, Fickle(2)))
    assert t.rhs == term(0, Apply("recip", term(0, X[0], coefficient=Fraction(1, 2))), coefficient=Fraction(1, 2))


# --- a theorem is what its steps make it --------------------------------------------------------------------------


def test_steps_record_what_was_done():
    Y = define("Y", [n], term(1, X[var(0)]))
    t = rewrite(begin(term(1, Y[var(0)]), facts=[at_least(n, 1)], over=Y.box), (0,), Unfold(0))
    assert [step.rule for step in t.steps] == ["begin", "unfold"]
    assert t.steps[-1].result == t.rhs
    assert [o.answer.status for o in t.steps[-1].obligations] == ["proved", "proved"]
    assert [step.rule for step in sym(t).steps] == ["begin", "unfold", "sym"]
    both = trans(t, sym(t))
    assert (both.lhs, both.rhs) == (t.lhs, t.lhs)


def test_a_refused_step_leaves_the_theorem_as_it_was():
    t = genuine()
    before = (t.lhs, t.rhs, t.steps)
    with pytest.raises(rules.Refused):
        rewrite(t, (0,), Drop())
    assert (t.lhs, t.rhs, t.steps) == before


def test_the_cotangent_of_a_chain_is_checked_too():
    Y = define("Y", [n], term(1, X[var(0)]))
    lie = imitation()
    lie.lhs = vector_jacobian(tensor("G", n), Y, X)
    lie.binders = X.box
    with pytest.raises(TypeError, match="not made by the rules"):
        chain(term(0, Y[0]), "g", lie, facts=[])
