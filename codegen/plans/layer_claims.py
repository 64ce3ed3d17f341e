"""What the plans of pools, activations and dense layers claim: each result is what the layer says, for all sizes.

As for convolutions (``codegen.plans.claims``), the plans are those that are printed, with a symbol for every size.  The
mean of a pool divides by the cells of a window, and in a definition a coefficient is a number (``derive.layers``).  So
here the definition of a pool of any size has the factor ``recip(Sum_{a<k} 1)`` in place of 1/k.  At numbers that is
worked out, and both the definition and the stages have to become those of the layer at hand, letter for letter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from math import prod

from codegen.architecture import instance
from codegen.claims import Claim
from codegen.committed import committed
from codegen.plan import Plan, Stage, number
from codegen.plans import activation, dense, pool
from codegen.plans.claims import claims_of
from derive.indices import Index, index, symbol, variables
from derive.kernel import Theorem
from derive.layers import (
    Activation,
    Applied,
    AvgPool,
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    Layer,
    Linear,
    ReLU,
    Sigmoid,
    Tanh,
)
from derive.legality import batch_size, positive, window
from derive.terms import Apply, Expr, Monomial, Tensor, define, expression, resized, shift_factors, tensor, term

Planner = Callable[..., dict[str, Plan]]
POOLS: tuple[type[AvgPool], ...] = (AvgPool1d, AvgPool2d, AvgPool3d)
ACTIVATIONS: tuple[type[Activation], ...] = (Sigmoid, Tanh, ReLU)
RANKS = range(1, 6)  # of the arrays of an activation


@dataclass(frozen=True)
class Kind:
    """A kind of plan: the layer, how many spatial axes or, for an activation, axes there are, and the algorithm."""

    layer: type[Layer]
    axes: int
    algorithm: str
    bias: bool = True

    @property
    def file(self) -> str:
        """The committed file that holds its theorems."""
        return "linear" if self.layer is Linear else "pools" if issubclass(self.layer, AvgPool) else "activations"

    @property
    def applied(self) -> Applied:
        """The layer with a symbol for every size."""
        if issubclass(self.layer, AvgPool):
            return _pool(self.layer)
        if issubclass(self.layer, Linear):
            inputs, outputs = symbol("K"), symbol("M")
            return Linear(inputs, outputs, self.bias).on(tensor("X", symbol("N"), inputs), "Y")
        sizes = (symbol("N"), *(symbol(f"n{axis}") for axis in range(self.axes - 1)))
        return self.layer().on(tensor("X", *sizes), "Y")

    @property
    def plan(self) -> Planner:
        """What plans it."""
        return PLANNERS[self.file, self.algorithm]

    def key(self, result: str) -> str:
        """What the theorem about one result is called in the committed file."""
        axes = f", {self.axes} axes" if self.file == "activations" else ""
        return f"{self.layer.__name__} {self.algorithm} {result}{axes}{'' if self.bias else ', without bias'}"


PLANNERS: Mapping[tuple[str, str], Planner] = {
    ("pools", "slabs"): pool.slabs,
    ("pools", "definition"): pool.definition,
    ("activations", "chain"): activation.chain,
    ("activations", "definition"): activation.definition,
    ("linear", "product"): dense.product,
    ("linear", "definition"): dense.definition,
}
ALGORITHMS = {
    "numpy": {"pools": "slabs", "activations": "chain", "linear": "product"},
    "cupy": {"pools": "definition", "activations": "definition", "linear": "definition"},
}


def kind_of(layer: Layer, rank: int, backend: str) -> Kind | None:
    """The kind of plan that a layer has on an input of that rank; None for a layer that has none by itself."""
    if isinstance(layer, AvgPool):
        return Kind(type(layer), layer.axes, ALGORITHMS[backend]["pools"])
    if isinstance(layer, Activation):
        return Kind(type(layer), rank, ALGORITHMS[backend]["activations"])
    if isinstance(layer, Linear):
        return Kind(Linear, rank, ALGORITHMS[backend]["linear"], layer.bias)
    return None


def kinds(file: str) -> Iterator[Kind]:
    """Every kind whose theorems are in a committed file."""
    for own, algorithm in PLANNERS:
        if own == file == "pools":
            yield from (Kind(layer, layer.axes, algorithm) for layer in POOLS)
        elif own == file == "linear":
            yield from (Kind(Linear, 2, algorithm, bias) for bias in (True, False))
        elif own == file:
            yield from (Kind(layer, rank, algorithm) for layer in ACTIVATIONS for rank in RANKS)


def prove(file: str) -> dict[str, Theorem]:
    """Every theorem of a committed file."""
    return {kind.key(name): claim.prove() for kind in kinds(file) for name, claim in claims(kind).items()}


def claims(kind: Kind) -> dict[str, Claim]:
    """What is claimed of a kind of plan, by result.

    >>> claims(Kind(ReLU, 2, "chain"))["input_gradient"].lhs
    dX[$0,$1]
    """
    applied = kind.applied
    return claims_of(applied, kind.plan(applied))


def proof_digests(kind: Kind, applied: Applied, plans: Mapping[str, Plan]) -> dict[str, str]:
    """The digests of the committed theorems that these plans are instances of, by result; nothing is proved here."""
    file = committed(kind.file)
    general, every, known = _general(kind)
    sizes = sizes_of(general, applied)
    values = {name: index(value) for name, value in sizes.items()}
    if file is None or with_numbers(resized(general.y, values)) != applied.y:
        return {}
    found = {}
    for name, plan in plans.items():
        same = not instance(plan, _at(every[name], values), known[name].facts, sizes)
        if same and file.proves(kind.key(name), known[name].statement):
            found[name] = str(file.outputs[kind.key(name)]["digest"])
    return found


@lru_cache(maxsize=64)
def _general(kind: Kind) -> tuple[Applied, Mapping[str, Plan], Mapping[str, Claim]]:
    applied = kind.applied
    plans = kind.plan(applied)
    return applied, plans, claims_of(applied, plans)


def sizes_of(general: Applied, applied: Applied) -> dict[str, int]:
    """The numbers that the symbols of a general layer stand for in one with numbers; not that of the batch."""
    pairs = [
        (mine, theirs)
        for ours, others in ((general.x, applied.x), (general.y, applied.y))
        for (_, mine), (_, theirs) in zip(ours.box[1:], others.box[1:], strict=True)
    ]
    for w, v in zip(general.windows, applied.windows, strict=True):
        pairs += [(w.kernel, v.kernel), (w.stride, v.stride)]
    return {mine.text: number(theirs) for mine, theirs in pairs if mine.constant is None}


# --- pools of any size ----------------------------------------------------------------------------------------------


def _pool(kind: type[AvgPool]) -> Applied:
    """Average pooling with a symbol for every size: ``Y = recip(Sum_{a<k} 1) Sum_a X[.., i s + a, ..]``."""
    axes, depth = range(kind.axes), 2 + kind.axes
    batch, channels = symbol("N"), symbol("C")
    windows = [window(symbol(f"n{k}"), symbol(f"k{k}"), symbol(f"s{k}"), 1, 0, 0, k) for k in axes]
    conditions = (batch_size(batch), positive("channels", channels), *(c for w in windows for c in w.conditions()))
    x = tensor("X", batch, channels, *(w.size for w in windows))
    b, c, *at = variables(0, depth)
    over = [(index(0), w.kernel) for w in windows]
    offsets = variables(depth, kind.axes)
    cells = [w.read(i, a) for w, i, a in zip(windows, at, offsets, strict=True)]
    share = shift_factors([Apply("recip", term(depth, over=over))], depth, depth + kind.axes)
    body = term(depth, *share, x[(b, c, *cells)], over=over)
    y = define("Y", [batch, channels, *(w.output for w in windows)], body)
    return Applied(kind(1), x, y, {}, conditions, tuple(windows))


def _at(plan: Plan, values: Mapping[str, Index]) -> Plan:
    """A general plan at these sizes, reciprocals of numbers worked out."""
    stages: list[Stage] = []
    known: dict[Tensor, Tensor] = {}
    for stage in plan.stages:
        made = with_numbers(resized(stage.tensor, values, known))
        known[stage.tensor] = made
        stages.append(replace(stage, tensor=made))
    return replace(plan, stages=tuple(stages))


def with_numbers(t: Tensor) -> Tensor:
    """The tensor with a coefficient in place of each reciprocal of a number of cells, such as ``recip(Sum_{a<2} 1)``.

    >>> q = Apply("recip", term(1, over=[(index(0), index(2)), (index(0), index(3))]))
    >>> with_numbers(define("P", [4], term(1, q))).body
    1/6
    """
    return t if t.body is None else replace(t, body=_worked_out(t.body))


def _worked_out(e: Expr) -> Expr:
    monomials: list[Monomial] = []
    for m in e.monomials:
        counts = [_counted(f) for f in m.factors]
        kept = tuple(f for f, count in zip(m.factors, counts, strict=True) if count is None)
        shares = [Fraction(1, count) for count in counts if count]
        monomials.append(replace(m, coefficient=prod(shares, start=m.coefficient), factors=kept))
    return expression(e.depth, monomials)


def _counted(f: object) -> int | None:
    """How many cells a reciprocal is of; None for any other factor."""
    if not isinstance(f, Apply) or f.function != "recip" or len(f.argument.monomials) != 1:
        return None
    (m,) = f.argument.monomials
    sizes = _sizes(m.binders)
    plain = not m.factors and not m.guards and m.coefficient == 1
    return prod(sizes) or None if plain and sizes is not None else None


def _sizes(binders: Iterable[tuple[Index, Index]]) -> list[int] | None:
    found = [(high - low).constant for low, high in binders]
    known = [size for size in found if size is not None]
    return known if len(known) == len(found) else None
