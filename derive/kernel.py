"""The trusted core: a ``Theorem`` is made only here, by rules whose side conditions are checked.

A theorem says: *for all sizes that satisfy its facts, all values of its free tensors and all indices in its
intervals, left side = right side.*  It starts as ``e = e`` (``begin``).  ``rewrite`` replaces one monomial of the right
side by what a rule of ``derive.rules`` says is equal to it; ``where`` addresses it: the number of the monomial, then
pairs (factor, monomial) downwards into the arguments of functions.  ``use`` rewrites by another theorem,
``specialise`` puts sizes and tensors into one, ``chain`` carries a derivative through a network.

The contents of a theorem live in a dictionary keyed by the theorem, which only this module touches: an object that
was copied, unpickled or built from outside has no contents, and every use of it fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn
from weakref import WeakKeyDictionary

from derive.indices import Guard, Index, Interval, variables
from derive.obligations import Ledger, Obligation, Refused
from derive.rules import RULES, Place, Rule
from derive.terms import (
    Apply,
    Derivative,
    Expr,
    Factor,
    Maximum,
    Read,
    Substitution,
    Tensor,
    expression,
    instantiate,
    ranges,
    shift,
    term,
)
from derive.wellformed import (
    THEORIES,
    check_guards,
    check_scope,
    check_variables,
    divisors,
    divisors_of_guards,
    one_tensor_a_name,
    theory_of,
    well_formed,
)

Where = tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """One rule as it was applied: what it had to show, what it assumes of values, and the right side after it.

    ``by`` is the rule with its arguments; for the rules of this module it is a name and what they were given.
    """

    by: Rule | tuple[object, ...]
    where: Where
    obligations: tuple[Obligation, ...]
    conditions: tuple[str, ...]
    result: Expr

    @property
    def rule(self) -> str:
        """The name of the rule."""
        return str(self.by[0]) if isinstance(self.by, tuple) else self.by.name


@dataclass(frozen=True)
class _Contents:
    facts: tuple[Guard, ...]
    binders: tuple[Interval, ...]
    lhs: Expr
    rhs: Expr
    theory: str
    steps: tuple[Step, ...]


class Theorem:
    """An equation that was proved; see the head of this file.  Only the rules of this module make one."""

    __slots__ = ("__weakref__",)

    def __init__(self) -> None:
        raise TypeError("a Theorem is made by the rules of derive.kernel only")

    def __init_subclass__(cls, **_: Any) -> NoReturn:
        raise TypeError("Theorem cannot be subclassed")

    def __copy__(self) -> Theorem:
        return self

    def __deepcopy__(self, _: object) -> Theorem:
        return self

    def __reduce_ex__(self, _: object) -> NoReturn:
        raise TypeError("a Theorem cannot be pickled: save its derivation and prove it again")

    @property
    def facts(self) -> tuple[Guard, ...]:
        """What is required of the sizes."""
        return _contents(self).facts

    @property
    def binders(self) -> tuple[Interval, ...]:
        """The intervals of the free variables."""
        return _contents(self).binders

    @property
    def lhs(self) -> Expr:
        """The left side."""
        return _contents(self).lhs

    @property
    def rhs(self) -> Expr:
        """The right side."""
        return _contents(self).rhs

    @property
    def theory(self) -> str:
        """The weakest of ``THEORIES`` in which every step has a meaning."""
        return _contents(self).theory

    @property
    def steps(self) -> tuple[Step, ...]:
        """How it was proved."""
        return _contents(self).steps

    @property
    def conditions(self) -> tuple[str, ...]:
        """What the steps assume of values, without repetitions."""
        return tuple(dict.fromkeys(c for step in self.steps for c in step.conditions))

    def __repr__(self) -> str:
        return f"|- {self.lhs.text} = {self.rhs.text}"


_PROVED: WeakKeyDictionary[Theorem, _Contents] = WeakKeyDictionary()


def _contents(theorem: Theorem) -> _Contents:
    """What was proved.  The exact type is asked for: a subclass or a look-alike could say anything."""
    found = _PROVED.get(theorem) if type(theorem) is Theorem else None
    if found is None:
        raise TypeError("this Theorem was not made by the rules of derive.kernel")
    return found


def _theorem(contents: _Contents) -> Theorem:
    one_tensor_a_name(contents.lhs, contents.rhs)
    made = object.__new__(Theorem)
    _PROVED[made] = contents
    return made


def _known(facts: tuple[Guard, ...], binders: tuple[Interval, ...]) -> tuple[Guard, ...]:
    return facts + ranges(binders, 0)


def _check(e: Expr, facts: tuple[Guard, ...], binders: tuple[Interval, ...], ledger: Ledger) -> None:
    check_scope(e)
    one_tensor_a_name(e)
    well_formed(e, _known(facts, binders), facts, ledger)


def _facts(facts: Iterable[Guard], ledger: Ledger) -> tuple[Guard, ...]:
    """Facts as they may stand in a theorem: about sizes only, and with a meaning wherever the others hold."""
    kept = tuple(facts)
    if any(i.variables for g in kept for i in g.indices()):
        raise Refused("facts are about sizes: one of them speaks of a variable")
    check_guards(kept, 0)
    divisors_of_guards(kept, kept, ledger)
    return kept


# --- equality -----------------------------------------------------------------------------------------------------


def begin(e: Expr, *, facts: Iterable[Guard] = (), over: Sequence[Interval] = ()) -> Theorem:
    """``e = e`` for all sizes that satisfy ``facts`` and all variables in the intervals ``over``.

    >>> from derive.indices import symbol, var, interval, at_least
    >>> from derive.terms import tensor, term
    >>> n = symbol("n")
    >>> begin(term(1, tensor("X", n)[var(0)]), facts=[at_least(n, 1)], over=[interval(0, n)])
    |- X[$0] = X[$0]
    """
    ledger = Ledger()
    kept, binders = _facts(facts, ledger), tuple(over)
    if e.depth != len(binders):
        raise Refused(f"over has {len(binders)} intervals and the expression {e.depth} free variables")
    check_scope(term(0, over=binders))
    divisors([i for bounds in binders for i in bounds], kept, ledger)
    _check(e, kept, binders, ledger)
    step = Step(("begin",), (), tuple(ledger.obligations), (), e)
    return _theorem(_Contents(kept, binders, e, e, theory_of(e), (step,)))


def sym(theorem: Theorem) -> Theorem:
    """From ``a = b``: ``b = a``."""
    old = _contents(theorem)
    step = Step(("sym",), (), (), (), old.lhs)
    return _theorem(replace(old, lhs=old.rhs, rhs=old.lhs, steps=(*old.steps, step)))


def trans(first: Theorem, second: Theorem) -> Theorem:
    """From ``a = b`` and ``b = c``, under the same facts and intervals: ``a = c``."""
    a, b = _contents(first), _contents(second)
    if a.facts != b.facts or a.binders != b.binders:
        raise Refused("trans: the two theorems have different facts or intervals")
    if a.rhs != b.lhs:
        raise Refused(f"trans: {a.rhs.text} is not {b.lhs.text}")
    return _extend(first, ("trans", second), (), Ledger(), b.rhs, b.theory, b.steps)


def _extend(
    theorem: Theorem,
    by: Rule | tuple[object, ...],
    where: Where,
    ledger: Ledger,
    rhs: Expr,
    theory: str,
    more: tuple[Step, ...] = (),
) -> Theorem:
    """The theorem with another right side, and the step that led there."""
    old = _contents(theorem)
    _check(rhs, old.facts, old.binders, ledger)
    step = Step(by, where, tuple(ledger.obligations), tuple(ledger.conditions), rhs)
    strongest = max(old.theory, theory, theory_of(rhs), key=THEORIES.index)
    return _theorem(replace(old, rhs=rhs, theory=strongest, steps=(*old.steps, *more, step)))


# --- rewriting ----------------------------------------------------------------------------------------------------


def place(theorem: Theorem, where: Where) -> Place:
    """What stands at ``where`` on the right side, and what is known there."""
    _contents(theorem)
    found: list[Place] = []

    def look(at: Place) -> Expr:
        found.append(at)
        return expression(at.depth, [at.monomial])

    _at(theorem.rhs, where, _known(theorem.facts, theorem.binders), (), look)
    return found[0]


def rewrite(theorem: Theorem, where: Where, rule: Rule) -> Theorem:
    """Replace the monomial at ``where`` by what the rule says it is equal to."""
    _contents(theorem)
    if type(rule) not in RULES:
        raise Refused(f"rule={rule!r}: only the rules of derive.rules are applied")
    ledger = Ledger()
    known = _known(theorem.facts, theorem.binders)
    rhs = _at(theorem.rhs, where, known, (), lambda at: rule.rewrite(at, ledger))
    return _extend(theorem, rule, where, ledger, rhs, THEORIES[0])


def _at(
    e: Expr,
    where: Where,
    known: tuple[Guard, ...],
    targets: tuple[Tensor, ...],
    action: Callable[[Place], Expr],
) -> Expr:
    if not where or where[0] not in range(len(e.monomials)):
        raise Refused(f"where={where}: the expression has {len(e.monomials)} monomials")
    m = e.monomials[where[0]]
    here = Place(e.depth, m, known, targets)
    others = e.monomials[: where[0]] + e.monomials[where[0] + 1 :]
    if len(where) == 1:
        new = action(here)
        check_scope(new)
        if new.depth != e.depth:
            raise Refused(f"the rule gave an expression of depth {new.depth} where {e.depth} is needed")
        return expression(e.depth, others + new.monomials)
    inner = _inside(here.factor(where[1]), where[2:], here, action)
    factors = m.factors[: where[1]] + (inner,) + m.factors[where[1] + 1 :]
    return expression(e.depth, (*others, replace(m, factors=factors)))


def _inside(factor: Factor, where: Where, here: Place, action: Callable[[Place], Expr]) -> Factor:
    """Rewrite inside a function, under the guards around it; inside a derivative its tensor stays folded."""
    if isinstance(factor, Apply):
        return replace(factor, argument=_at(factor.argument, where, here.known, here.targets, action))
    if isinstance(factor, Maximum):
        known = here.known + ranges(factor.binders, here.scope) + factor.guards
        return replace(factor, body=_at(factor.body, where, known, here.targets, action))
    if isinstance(factor, Derivative):
        targets = (*here.targets, factor.tensor)
        return replace(factor, expr=_at(factor.expr, where, here.known, targets, action))
    raise Refused(f"{factor.text}: nothing inside a read can be rewritten")


def use(theorem: Theorem, where: Where, equation: Theorem, at: Sequence[Index]) -> Theorem:
    """Rewrite by an equation whose left side is a product of factors that the monomial has, at these indices.

    The indices have to lie in the intervals of the equation.  Where that follows only from the boxes of what its
    left side reads, the result carries the intervals as guards: outside them the left side is zero.  Inside a
    derivative by a *defined* tensor that tensor counts as free, so an equation that speaks of it is refused.
    """
    _contents(theorem), _contents(equation)
    ledger = Ledger()
    spoken_of = {t for side in (equation.lhs, equation.rhs) for t in side.tensors}

    def action(here: Place) -> Expr:
        for target in here.targets:
            if target.body is not None and any(target in t.reads_of_body for t in spoken_of):
                raise Refused(f"use: the equation may rest on the definition of {target.name}, which is free here")
        ledger.require(theorem.facts, equation.facts, "use: a fact of the equation")
        put = Substitution(len(equation.binders), tuple(at), here.scope)
        if len(at) != len(equation.binders):
            raise Refused(f"at has {len(at)} indices and the equation {len(equation.binders)} variables")
        check_variables(at, here.scope)
        divisors(at, here.known, ledger)
        left = instantiate(equation.lhs, at, here.scope)
        if len(left.monomials) != 1 or left.monomials[0].binders or left.monomials[0].guards:
            raise Refused("use: the left side has to be one product of factors, without sums and guards")
        rest = list(here.monomial.factors)
        for f in left.monomials[0].factors:
            if f not in rest:
                raise Refused(f"use: {f.text} is not a factor here")
            rest.remove(f)
        bounds = [put.guard(g) for g in ranges(equation.binders, 0)]
        open_bounds = tuple(g for g in bounds if not ledger.holds(here.known, g))
        boxes = tuple(g for f in left.monomials[0].factors if isinstance(f, Read) for g in f.in_box())
        ledger.require(here.known + boxes, open_bounds, "use: an index leaves the interval of the equation")
        scaled = instantiate(equation.rhs, at, here.scope).scaled(1 / left.monomials[0].coefficient)
        guarded = [replace(m, guards=m.guards + open_bounds) for m in scaled.monomials]
        return here.times(replace(here.monomial, factors=tuple(rest)), expression(here.scope, guarded))

    rhs = _at(theorem.rhs, where, _known(theorem.facts, theorem.binders), (), action)
    named = [(f"${k}", e.text) for k, e in enumerate(at)]
    ledger.conditions.extend(_read_with(equation.conditions, named))
    return _extend(theorem, ("use", equation, tuple(at)), where, ledger, rhs, equation.theory)


# --- other sizes, other tensors -----------------------------------------------------------------------------------


def specialise(
    theorem: Theorem,
    *,
    facts: Iterable[Guard],
    sizes: Mapping[str, Index] | None = None,
    tensors: Mapping[str, Tensor] | None = None,
) -> Theorem:
    """The theorem for these sizes and these tensors in place of its own, under facts that imply its facts.

    A tensor is named in ``tensors`` by its own name; it needs the same box, and the same body if it is defined.
    Where a derivative is taken with respect to one, nothing else that is put in may depend on it.
    """
    old, given, wanted = _contents(theorem), dict(sizes or {}), dict(tensors or {})
    if any(e.variables for e in given.values()):
        raise Refused("specialise: sizes do not speak of variables")
    check_variables(given.values(), 0)
    ledger = Ledger()
    new_facts = _facts(facts, ledger)
    by_size = Substitution(0, (), 0, given)
    divisors(given.values(), new_facts, ledger)
    ledger.require(new_facts, [by_size.guard(g) for g in old.facts], "specialise: a fact of the theorem")
    swap = _Swap(by_size, wanted)
    put = replace(by_size, tensors=swap)
    lhs, rhs = put.expr(old.lhs), put.expr(old.rhs)
    binders = tuple((by_size.index(lo), by_size.index(hi)) for lo, hi in old.binders)
    for e in (lhs, rhs):
        _check(e, new_facts, binders, ledger)
    _independent([lhs, rhs], swap)
    by = ("specialise", theorem, tuple(given.items()), tuple(wanted.items()))
    named = [(name, new.text) for name, new in given.items()] + [(name, new.name) for name, new in wanted.items()]
    step = Step(by, (), tuple(ledger.obligations), _read_with(theorem.conditions, named), rhs)
    theory = max(old.theory, theory_of(lhs), theory_of(rhs), key=THEORIES.index)
    return _theorem(_Contents(new_facts, binders, lhs, rhs, theory, (step,)))


def _read_with(conditions: Iterable[str], replaced: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Conditions of another theorem, each with what is put in for the names that it uses."""
    note = ", ".join(f"{old} := {new}" for old, new in replaced if old != new)
    return tuple(f"{c} (with {note})" if note else c for c in conditions)


