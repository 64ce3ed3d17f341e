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
from math import gcd, prod
from operator import mul
from typing import Any, NoReturn

from derive.affine import Linear, Multiple, Test, extreme, floor, guard_tests, numeric, without_floor
from derive.blocks import Block, Span
from derive.indices import Guard, Index, Interval
from derive.terms import Apply, Derivative, Expr, Factor, Maximum, Monomial, Read, Tensor

Number = Any
LOOPS_IN_A_FUNCTION = 16  # CPython refuses more than 20 nested loops; deeper sums go on in a function of their own


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
        derivative: Callable[[Derivative, Sequence[int]], Number],
    ):
        self.sizes, self.table = sizes, table
        self.namespace: dict[str, Any] = {**constants, "mul": mul, "quotient": _quotient, "empty": _empty}
        self.namespace["derivative"] = derivative
        self.tables: dict[Tensor, str] = {}
        self.count = 0

    def tabulate(self, body: Expr, box: Sequence[Span]) -> list[Number]:
        """The values of ``body`` at every point of the box, in row-major order."""
        name = self._name("f")
        root = block = Block(f"def {name}(append):", None, -1)
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
        root = Block(f"def {name}({arguments}):", None, e.depth - 1)
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

    def _enter(self, block: Block, tests: Iterable[Test]) -> Block | None:
        """The block under these tests; None when one is false for certain."""
        unknown = []
        for test in sorted(tests, key=lambda t: not t.safe):
            truth = block.truth(test)
            if truth is False:
                return None
            if truth is None:
                unknown.append(block.condition(test))
        return block.child(f"if {' and '.join(unknown)}:") if unknown else block

    # loops

    def _run(self, block: Block, level: int, bounds: Interval, tests: Sequence[Test]) -> _Run | None:
        """The values of a variable, narrowed by the tests it decides; None when there are none for certain."""
        low, high = numeric(bounds[0], self.sizes), numeric(bounds[1], self.sizes)
        loop = Block("", block, level, self._span(block, low, high))
        first, stop, left, step, residue = [low], [high], [], 1, Linear(0)
        for test in tests:
            truth = loop.truth(test)
            if truth is False:
                return None
            slope, rest = (test.e if isinstance(test, Multiple) else test).split(level) or (0, Linear(0))
            if truth or not slope or not test.safe:
                left.extend([] if truth else [test])
            elif isinstance(test, Linear):
                edge = floor(rest, Linear(abs(slope)))
                if slope > 0:
                    first.append(-edge)
                else:
                    stop.append(edge + 1)
            elif step == 1 and gcd(slope, test.divisor.constant) == 1:
                step = test.divisor.constant
                residue = rest * -pow(slope, -1, step)
            else:
                left.append(test)
        begin, end = extreme("max", first), extreme("min", stop)
        loop.span = self._span(block, begin, end) or loop.span
        if loop.span is not None and loop.span[0] > loop.span[1]:
            return None
        if step != 1:
            begin = residue - floor(residue - begin, Linear(step)) * step
        return _Run(loop, begin, end, step, left)

    @staticmethod
    def _span(block: Block, low: Linear, high: Linear) -> Span | None:
        a, b = block.span_of(low), block.span_of(high)
        return None if a is None or b is None else (a[0], b[1] - 1)

    def _loop(self, block: Block, level: int, run: _Run) -> Block | None:
        """The block inside the loop and under the tests that are left."""
        first, stop = block.text(run.first), block.text(run.stop)
        step = f", {run.step}" if run.step != 1 else ""
        run.loop.header = f"for v{level} in range({first}, {stop}{step}):"
        block.body.append(run.loop)
        return self._enter(run.loop, run.left)

    # expressions

    def _value(self, block: Block, e: Expr) -> str:
        """Source for the finished value of an expression, after the statements it needs."""
        total = block.fresh("s")
        block.body.append(f"{total} = zero")
        for m in e.monomials:
            self._add(block, e.depth, m, total)
        return f"finish({total})"

    def _add(self, block: Block, depth: int, m: Monomial, total: str) -> None:
        """Add a monomial to ``total``."""
        room = max(LOOPS_IN_A_FUNCTION - block.loops, 0)
        binders, factors = m.binders[:room], list[Factor | Expr](m.factors)
        if len(binders) < len(m.binders):
            rest = Monomial(Fraction(1), m.binders[room:], m.guards, m.factors)
            factors = [Expr(depth + room, (rest,))]
        scope = depth + len(binders)
        tests = [t for g in m.guards for t in guard_tests(g, self.sizes) if t.level < scope]
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
            known = known + [f"{r.table}[{inner.text(r.offset)}]" for r in reads]
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
            offset += (e - low) * stride
            tests += [without_floor(e - low), without_floor(-e + (high - 1))]
        level = max((e.level for e in at), default=-1)
        return _Access(self.tables[read.tensor], offset, level, all(e.safe for e in at)), tests

    def _multiplied(
        self, block: Block, known: list[str], reads: list[_Access], level: int
    ) -> tuple[list[str], list[_Access]]:
        """The product of what is fixed before the loop of ``level``, and the reads that are not."""
        ready = [r for r in reads if r.safe and r.level < level]
        if not ready:
            return known, reads
        name = block.fresh("p")
        product = known + [f"{r.table}[{block.text(r.offset)}]" for r in ready]
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
        count = floor(run.stop - run.first + (run.step - 1), Linear(run.step))
        if count.terms or count.constant < 1:
            block = block.child(f"if {block.text(count)} > 0:")
        moving, product = "", known + [self._factor(block, f) for f in others]
        for r in reads:
            slope, rest = r.offset.split(level) or (0, r.offset)
            if not slope:
                product.append(f"{r.table}[{block.text(rest)}]")
                continue
            piece = self._slice(block, r.table, rest + run.first * slope, count, slope * run.step)
            moving = f"map(mul, {moving}, {piece})" if moving else piece
        product.append(f"sum({moving}, zero)" if moving else f"{block.text(count)} * one")
        block.body.append(f"{total} += {' * '.join(product)}")

    def _slice(self, block: Block, table: str, start: Linear, count: Linear, stride: int) -> str:
        if stride > 0:
            step = "" if stride == 1 else f":{stride}"
            return f"{table}[{block.text(start)}:{block.text(start + count * stride)}{step}]"
        last, end = start + count * stride - stride, start + 1
        return f"reversed({table}[{block.text(last)}:{block.text(end)}:{-stride}])"

    # factors other than reads

    def _factor(self, block: Block, f: Factor | Expr) -> str:
        """A name for the factor's value, computed at its first use for the present values of its variables."""
        if isinstance(f, Expr):
            name, root = self._function(f)
            self._compiled(name, root)
            return f"{name}({self._arguments(f, f.depth)})"
        home = block.home(max(_free(f), default=-1))
        if f not in home.names:
            home.names[f] = home.fresh("x")
            home.prelude.append(f"{home.names[f]} = None")
        name = home.names[f]
        if not block.has(name):
            first = block.child(f"if {name} is None:")
            first.body.append(f"{name} = {self._computed(first, f)}")
            block.ready.add(name)
        return name

    @staticmethod
    def _arguments(f: Factor | Expr, depth: int) -> str:
        """The variables around; 0 for those that do not matter, whose loops may not have been opened."""
        free = _free(f)
        return ", ".join(f"v{k}" if k in free else "0" for k in range(depth))

    def _computed(self, block: Block, f: Factor) -> str:
        if isinstance(f, Apply):
            return f"{f.function}({self._value(block, f.argument)})"
        if isinstance(f, Maximum):
            return self._maximum(block, f)
        if isinstance(f, Derivative):
            return f"derivative({self._constant(f)}, [{self._arguments(f, f.expr.depth)}])"
        raise TypeError(f"factor={f!r} ({type(f).__name__}): not a factor of the term language")

    def _maximum(self, block: Block, f: Maximum) -> str:
        scope = f.body.depth - len(f.binders)
        if block.loops + len(f.binders) > LOOPS_IN_A_FUNCTION and block.loops:
            return self._factor(block, Expr(scope, (Monomial(Fraction(1), (), (), (f,)),)))
        best, value = block.fresh("m"), block.fresh("y")
        block.body.append(f"{best} = None")
        tests = [t for g in f.guards for t in guard_tests(g, self.sizes)]
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
