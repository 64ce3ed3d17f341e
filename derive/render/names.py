"""Choosing names for variables, which have none: the same names on every run, and never a name that is taken.

A variable is a position.  For printing it gets the name of the tensor axis it runs along: with
``axes={"W": "ocae"}`` the third index of every ``W[., ., v, .]`` is called ``a`` wherever it is bound, so a variable
keeps its name while the formula around it changes.  Where that name is taken the variable gets a prime; a variable
that runs along no named axis is named after its interval, and last by a fixed list of letters.  Size symbols, tensors
and the variables in scope are never hidden by a new name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from derive.indices import Guard, Index, Interval, var
from derive.terms import FUNCTIONS, Apply, Derivative, Expr, Factor, Maximum, Read, Tensor

Scope = tuple[str, ...]

LETTERS = "ijklmnabcefghqrtuvwxyz"
_WORDS = frozenset({*FUNCTIONS, "max", "Sum", "floor", "d"})


@dataclass(frozen=True)
class Names:
    """The names an author prefers.

    ``free`` names the free variables of the theorem by position; ``axes`` the axes of tensors; ``sizes`` the variables
    that run up to a bound, by its text (``{"C": "c", "k": "ae"}``); ``bound`` any other bound variables, in order.
    A string stands for its letters.
    """

    free: Sequence[str] = ()
    axes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    sizes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    bound: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in [*self.free, *self.bound, *_flat(self.axes), *_flat(self.sizes)]:
            if not name.isidentifier():
                raise ValueError(f"name={name!r}: a variable is named by an identifier, such as 'i'")


def _flat(named: Mapping[str, Sequence[str]]) -> Iterator[str]:
    return (name for names in named.values() for name in names)


@dataclass(frozen=True)
class Namer:
    """Names variables as ``names`` prefers, and never by a name in ``taken``."""

    names: Names = field(default_factory=Names)
    taken: frozenset[str] = frozenset()

    def extend(
        self,
        scope: Scope,
        intervals: Sequence[Interval],
        uses: Sequence[Factor],
        preferred: Sequence[str] = (),
    ) -> Scope:
        """The scope with names for variables bound over ``intervals`` and used by these factors."""
        hints = _axis_hints(uses, self.names.axes)
        for k, (_, high) in enumerate(intervals):
            level = len(scope)
            wanted = [*preferred[k : k + 1], *hints.get(level, ())]
            scope = (*scope, self._choose(wanted, high, scope))
        return scope

    def free(self, intervals: Sequence[Interval], sides: Iterable[Expr]) -> Scope:
        """Names for the free variables of an equation."""
        uses = [f for e in sides for m in e.monomials for f in m.factors]
        return self.extend((), intervals, uses, self.names.free)

    def axes(self, tensor: Tensor) -> Scope:
        """Names for the axes of a defined tensor, in which its body is written."""
        uses = [] if tensor.body is None else [f for m in tensor.body.monomials for f in m.factors]
        return self.extend((), tensor.box, uses, self.names.axes.get(tensor.name, ()))

    def generic(self, scope: Scope, count: int) -> Scope:
        """The scope filled up to ``count`` names, for variables of which nothing is known."""
        while len(scope) < count:
            scope = (*scope, self._choose((), None, scope))
        return scope

    def _choose(self, wanted: Sequence[str], high: Index | None, scope: Scope) -> str:
        by_size = () if high is None else tuple(self.names.sizes.get(high.text, ()))
        primed = [name + "'" * k for name in wanted[:1] for k in (1, 2, 3)]
        for name in [*wanted, *primed, *by_size, *self.names.bound]:
            if name not in self.taken and name not in scope and name not in _WORDS:
                return name
        return next(name for name in _letters() if name not in self.taken and name not in scope)


def _letters() -> Iterator[str]:
    yield from LETTERS
    number = 1
    while True:
        yield from (f"{letter}{number}" for letter in "ijk")
        number += 1


def _axis_hints(uses: Iterable[Factor], axes: Mapping[str, Sequence[str]]) -> dict[int, list[str]]:
    """For each variable that stands alone as the index of a named axis, that axis' name."""
    hints: dict[int, list[str]] = {}
    for tensor, at in _reads(uses):
        for name, e in zip(axes.get(tensor.name, ()), at, strict=False):
            level = next(iter(e.variables), -1)
            if e.variables and e == var(level) and name not in hints.setdefault(level, []):
                hints[level].append(name)
    return hints


def _reads(uses: Iterable[Factor]) -> Iterator[tuple[Tensor, tuple[Index, ...]]]:
    for f in uses:
        if isinstance(f, (Read, Derivative)):
            yield f.tensor, f.at
        inner = f.argument if isinstance(f, Apply) else f.body if isinstance(f, Maximum) else None
        if isinstance(f, Derivative):
            inner = f.expr
        if inner is not None:
            yield from _reads(g for m in inner.monomials for g in m.factors)


def taken_names(sides: Iterable[Expr], guards: Iterable[Guard], intervals: Iterable[Interval]) -> frozenset[str]:
    """Every size symbol and tensor name that these speak of, through all definitions."""
    found: set[str] = set()
    for g in guards:
        found |= {name for e in g.indices() for name in e.symbols}
    for bounds in intervals:
        found |= bounds[0].symbols | bounds[1].symbols
    seen: set[Tensor] = set()
    for e in sides:
        _collect(e, found, seen)
    return frozenset(found)


def _collect(e: Expr, found: set[str], seen: set[Tensor]) -> None:
    for m in e.monomials:
        guards: list[Index] = [i for g in m.guards for i in g.indices()]
        for i in [*guards, *(i for bounds in m.binders for i in bounds)]:
            found |= i.symbols
        for f in m.factors:
            _collect_factor(f, found, seen)


def _collect_factor(f: Factor, found: set[str], seen: set[Tensor]) -> None:
    if isinstance(f, Apply):
        _collect(f.argument, found, seen)
    elif isinstance(f, Maximum):
        found |= {name for bounds in f.binders for i in bounds for name in i.symbols}
        found |= {name for g in f.guards for i in g.indices() for name in i.symbols}
        _collect(f.body, found, seen)
    else:
        found |= {name for i in f.at for name in i.symbols}
        _collect_tensor(f.tensor, found, seen)
    if isinstance(f, Derivative):
        _collect(f.expr, found, seen)


def _collect_tensor(t: Tensor, found: set[str], seen: set[Tensor]) -> None:
    if t in seen:
        return
    seen.add(t)
    found.add(t.name)
    found |= {name for bounds in t.box for i in bounds for name in i.symbols}
    if t.body is not None:
        _collect(t.body, found, seen)