@dataclass
class _Swap:
    """Replaces tensors by those that were asked for, the others by themselves at the new sizes."""

    by_size: Substitution
    wanted: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        self.done: dict[Tensor, Tensor] = {}

    def __call__(self, t: Tensor) -> Tensor:
        if t not in self.done:
            self.done[t] = self._swap(t)
        return self.done[t]

    def _swap(self, t: Tensor) -> Tensor:
        box = tuple((self.by_size.index(lo), self.by_size.index(hi)) for lo, hi in t.box)
        body = None if t.body is None else replace(self.by_size, tensors=self).expr(t.body)
        own = Tensor(t.name, box, body)
        new = self.wanted.get(t.name, own)
        if new.box != box:
            raise Refused(f"{t.name} has the box {box} and {new.name} the box {new.box}")
        if body is not None and new.body != body:
            raise Refused(f"{t.name} is defined, and {new.name} is not defined by the same body")
        return new


def _independent(sides: Iterable[Expr], swap: _Swap) -> None:
    """Refuse where a tensor that was put in depends on one that a derivative is taken by."""
    before = {target for e in swap.done for target in _targets_in(e)}
    targets = {target for side in sides for target in _targets(side)} | {swap(t) for t in before}
    for t, new in swap.done.items():
        for target in targets - {new}:
            if t.body is None and target in new.reads_of_body:
                raise Refused(f"{t.name} becomes {new.name}, which depends on {target.name}: it is differentiated by")
    images = [new for t, new in swap.done.items() if new in targets]
    if len(images) != len(set(images)):
        raise Refused("two tensors become one that is differentiated by")


