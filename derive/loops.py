"""An expression as nested Python loops: source text made once, compiled, and then run for every value of its variables.

The loops are the literal meaning of a sum with four changes that leave its value alone.  Sizes are numbers by now,
so an index is *linear* in atoms: variables, their products, floors of quotients.  A guard, or the box of a tensor that
is read directly (outside it the product is zero), narrows the loop of its last variable when it is linear there; what
cannot narrow a loop is tested as soon as its variables are known.  Every index is split by loops, and each part is
computed in the outermost loop that knows it.  A last loop of nothing but reads becomes a sum over slices.

Arguments of functions and maxima are computed only once they are needed, and kept for as long as the variables in
them stand still: a factor under a guard that fails may be undefined.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import gcd, prod
from operator import mul
from typing import Any, NoReturn, Union

from derive.indices import Divides, Guard, Index, Interval, Quotient, Var, Zero
from derive.terms import Apply, Derivative, Expr, Factor, Maximum, Monomial, Read, Tensor

Number = Any
Span = tuple[int, int]
LOOPS_IN_A_FUNCTION = 16  # CPython refuses more than 20 nested loops; deeper sums go on in a function of their own


# --- indices at given sizes ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Times:
    """A product of variables and floors."""

    factors: tuple[Position, ...]

    @cached_property
    def level(self) -> int:
        """The innermost variable that occurs."""
        return max(f.level for f in self.factors)

    @cached_property
    def safe(self) -> bool:
        """Whether it may be computed before the guards are tested."""
        return all(isinstance(f, Var) or f.safe for f in self.factors)


@dataclass(frozen=True)
class Floor:
    """The floor of a quotient."""

    numerator: Linear
    divisor: Linear

    @cached_property
    def level(self) -> int:
        """The innermost variable that occurs."""
        return max(self.numerator.level, self.divisor.level)

    @cached_property
    def safe(self) -> bool:
        """Whether it may be computed before the guards are tested: its divisor is a number, at least one."""
        return self.numerator.safe and not self.divisor.terms and self.divisor.constant >= 1


@dataclass(frozen=True)
class Extreme:
    """The largest or smallest of several bounds of a loop; ``name`` is ``max`` or ``min``."""

    name: str
    bounds: tuple[Linear, ...]

    @cached_property
    def level(self) -> int:
        """The innermost variable that occurs."""
        return max(b.level for b in self.bounds)

    @cached_property
    def safe(self) -> bool:
        """Whether it may be computed before the guards are tested."""
        return all(b.safe for b in self.bounds)


Position = Union[Var, Times, Floor, Extreme]


@dataclass(frozen=True)
class Linear:
    """``constant`` plus the sum of ``coefficient * atom``; each atom occurs once."""

    constant: int
    terms: tuple[tuple[Position, int], ...] = ()

    @cached_property
    def level(self) -> int:
        """The innermost variable that occurs, -1 for a number."""
        return max((atom.level for atom, _ in self.terms), default=-1)

    @cached_property
    def safe(self) -> bool:
        """Whether it may be computed before the guards are tested."""
        return all(isinstance(atom, Var) or atom.safe for atom, _ in self.terms)

    def plus(self, other: Linear, times: int = 1) -> Linear:
        """``self + times * other``."""
        total = dict(self.terms)
        for atom, coefficient in other.terms:
            total[atom] = total.get(atom, 0) + times * coefficient
        kept = tuple((atom, coefficient) for atom, coefficient in total.items() if coefficient)
        return Linear(self.constant + times * other.constant, kept)

    def split(self, level: int) -> tuple[int, Linear] | None:
        """``(slope, rest)`` with ``self == slope * Var(level) + rest``, ``rest`` known before the variable; or None."""
        slope = dict(self.terms).get(Var(level), 0)
        rest = Linear(self.constant, tuple(t for t in self.terms if t[0] != Var(level)))
        return (slope, rest) if rest.level < level else None


@dataclass(frozen=True)
class Multiple:
    """The test that ``divisor`` divides ``e``; a bare ``Linear`` is the test that it is at least zero."""

    divisor: Linear
    e: Linear

    @cached_property
    def level(self) -> int:
        """The innermost variable that occurs."""
        return max(self.divisor.level, self.e.level)

    @cached_property
    def safe(self) -> bool:
        """Whether it may be tested before the other guards."""
        return self.e.safe and not self.divisor.terms and self.divisor.constant >= 1


Test = Union[Linear, Multiple]


def numeric(e: Index, sizes: Mapping[str, int], values: Sequence[int] | None = None) -> Linear:
    """An index with numbers for its sizes, and for its variables too when ``values`` are given."""
    total = Linear(0)
    for product, coefficient in e.terms:
        value = Linear(coefficient)
        for atom in product:
            if isinstance(atom, Quotient):
                factor = floor(numeric(atom.numerator, sizes, values), numeric(atom.denominator, sizes, values))
            elif isinstance(atom, Var):
                factor = Linear(0, ((atom, 1),)) if values is None else Linear(values[atom.level])
            elif atom.name in sizes:
                factor = Linear(sizes[atom.name])
            else:
                raise ValueError(f"sizes: {atom.name} has no value; known are {', '.join(sizes) or 'none'}")
            value = _multiplied(value, factor)
        total = total.plus(value)
    return total


def number(e: Index, sizes: Mapping[str, int], values: Sequence[int] = ()) -> int:
    """An index as a number."""
    value = numeric(e, sizes, values)
    if value.terms:
        raise ValueError(f"{e.text}: the divisor is not at least 1")
    return value.constant


def floor(numerator: Linear, divisor: Linear) -> Linear:
    """The floor of the quotient; one whose divisor is below one stays, and is an error when it is computed."""
    if divisor.terms or divisor.constant < 1:
        return Linear(0, ((Floor(numerator, divisor), 1),))
    if divisor.constant == 1:
        return numerator
    if not numerator.terms:
        return Linear(numerator.constant // divisor.constant)
    return Linear(0, ((Floor(numerator, divisor), 1),))


def _multiplied(a: Linear, b: Linear) -> Linear:
    total = Linear(a.constant * b.constant)
    total = total.plus(Linear(0, a.terms), b.constant).plus(Linear(0, b.terms), a.constant)
    for p, m in a.terms:
        for q, n in b.terms:
            factors = tuple(f for atom in (p, q) for f in (atom.factors if isinstance(atom, Times) else (atom,)))
            total = total.plus(Linear(0, ((Times(factors), m * n),)))
    return total


def _extreme(name: str, bounds: Iterable[Linear]) -> Linear:
    moving = dict.fromkeys(b for b in bounds if b.terms)
    numbers = [b.constant for b in bounds if not b.terms]
    fixed = [Linear(max(numbers) if name == "max" else min(numbers))] if numbers else []
    kept = (*fixed, *moving)
    return kept[0] if len(kept) == 1 else Linear(0, ((Extreme(name, kept), 1),))


def _tests(guard: Guard, sizes: Mapping[str, int]) -> list[Test]:
    e = numeric(guard.e, sizes)
    if isinstance(guard, Divides):
        return [Multiple(numeric(guard.m, sizes), e)]
    return (
        [_without_floor(e), _without_floor(Linear(0).plus(e, -1))] if isinstance(guard, Zero) else [_without_floor(e)]
    )


def _without_floor(e: Linear) -> Linear:
    """``n // d + k >= 0`` is ``n + k d >= 0``, and ``k - n // d >= 0`` is ``k d + d - 1 - n >= 0``."""
    floors = [(atom, c) for atom, c in e.terms if isinstance(atom, Floor)]
    if len(floors) != 1 or not floors[0][0].safe or abs(floors[0][1]) != 1:
        return e
    (atom, sign), d = floors[0], floors[0][0].divisor.constant
    rest = e.plus(Linear(0, ((atom, 1),)), -sign)
    scaled = Linear(0).plus(rest, d).plus(atom.numerator, sign)
    return _without_floor(scaled.plus(Linear(d - 1 if sign < 0 else 0)))


