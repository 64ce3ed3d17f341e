"""The rounding bound of ``codegen.rounding`` with numbers put in: a stage evaluated on arrays, with its error.

Beside every value goes how far a computed one may lie from it.  Where the factors v_i of a product are off by e_i, a
term is off by Sum_i e_i Prod_{j != i} (|v_j| + e_j), and its own rounding is relative to Prod (|v_j| + e_j): the same
expression on absolute values.  Reads are as given, so they have no error of their own; ``through`` carries the errors
of each stage of a plan on to those that read it, for a bound on what a whole plan computes.

Values are float64, computed by NumPy in one contraction a monomial, and float64 rounds too: ``bound`` adds, to the
bound of the format that is asked about, the bound of the float64 evaluation, by the same formula.  What is left is the
rounding of the bound itself, all of it sums and products of numbers >= 0, for which it is made larger by ``SLACK``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from codegen.plan import Plan, Stage, reads_of
from codegen.rounding import EXACT, FLOAT64, ULPS, Precision, Term, is_count
from derive.indices import Divides, Guard, Index, Interval, NonNegative, Quotient, Sym, Var
from derive.terms import Apply, Expr, Factor, Maximum, Monomial, Read

Array = npt.NDArray[Any]
Span = tuple[int, int]
SLACK = 1 + 2.0**-20

FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "exp": np.exp,
    "log": np.log,
    "recip": np.reciprocal,
    "tanh": np.tanh,
    "sigmoid": lambda z: np.where(z >= 0, 1.0, np.exp(-abs(z))) / (1.0 + np.exp(-abs(z))),  # near 0 to the last place
    "relu": lambda z: np.maximum(z, 0.0),
    "step": lambda z: (z > 0).astype(np.float64),
}


class Bounded(NamedTuple):
    """Values, and how far computed ones may lie from the exact ones."""

    value: Array
    error: Array


def bound(
    stage: Stage,
    reads: Mapping[str, Array],
    precision: Precision,
    *,
    sizes: Mapping[str, int] | None = None,
    onto: Array | None = None,
    errors: Mapping[str, Array] | None = None,
) -> Bounded:
    """A stage's values, and a bound on |computed in this precision - value|, from what it reads.

    ``reads`` gives each tensor it reads inside its box, exactly as the computation had it but for ``errors``: how far
    that may have been from it; ``sizes`` the sizes that are not numbers, such as the batch N.  ``onto`` is what the
    stage's result is added to, where it is summed over blocks: one more term.
    """
    known = dict(sizes or {})
    spans = [_span(interval, known) for interval in stage.tensor.box]
    needed = {read.tensor.name for read in reads_of(stage.body)}
    arrays = {name: np.asarray(reads[name], dtype=np.float64) for name in needed}
    with np.errstate(invalid="ignore"):
        target = _Evaluation(known, arrays, precision, errors or {}).expr(stage.body, spans, onto)
        own = _Evaluation(known, arrays, FLOAT64).expr(stage.body, spans, onto)
        error = (target.error + own.error) * SLACK
    return Bounded(own.value, np.where(np.isnan(error), np.inf, error))  # infinity times zero: nothing is known


def through(
    plan: Plan, inputs: Mapping[str, Array], precision: Precision, *, sizes: Mapping[str, int] | None = None
) -> dict[str, Bounded]:
    """The values of every stage of a plan, and bounds on what it computes in this precision from these inputs.

    For any order of sums, as ``bound``.  Through a long plan the bounds grow far above the errors that occur: in
    float64 they stay far below the values.
    """
    values, errors = dict(inputs), dict[str, Array]()
    found = {}
    for stage in plan.stages:
        found[stage.name] = bound(stage, values, precision, sizes=sizes, errors=errors)
        values[stage.name], errors[stage.name] = found[stage.name]
    return found


@dataclass(frozen=True)
class _Evaluation:
    """Expressions at these sizes and arrays, with errors of this precision; ``errors`` are those of arrays."""

    sizes: Mapping[str, int]
    arrays: Mapping[str, Array]
    precision: Precision
    errors: Mapping[str, Array] = field(default_factory=dict)

    def expr(self, e: Expr, spans: Sequence[Span], onto: Array | None = None) -> Bounded:
        """An expression on the grid of its variables: monomials side by side, then the rounding of their sum."""
        shape = tuple(hi - lo for lo, hi in spans)
        parts = [self._monomial(m, spans) for m in e.monomials]
        zero = np.zeros(shape)
        value = sum((p.value for p in parts), zero if onto is None else onto.astype(np.float64))
        size = sum((p.size for p in parts), zero)
        if is_count(e) and onto is None and np.all(size * float(self.precision.unit) < 1):
            return Bounded(value, zero)
        terms = sum((p.terms for p in parts), zero if onto is None else zero + 1)
        carried = [(p.roundings, p.size) for p in parts] + ([] if onto is None else [(0, abs(onto.astype(np.float64)))])
        error = sum((p.inherited for p in parts), zero)
        for roundings, size in carried:
            error = error + self._gamma(terms - 1 + roundings) * size
        lost = sum((p.underflow for p in parts), terms if self.precision.flushes else zero)
        return Bounded(value, error + (1 + self._gamma(terms)) * float(self.precision.eta) * lost)

    def _gamma(self, roundings: Array) -> Array:
        """k u / (1 - k u), infinite where that says nothing."""
        k = np.maximum(roundings, 0) * float(self.precision.unit)
        return np.where(k < 1, k / np.maximum(1 - k, 2.0**-53), np.inf)

    def _monomial(self, m: Monomial, spans: Sequence[Span]) -> _Part:
        scope = [*spans, *(_span(b, self.sizes) for b in m.binders)]
        guards = [self._guard(g, scope).astype(np.float64) for g in m.guards]
        factors = [self.factor(f, scope) for f in m.factors]
        sizes = [abs(f.value) + f.error for f in factors]
        rounded, c = Term.of(m), abs(float(m.coefficient))

        def total(*arrays: Array) -> Array:
            return _contracted([*arrays, *guards], scope, len(spans))

        off = [(k, f.error) for k, f in enumerate(factors) if np.any(f.error)]
        inherited = [c * total(*sizes[:k], error, *sizes[k + 1 :]) for k, error in off]
        # An underflow in the middle of a product is multiplied by what follows: at most by every factor above one.
        further = [np.maximum(s, 1.0) for s in sizes] if rounded.multiplications > 1 else []
        return _Part(
            value=float(m.coefficient) * total(*(f.value for f in factors)),
            size=c * total(*sizes),
            terms=total(),
            inherited=sum(inherited, np.zeros(())),
            underflow=rounded.multiplications * max(c, 1.0) * total(*further),
            roundings=rounded.roundings,
        )

    # --- factors ------------------------------------------------------------------------------------------------

    def factor(self, f: Factor, scope: Sequence[Span]) -> Bounded:
        """A factor on the grid; an axis it does not depend on has length one."""
        if isinstance(f, Read):
            name = f.tensor.name
            error = self._read(f, scope, self.errors[name]) if name in self.errors else np.zeros(())
            value = self._read(f, scope, self.arrays[name])
            return Bounded(value, error + self._flushed(value, error) if self.precision.flushes else error)
        if isinstance(f, Apply):
            return self._applied(f.function, self.expr(f.argument, scope))
        if isinstance(f, Maximum):
            inner = [*scope, *(_span(b, self.sizes) for b in f.binders)]
            body, axes = self.expr(f.body, inner), tuple(range(len(scope), len(inner)))
            open_ = np.ones((1,) * len(inner), dtype=bool)
            for g in f.guards:
                open_ = open_ & self._guard(g, inner)
            return Bounded(
                np.where(open_, body.value, -np.inf).max(axis=axes), np.where(open_, body.error, 0.0).max(axis=axes)
            )
        raise TypeError(f"{f.text}: a stage is computed from values, not from a derivative")

    def _flushed(self, value: Array, error: Array) -> Array:
        """What is lost of numbers that may count as zero when they are read."""
        eta = float(self.precision.eta)
        nearest, furthest = np.maximum(abs(value) - error, 0.0), abs(value) + error
        return np.where(nearest < eta, np.minimum(furthest, eta), 0.0)

    def _applied(self, name: str, z: Bounded) -> Bounded:
        """A function of an argument that is off: how much steeper it can be there, and its own error."""
        value = FUNCTIONS[name](z.value)
        passed = _passed(name, z, value)
        if name in EXACT:
            return Bounded(value, passed)
        size = abs(value) + passed
        unit, eta = float(self.precision.unit), float(self.precision.eta)
        # A unit in the last place is at most 2u relative, and never below eta.
        own = unit * size + eta if name == "recip" else ULPS[name] * np.maximum(2 * unit * size, eta)
        return Bounded(value, passed + own)

    def _read(self, read: Read, scope: Sequence[Span], array: Array) -> Array:
        """What an array of the tensor holds there; zero outside the box."""
        inside = np.ones((1,) * len(scope), dtype=bool)
        places = []
        for e, interval in zip(read.at, read.tensor.box, strict=True):
            low, high = _span(interval, self.sizes)
            at = self.index(e, scope)
            inside = inside & (low <= at) & (at < high)
            places.append(np.clip(at - low, 0, max(high - low - 1, 0)))
        if array.size == 0:
            return np.zeros(inside.shape)
        return np.where(inside, array[tuple(places)] if places else array, 0.0)

    def index(self, e: Index, scope: Sequence[Span]) -> Array:
        """An index on the grid."""
        total = np.zeros((1,) * len(scope), dtype=np.int64)
        for product, coefficient in e.terms:
            value = np.full((1,) * len(scope), coefficient, dtype=np.int64)
            for atom in product:
                value = value * self._atom(atom, scope)
            total = total + value
        return total

    def _atom(self, atom: Sym | Var | Quotient, scope: Sequence[Span]) -> Array:
        if isinstance(atom, Sym):
            return np.asarray(self.sizes[atom.name])
        if isinstance(atom, Quotient):
            return np.asarray(self.index(atom.numerator, scope) // self.index(atom.denominator, scope))
        lengths = [1] * len(scope)
        lengths[atom.level] = -1
        return np.arange(*scope[atom.level]).reshape(lengths)

    def _guard(self, g: Guard, scope: Sequence[Span]) -> Array:
        if isinstance(g, NonNegative):
            return np.asarray(self.index(g.e, scope) >= 0)
        if isinstance(g, Divides):
            return np.asarray(self.index(g.e, scope) % self.index(g.m, scope) == 0)
        return np.asarray(self.index(g.e, scope) == 0)


class _Part(NamedTuple):
    """One monomial: its value and that of absolute values, its terms, what its factors are off by, its products."""

    value: Array
    size: Array
    terms: Array
    inherited: Array
    underflow: Array
    roundings: int


def _passed(name: str, z: Bounded, value: Array) -> Array:
    """The most a function changes when its argument z changes by its error."""
    e, x = z.error, z.value
    if not np.any(e):
        return np.zeros_like(value)
    with np.errstate(divide="ignore", over="ignore"):
        nearest = np.maximum(abs(x) - e, 0.0)  # how close to zero the argument may be
        match name:
            case "exp":
                return np.asarray(value * np.expm1(e))
            case "log":
                return np.asarray(np.where(nearest > 0, e / nearest, np.inf))
            case "recip":
                return np.asarray(np.where(nearest > 0, e / (abs(x) * nearest), np.inf))
            case "sigmoid":
                return e / 4
            case "step":
                return np.where(abs(x) <= e, 1.0, 0.0)
    return e  # tanh and relu: nowhere steeper than one


def _span(interval: Interval, sizes: Mapping[str, int]) -> Span:
    low, high = (e.evaluate(sizes) for e in interval)
    return low, max(low, high)


def _contracted(arrays: Sequence[Array], scope: Sequence[Span], depth: int) -> Array:
    """The product of the arrays, summed over the axes from ``depth`` on; every array has an axis, or one, for each."""
    lengths = [hi - lo for lo, hi in scope]
    operands: list[Any] = []
    present: set[int] = set()
    for a in arrays:
        axes = [k for k, n in enumerate(a.shape) if n != 1]
        operands += [a.reshape([a.shape[k] for k in axes]), axes]
        present |= set(axes)
    absent = math.prod(n for k, n in enumerate(lengths) if k >= depth and k not in present)
    kept = [k for k in range(depth) if k in present]
    total = np.einsum(*operands, kept, optimize="greedy") if operands else np.ones(())
    spread = np.asarray(total * float(absent)).reshape([lengths[k] if k in kept else 1 for k in range(depth)])
    return np.broadcast_to(spread, lengths[:depth])