def _targets(e: Expr) -> set[Tensor]:
    """Every tensor that some derivative in the expression is taken by, through definitions too."""
    found: set[Tensor] = set()
    for m in e.monomials:
        for f in m.factors:
            if isinstance(f, Derivative):
                found |= {f.tensor} | _targets(f.expr)
            elif isinstance(f, Apply):
                found |= _targets(f.argument)
            elif isinstance(f, Maximum):
                found |= _targets(f.body)
            elif isinstance(f, Read):
                found |= _targets_in(f.tensor)
    return found


def _targets_in(t: Tensor) -> set[Tensor]:
    return set() if t.body is None else _targets(t.body)


# --- derivatives through a network --------------------------------------------------------------------------------


def chain(loss: Expr, cotangent: str, product: Theorem, *, facts: Iterable[Guard]) -> Theorem:
    """The derivative of a loss by X, for a loss that depends on X through Y only, from the product of G and Y.

    ``product`` is ``d(Sum_i G[i] Y[i]) / dX[h] = g`` for a free tensor G and a tensor Y that is defined from X.  The
    conclusion is ``d loss / dX[h] = g`` with G now *defined* as ``d loss / dY`` and called ``cotangent``.
    """
    _contents(product)
    ledger = Ledger()
    kept = _facts(facts, ledger)
    free, through, target = _vector_jacobian(product)
    if loss.depth != 0:
        raise Refused(f"loss: an expression of depth {loss.depth}; a number is needed")
    opaque = Tensor(through.name, through.box)
    if free == target:
        raise Refused(f"chain: {free.name} is what the derivative is taken by: the cotangent has to be another tensor")
    if _without(loss, through, opaque, target).depends_on(target):
        raise Refused(f"chain: the loss depends on {target.name} not only through {through.name}")
    if free in through.reads_of_body or loss.depends_on(free):
        raise Refused(f"chain: {free.name} is not free: the loss or {through.name} reads it")
    ledger.require(kept, product.facts, "chain: a fact of the product")
    rank = through.rank
    at_y = variables(0, rank)
    defined = Tensor(cotangent, through.box, term(rank, Derivative(shift(loss, rank), through, at_y)))
    put = Substitution(0, (), 0, {}, lambda t: defined if t == free else t)
    if _targets(product.rhs) or any(free in t.reads_of_body and t != free for t in product.rhs.tensors):
        raise Refused("chain: the product is not worked out to reads of the cotangent")
    depth = target.rank
    lhs = term(depth, Derivative(shift(loss, depth), target, variables(0, depth)))
    rhs = put.expr(product.rhs)
    for e in (lhs, rhs):
        _check(e, kept, target.box, ledger)
    conditions = _read_with(product.conditions, [(free.name, cotangent)])
    step = Step(("chain", product), (), tuple(ledger.obligations), conditions, rhs)
    theory = max(product.theory, theory_of(lhs), key=THEORIES.index)
    return _theorem(_Contents(kept, target.box, lhs, rhs, theory, (step,)))