# --- blocks of source ---------------------------------------------------------------------------------------------


class Block:
    """A piece of source under a header; a loop knows its variable and, if it is known, the span of its values."""

    def __init__(self, header: str, parent: Block | None = None, level: int | None = None, span: Span | None = None):
        self.header, self.parent, self.level, self.span = header, parent, level, span
        self.loops: int = 0 if parent is None else parent.loops + (level is not None)
        self.prelude: list[str] = []
        self.body: list[str | Block] = []
        self.names: dict[object, str] = {}
        self.ready: set[str] = set()

    def has(self, name: str) -> bool:
        """Whether this factor has certainly been computed where this block goes on."""
        return name in self.ready or (self.parent is not None and self.parent.has(name))

    def child(self, header: str) -> Block:
        """A block under a condition."""
        inner = Block(header, self)
        self.body.append(inner)
        return inner

    def home(self, level: int) -> Block:
        """The outermost block that knows all variables up to this level."""
        block = self
        while block.parent is not None and (block.level is None or block.level > level):
            block = block.parent
        return block

    def span_of(self, e: Linear) -> Span | None:
        """Bounds of the values of ``e`` here, if there are any."""
        low = high = e.constant
        for atom, coefficient in e.terms:
            span = self._span_of_atom(atom)
            if span is None:
                return None
            ends = (coefficient * span[0], coefficient * span[1])
            low, high = low + min(ends), high + max(ends)
        return low, high

    def _span_of_atom(self, atom: Position) -> Span | None:
        if isinstance(atom, Var):
            home = self.home(atom.level)
            return home.span if home.level == atom.level else None
        if isinstance(atom, Times) or not atom.safe:
            return None
        parts = atom.bounds if isinstance(atom, Extreme) else (atom.numerator,)
        spans = [s for s in map(self.span_of, parts) if s is not None]
        if len(spans) < len(parts):
            return None
        if isinstance(atom, Floor):
            return spans[0][0] // atom.divisor.constant, spans[0][1] // atom.divisor.constant
        pick = max if atom.name == "max" else min
        return pick(s[0] for s in spans), pick(s[1] for s in spans)

    def source(self, indent: str = "") -> Iterator[str]:
        """The lines of this block."""
        yield indent + self.header
        for line in (*self.prelude, *self.body, "pass"):
            if isinstance(line, Block):
                yield from line.source(indent + " ")
            else:
                yield f"{indent} {line}"


