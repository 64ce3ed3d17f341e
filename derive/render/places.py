"""From the address of a step to the fragment of the formula that it changed, with the names in scope there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from derive.render.formula import Notation
from derive.render.names import Scope
from derive.terms import Apply, Derivative, Expr, Factor, Maximum, Monomial


@dataclass(frozen=True)
class Spot:
    """A monomial where it stands, with the names in scope there; ``inner`` names its own variables too."""

    depth: int
    monomial: Monomial
    scope: Scope
    inner: Scope


def locate(e: Expr, where: Sequence[int], notation: Notation, scope: Scope) -> Spot:
    """The monomial at an address of the kernel."""
    m = e.monomials[where[0]]
    inner = notation.namer.extend(scope, m.binders, m.factors)
    if len(where) == 1:
        return Spot(e.depth, m, scope, inner)
    argument, below = inside(m.factors[where[1]], notation, inner)
    return locate(argument, where[2:], notation, below)


def inside(f: Factor, notation: Notation, scope: Scope) -> tuple[Expr, Scope]:
    """The expression inside a function, and the names there."""
    if isinstance(f, Maximum):
        uses = [g for m in f.body.monomials for g in m.factors]
        return f.body, notation.namer.extend(scope, f.binders, uses)
    if isinstance(f, Apply):
        return f.argument, scope
    assert isinstance(f, Derivative)
    return f.expr, scope


def change(before: Expr, after: Expr, where: Sequence[int], notation: Notation, scope: Scope) -> tuple[Spot, Expr]:
    """The smallest fragment that contains the change and can be found again afterwards, and what it became."""
    m = before.monomials[where[0]]
    others = Expr(before.depth, before.monomials[: where[0]] + before.monomials[where[0] + 1 :])
    new = after - others
    spot = Spot(before.depth, m, scope, notation.namer.extend(scope, m.binders, m.factors))
    if len(where) > 1 and len(new.monomials) == 1:
        n = new.monomials[0]
        left = list(n.factors)
        for k, f in enumerate(m.factors):
            if k != where[1] and f in left:
                left.remove(f)
        same = (n.coefficient, n.binders, n.guards) == (m.coefficient, m.binders, m.guards)
        if same and len(left) == 1 and type(left[0]) is type(m.factors[where[1]]):
            old, below = inside(m.factors[where[1]], notation, spot.inner)
            return change(old, inside(left[0], notation, spot.inner)[0], where[2:], notation, below)
    return spot, new