def _vector_jacobian(product: Theorem) -> tuple[Tensor, Tensor, Tensor]:
    """G, Y and X of a theorem ``d(Sum_i G[i] Y[i]) / dX[h] = ...``, or a refusal."""
    shape = "chain: the product has to say d(Sum_i G[i] Y[i])/dX[h] = ... for h in the box of X"
    lhs = product.lhs
    if len(lhs.monomials) != 1 or len(lhs.monomials[0].factors) != 1:
        raise Refused(shape)
    d = lhs.monomials[0].factors[0]
    if not isinstance(d, Derivative) or d.at != variables(0, lhs.depth) or product.binders != d.tensor.box:
        raise Refused(shape)
    reads = [f for m in d.expr.monomials for f in m.factors if isinstance(f, Read)]
    for g, y in ((a, b) for a in reads for b in reads):
        fits = g.tensor.body is None and y.tensor.body is not None
        if fits and lhs == vector_jacobian(g.tensor, y.tensor, d.tensor):
            return g.tensor, y.tensor, d.tensor
    raise Refused(shape)


def vector_jacobian(cotangent: Tensor, output: Tensor, target: Tensor) -> Expr:
    """``d(Sum_i G[i] Y[i]) / dX[h]`` in the variables h: what a vector-Jacobian theorem starts from."""
    if cotangent.box != output.box:
        raise Refused(f"{cotangent.name} has the box {cotangent.box} and {output.name} {output.box}")
    depth = target.rank
    at = variables(depth, output.rank)
    total = term(depth, Read(cotangent, at), Read(output, at), over=output.box)
    return term(depth, Derivative(total, target, variables(0, depth)))


def _without(e: Expr, hidden: Tensor, opaque: Tensor, target: Tensor) -> Expr:
    """The expression with one defined tensor made opaque, through all definitions but that of the target.

    A target that is itself defined from the hidden tensor is free in a derivative, and has to be found again.
    """
    done: dict[Tensor, Tensor] = {target: target, hidden: opaque}

    def swap(t: Tensor) -> Tensor:
        if t not in done:
            done[t] = t if t.body is None else Tensor(t.name, t.box, Substitution(0, (), 0, {}, swap).expr(t.body))
        return done[t]

    return Substitution(0, (), 0, {}, swap).expr(e)