@dataclass(frozen=True)
class _Access:
    """A direct read: the name of the table's values and the offset in it."""

    table: str
    offset: Linear
    level: int
    safe: bool


@dataclass(frozen=True)
class _Run:
    """The values of a loop variable, and the tests that are left for inside the loop."""

    loop: Block
    first: Linear
    stop: Linear
    step: int
    left: list[Test]


# --- from expressions to source -----------------------------------------------------------------------------------


class Compiler:
    """Turns expressions into functions; ``table`` gives a tensor's box and values, ``constants`` the arithmetic.

    ``constants`` maps ``zero``, ``one``, ``rational``, ``finish``, ``key`` and each scalar function; ``derivative``
    is called for a derivative and the values of the variables around it.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        table: Callable[[Tensor], tuple[tuple[Span, ...], list[Number]]],
        constants: Mapping[str, Number],
        derivative: Callable[[Derivative, tuple[int, ...]], Number],
    ):
        self.sizes, self.table = sizes, table
        self.namespace: dict[str, Any] = {**constants, "mul": mul, "quotient": _quotient, "empty": _empty}
        self.namespace["derivative"] = derivative
        self.tables: dict[Tensor, str] = {}
        self.count = 0

    def tabulate(self, body: Expr, box: Sequence[Span]) -> list[Number]:
        """The values of ``body`` at every point of the box, in row-major order."""
        name = self._name("f")
        root = block = Block(f"def {name}(append):", level=-1)
        for level, (low, high) in enumerate(box):
            block.body.append(loop := Block(f"for v{level} in range({low}, {high}):", block, level, (low, high - 1)))
            block = loop
        block.body.append(f"append({self._value(block, body)})")
        values: list[Number] = []
        self._compiled(name, root)(values.append)
        return values

    def function(self, e: Expr) -> Callable[..., Number]:
        """The expression as a function of its variables."""
        return self._compiled(*self._function(e))

    def _function(self, e: Expr) -> tuple[str, Block]:
        name = self._name("f")
        arguments = ", ".join(f"v{k}" for k in range(e.depth))
        root = Block(f"def {name}({arguments}):", level=e.depth - 1)
        root.body.append(f"return {self._value(root, e)}")
        return name, root

    def _compiled(self, name: str, root: Block) -> Callable[..., Number]:
        exec("\n".join(root.source()), self.namespace)
        function: Callable[..., Number] = self.namespace[name]
        return function

    def _name(self, letter: str) -> str:
        self.count += 1
        return f"{letter}{self.count}"

    def _constant(self, value: object) -> str:
        name = self._name("k")
        self.namespace[name] = value
        return name

    # index arithmetic

    def _text(self, block: Block, e: Linear) -> str:
        """A name or number for ``e``, computed in the outermost block that knows it; unsafe ones as they stand."""
        if not e.terms:
            return str(e.constant)
        level = e.level
        home = block.home(level)
        if e not in home.names:
            rest = Linear(e.constant, tuple(t for t in e.terms if t[0].level < level))
            parts = [
                self._atom(block, atom) + (f" * {c}" if c != 1 else "") for atom, c in e.terms if atom.level == level
            ]
            if rest.terms or rest.constant:
                parts.append(self._text(block, rest))
            text = " + ".join(parts)
            if not e.safe:
                return f"({text})"
            if e.terms == ((Var(level), 1),) and not e.constant:
                return text
            home.names[e] = self._name("i")
            home.prelude.append(f"{home.names[e]} = {text}")
        return home.names[e]

    def _atom(self, block: Block, atom: Position) -> str:
        if isinstance(atom, Var):
            return f"v{atom.level}"
        if isinstance(atom, Times):
            return " * ".join(self._atom(block, f) for f in atom.factors)
        if isinstance(atom, Floor):
            n, d = self._text(block, atom.numerator), self._text(block, atom.divisor)
            return f"({n} // {d})" if atom.safe else f"quotient({n}, {d})"
        bounds = [self._text(block, b) for b in atom.bounds]
        if len(bounds) != 2 or not atom.safe:
            return f"{atom.name}({', '.join(bounds)})"
        sign = ">" if atom.name == "max" else "<"
        return f"({bounds[0]} if {bounds[0]} {sign} {bounds[1]} else {bounds[1]})"

    def _truth(self, block: Block, test: Test) -> bool | None:
        if isinstance(test, Linear):
            span = block.span_of(test)
            return None if span is None or span[0] < 0 <= span[1] else span[0] >= 0
        if test.divisor.terms or test.divisor.constant < 1:
            return None
        if test.divisor.constant == 1:
            return True
        return None if test.e.terms else test.e.constant % test.divisor.constant == 0

    def _enter(self, block: Block, tests: Iterable[Test]) -> Block | None:
        """The block under these tests; None when one is false for certain."""
        unknown = []
        for test in sorted(tests, key=lambda t: not t.safe):
            truth = self._truth(block, test)
            if truth is False:
                return None
            if truth is None:
                unknown.append(self._condition(block, test))
        return block.child(f"if {' and '.join(unknown)}:") if unknown else block

    def _condition(self, block: Block, test: Test) -> str:
        if isinstance(test, Linear):
            return f"{self._text(block, test)} >= 0"
        e, m = self._text(block, test.e), self._text(block, test.divisor)
        return f"{e} % {m} == 0" if test.safe else f"quotient({e}, {m}) * {m} == {e}"

    # loops

    def _run(self, block: Block, level: int, bounds: Interval, tests: Sequence[Test]) -> _Run | None:
        """The values of a variable, narrowed by the tests it decides; None when there are none for certain."""
        low, high = numeric(bounds[0], self.sizes), numeric(bounds[1], self.sizes)
        loop = Block("", block, level, self._span(block, low, high))
        first, stop, left, step, residue = [low], [high], [], 1, Linear(0)
        for test in tests:
            truth = self._truth(loop, test)
            if truth is False:
                return None
            slope, rest = (test.e if isinstance(test, Multiple) else test).split(level) or (0, Linear(0))
            if truth or not slope or not test.safe:
                left.extend([] if truth else [test])
            elif isinstance(test, Linear):
                edge = floor(rest, Linear(abs(slope)))
                if slope > 0:
                    first.append(Linear(0).plus(edge, -1))
                else:
                    stop.append(edge.plus(Linear(1)))
            elif step == 1 and gcd(slope, test.divisor.constant) == 1:
                step = test.divisor.constant
                residue = Linear(0).plus(rest, -pow(slope, -1, step))
            else:
                left.append(test)
        begin, end = _extreme("max", first), _extreme("min", stop)
        loop.span = self._span(block, begin, end) or loop.span
        if loop.span is not None and loop.span[0] > loop.span[1]:
            return None
        if step != 1:
            begin = residue.plus(floor(residue.plus(begin, -1), Linear(step)), -step)
        return _Run(loop, begin, end, step, left)

    @staticmethod
    def _span(block: Block, low: Linear, high: Linear) -> Span | None:
        a, b = block.span_of(low), block.span_of(high)
        return None if a is None or b is None else (a[0], b[1] - 1)

    def _loop(self, block: Block, level: int, run: _Run) -> Block | None:
        """The block inside the loop and under the tests that are left."""
        first, stop = self._text(block, run.first), self._text(block, run.stop)
        step = f", {run.step}" if run.step != 1 else ""
        run.loop.header = f"for v{level} in range({first}, {stop}{step}):"
        block.body.append(run.loop)
        return self._enter(run.loop, run.left)

    # expressions

    def _value(self, block: Block, e: Expr) -> str:
        """Source for the finished value of an expression, after the statements it needs."""
        total = self._name("s")
        block.body.append(f"{total} = zero")
        for m in e.monomials:
            self._add(block, e.depth, m, total)
        return f"finish({total})"

    def _add(self, block: Block, depth: int, m: Monomial, total: str) -> None:
        """Add a monomial to ``total``."""
        room = LOOPS_IN_A_FUNCTION - block.loops
        binders, factors = m.binders[:room], list[Factor | Expr](m.factors)
        if len(binders) < len(m.binders):
            rest = Monomial(Fraction(1), m.binders[room:], m.guards, m.factors)
            factors = [Expr(depth + room, (rest,))]
        scope = depth + len(binders)
        tests = [t for g in m.guards if max(_variables(g.indices()), default=0) < scope for t in _tests(g, self.sizes)]
        reads = []
        for read in (f for f in factors if isinstance(f, Read)):
            access, inside = self._access(read)
            reads.append(access)
            tests.extend(inside)
        others = [f for f in factors if not isinstance(f, Read)]
        known = [] if m.coefficient == 1 else [self._constant(self.namespace["rational"](m.coefficient))]
        inner = self._enter(block, [t for t in tests if t.level < depth])
        for level, bounds in enumerate(binders, depth):
            if inner is None:
                return
            known, reads = self._multiplied(inner, known, reads, level)
            run = self._run(inner, level, bounds, [t for t in tests if t.level == level])
            if run is None:
                return
            if level == scope - 1 and self._sliced(run, level, reads, others):
                self._add_slices(inner, level, run, known, reads, others, total)
                return
            inner = self._loop(inner, level, run)
        if inner is not None:
            known = known + [f"{r.table}[{self._text(inner, r.offset)}]" for r in reads]
            known = known + [self._factor(inner, f) for f in others]
            inner.body.append(f"{total} += {' * '.join(known) or 'one'}")

    def _access(self, read: Read) -> tuple[_Access, list[Test]]:
        """How a read is done, and the tests that its index lies in the box."""
        box, values = self.table(read.tensor)
        if read.tensor not in self.tables:
            self.tables[read.tensor] = self._constant(values)
        at = [numeric(e, self.sizes) for e in read.at]
        offset, tests = Linear(0), list[Test]()
        for axis, (e, (low, high)) in enumerate(zip(at, box, strict=True)):
            stride = prod(hi - lo for lo, hi in box[axis + 1 :])
            offset = offset.plus(e, stride).plus(Linear(-low * stride))
            tests += [_without_floor(e.plus(Linear(-low))), _without_floor(Linear(high - 1).plus(e, -1))]
        level = max((e.level for e in at), default=-1)
        return _Access(self.tables[read.tensor], offset, level, all(e.safe for e in at)), tests

    def _multiplied(
        self, block: Block, known: list[str], reads: list[_Access], level: int
    ) -> tuple[list[str], list[_Access]]:
        """The product of what is fixed before the loop of ``level``, and the reads that are not."""
        ready = [r for r in reads if r.safe and r.level < level]
        if not ready:
            return known, reads
        name = self._name("p")
        product = known + [f"{r.table}[{self._text(block, r.offset)}]" for r in ready]
        block.body.append(f"{name} = {' * '.join(product)}")
        return [name], [r for r in reads if r not in ready]

    @staticmethod
    def _sliced(run: _Run, level: int, reads: Iterable[_Access], others: Iterable[Factor | Expr]) -> bool:
        """Whether a last loop is a sum over slices of the tables."""
        return (
            not run.left
            and all(r.safe and r.offset.split(level) is not None for r in reads)
            and not any(isinstance(f, Expr) or level in _free(f) for f in others)
        )

    def _add_slices(
        self,
        block: Block,
        level: int,
        run: _Run,
        known: list[str],
        reads: Iterable[_Access],
        others: Iterable[Factor | Expr],
        total: str,
    ) -> None:
        count = floor(run.stop.plus(run.first, -1).plus(Linear(run.step - 1)), Linear(run.step))
        if count.terms or count.constant < 1:
            block = block.child(f"if {self._text(block, count)} > 0:")
        moving, product = "", known + [self._factor(block, f) for f in others]
        for r in reads:
            slope, rest = r.offset.split(level) or (0, r.offset)
            if not slope:
                product.append(f"{r.table}[{self._text(block, rest)}]")
                continue
            piece = self._slice(block, r.table, rest.plus(run.first, slope), count, slope * run.step)
            moving = f"map(mul, {moving}, {piece})" if moving else piece
        product.append(f"sum({moving}, zero)" if moving else f"{self._text(block, count)} * one")
        block.body.append(f"{total} += {' * '.join(product)}")

    def _slice(self, block: Block, table: str, start: Linear, count: Linear, stride: int) -> str:
        if stride > 0:
            step = "" if stride == 1 else f":{stride}"
            return f"{table}[{self._text(block, start)}:{self._text(block, start.plus(count, stride))}{step}]"
        last, end = start.plus(count, stride).plus(Linear(-stride)), start.plus(Linear(1))
        return f"reversed({table}[{self._text(block, last)}:{self._text(block, end)}:{-stride}])"

    # factors other than reads

    def _factor(self, block: Block, f: Factor | Expr) -> str:
        """A name for the factor's value, computed at its first use for the present values of its variables."""
        if isinstance(f, Expr):
            name, root = self._function(f)
            self._compiled(name, root)
            return f"{name}({', '.join(f'v{k}' for k in range(f.depth))})"
        home = block.home(max(_free(f), default=-1))
        if f not in home.names:
            home.names[f] = self._name("x")
            home.prelude.append(f"{home.names[f]} = None")
        name = home.names[f]
        if not block.has(name):
            first = block.child(f"if {name} is None:")
            first.body.append(f"{name} = {self._computed(first, f)}")
            block.ready.add(name)
        return name

    def _computed(self, block: Block, f: Factor) -> str:
        if isinstance(f, Apply):
            return f"{f.function}({self._value(block, f.argument)})"
        if isinstance(f, Maximum):
            return self._maximum(block, f)
        if isinstance(f, Derivative):
            variables = "".join(f"v{k}, " for k in range(f.expr.depth))
            return f"derivative({self._constant(f)}, ({variables}))"
        raise TypeError(f"factor={f!r} ({type(f).__name__}): not a factor of the term language")

    def _maximum(self, block: Block, f: Maximum) -> str:
        scope = f.body.depth - len(f.binders)
        if block.loops + len(f.binders) > LOOPS_IN_A_FUNCTION and block.loops:
            return self._factor(block, Expr(scope, (Monomial(Fraction(1), (), (), (f,)),)))
        best, value = self._name("m"), self._name("y")
        block.body.append(f"{best} = None")
        tests = [t for g in f.guards for t in _tests(g, self.sizes)]
        inner = self._enter(block, [t for t in tests if t.level < scope])
        for level, bounds in enumerate(f.binders, scope):
            run = None if inner is None else self._run(inner, level, bounds, [t for t in tests if t.level == level])
            inner = None if inner is None or run is None else self._loop(inner, level, run)
        if inner is not None:
            inner.body.append(f"{value} = {self._value(inner, f.body)}")
            inner.body.append(f"if {best} is None or key({value}) > key({best}): {best} = {value}")
        block.body.append(f"if {best} is None: empty({self._constant(f)})")
        return best


def _variables(indices: Iterable[Index]) -> Iterator[int]:
    return (v for e in indices for v in e.variables)


def _free(f: Factor | Expr) -> set[int]:
    """The variables around a factor or an expression on which it depends."""
    if isinstance(f, Read):
        return set(_variables(f.at))
    if isinstance(f, Apply):
        return _free(f.argument)
    if isinstance(f, Derivative):
        return _free(f.expr) | set(_variables(f.at))
    if isinstance(f, Maximum):
        inside = _free(f.body) | set(_variables(_indices(f.binders, f.guards)))
        return {v for v in inside if v < f.body.depth - len(f.binders)}
    inside = {v for m in f.monomials for v in _variables(_indices(m.binders, m.guards))}
    inside |= {v for m in f.monomials for factor in m.factors for v in _free(factor)}
    return {v for v in inside if v < f.depth}


def _indices(binders: Iterable[Interval], guards: Iterable[Guard]) -> Iterator[Index]:
    yield from (e for bounds in binders for e in bounds)
    yield from (e for g in guards for e in g.indices())


def _quotient(numerator: int, divisor: int) -> int:
    if divisor < 1:
        raise ValueError(f"({numerator}) // ({divisor}): the divisor has to be at least 1")
    return numerator // divisor


def _empty(f: Maximum) -> NoReturn:
    raise ValueError(f"{f.text}: a maximum over nothing")
