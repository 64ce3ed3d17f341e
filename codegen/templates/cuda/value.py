"""An expression as C: statements that a thread runs first, and the text of the number.

A sum becomes nested loops with an accumulator, a maximum the same with a comparison.  A read outside the box of its
tensor is zero: where that can happen the product it stands in is computed under a condition on the index, never on the
data.  Numbers are added and multiplied as ``ACC``, the accumulator's type; what is stored is ``REAL``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from math import prod

from codegen.plan import PlanError, Stage
from codegen.templates.cuda.declarations import LINE
from codegen.templates.cuda.text import Scope, cells, kind_of
from derive.indices import Interval
from derive.terms import Apply, Expr, Factor, Maximum, Monomial, Read, Tensor

UNROLLED = 64  # steps: inner loops of at most so many together are written for the compiler to unroll


class Printer:
    """Prints expressions of one stage.

    ``known`` gives the text of tensors that are at hand in a register, ``labels`` names those of which an array holds
    the place of the one 1 in each row, ``prefix`` begins the names of numbers.
    """

    def __init__(
        self,
        stage: Stage,
        arrays: Mapping[str, str],
        *,
        known: Mapping[str, str] | None = None,
        labels: Collection[str] = (),
        prefix: str = "",
    ) -> None:
        self.stage, self.arrays, self.known, self.labels, self.prefix = stage, arrays, known or {}, labels, prefix
        self.lines: list[str] = []
        self.indent = ""
        self.made: Counter[str] = Counter()

    def put(self, line: str) -> None:
        """One line at the present depth."""
        self.lines.append(self.indent + line)

    def fresh(self, word: str) -> str:
        """A name for a number: the word, the first time."""
        self.made[word] += 1
        number = self.made[word]
        return f"{self.prefix}{word}{number if number > 1 else ''}"

    def expr(self, e: Expr, scope: Scope) -> str:
        """The text of an expression, after the statements it needs."""
        parts = [self.monomial(m, scope) for m in e.monomials]
        if not parts:
            return "ACC(0)"
        text = parts[0]
        for part in parts[1:]:
            text += f" - {part[1:]}" if part.startswith("-") else f" + {part}"
        return text

    def monomial(self, m: Monomial, scope: Scope) -> str:
        """coefficient * Sum [guards] f * g * ..."""
        if not m.binders:
            return self._product(m, scope)
        if not m.guards and not m.factors:
            return scaled(f"ACC({scope.text(cells(m.binders))})", m.coefficient)
        total = self.fresh("part")
        self.put(f"ACC {total} = ACC(0);")
        closed = self._loops(m.binders, scope, plain=not any(isinstance(f, Apply) for f in m.factors))
        inner = scope.inner(m.binders, self.stage.names).knowing(m.guards)
        conditions = self._conditions(m, inner)
        closed = self._only_where(conditions, closed)
        factors = [self._factor(f, inner) for f in m.factors]
        self.put(f"{total} += {' * '.join(factors) or 'ACC(1)'};")
        self._end(closed)
        return scaled(total, m.coefficient)

    def _product(self, m: Monomial, scope: Scope) -> str:
        scope = scope.knowing(m.guards)
        conditions = self._conditions(m, scope)
        factors = [self._factor(f, scope) for f in m.factors]
        text = scaled(" * ".join(factors), m.coefficient)
        return f"({' && '.join(conditions)} ? {text} : ACC(0))" if conditions else text

    def _conditions(self, m: Monomial, scope: Scope) -> list[str]:
        """Where the product is not zero for certain."""
        guards = [text for g in m.guards if (text := scope.guard(g)) is not None]
        reads = [f for f in m.factors if isinstance(f, Read) and f.tensor.name not in self.known]
        return [*guards, *dict.fromkeys(text for read in reads for text in scope.inside(read))]

    def _loops(self, binders: Sequence[Interval], scope: Scope, *, plain: bool) -> int:
        """Open a loop for each variable that takes more than one value; gives how many.

        Inner ones are unrolled as long as they are few steps together, unless a function is applied in them: many at
        once take more registers than there are.
        """
        counts = [(high - low).constant for low, high in binders]
        opened = 0
        for k, (low, high) in enumerate(binders):
            level = len(scope.intervals)
            name = self.stage.names[level]
            inner = prod(UNROLLED + 1 if n is None else n for n in counts[k:])
            scope = scope.inner(binders[k : k + 1], self.stage.names)
            if counts[k] == 1:
                continue
            opened += 1
            if not plain:
                self.put("#pragma unroll 1")
            elif inner <= UNROLLED:
                self.put("#pragma unroll")
            self.put(f"for ({kind_of(high)} {name} = {scope.text(low)}; {name} < {scope.text(high)}; ++{name}) {{")
            self.indent += "  "
        return opened

    def _only_where(self, conditions: Sequence[str], opened: int) -> int:
        """What follows is done where these hold; gives how many blocks are open."""
        if conditions and opened:
            self.put(f"if (!({' && '.join(conditions)})) continue;")
        elif conditions:
            self.put(f"if ({' && '.join(conditions)}) {{")
            self.indent += "  "
            return 1
        return opened

    def _end(self, count: int) -> None:
        for _ in range(count):
            self.indent = self.indent[:-2]
            self.put("}")

    def _factor(self, f: Factor, scope: Scope) -> str:
        if isinstance(f, Read):
            return self._read(f, scope)
        if isinstance(f, Apply):
            return f"{FUNCTIONS.get(f.function, f.function)}({self.expr(f.argument, scope)})"
        if isinstance(f, Maximum):
            return self._maximum(f, scope)
        raise PlanError(f"{self.stage.name}: {f.text}: a stage is computed from values, not from a derivative")

    def _read(self, f: Read, scope: Scope) -> str:
        name = f.tensor.name
        if name in self.known:
            return self.known[name]
        if name in self.labels:
            row, classes = f.tensor.box
            place = scope.offset(Tensor(name, (row,)), f.at[:1])
            return f"hit({self.arrays[name]}[{place}], {scope.text(f.at[1])}, {scope.text(cells([classes]))})"
        return f"ACC({self.arrays[name]}[{scope.offset(f.tensor, f.at)}])"

    def _maximum(self, f: Maximum, scope: Scope) -> str:
        """The first that is allowed, then whatever is larger."""
        largest, found = self.fresh("largest"), self.fresh("found")
        self.put(f"ACC {largest} = ACC(0);")
        self.put(f"bool {found} = false;")
        closed = self._loops(f.binders, scope, plain=True)
        inner = scope.inner(f.binders, self.stage.names)
        guards = [text for g in f.guards if (text := inner.guard(g)) is not None]
        closed = self._only_where(guards, closed)
        candidate = self.fresh("candidate")
        self.put(f"const ACC {candidate} = {self.expr(f.body, inner)};")
        self.put(f"{largest} = !{found} || {largest} < {candidate} ? {candidate} : {largest};")
        self.put(f"{found} = true;")
        self._end(closed)
        return largest


def at_hand(
    e: Expr, scope: Scope, arrays: Mapping[str, str], known: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """Statements that read once what a sum of products reads more than once, and the texts of tensors with those."""
    factors = [f for m in e.monomials for f in m.factors]
    reads = [f for f in factors if isinstance(f, Read)]
    lines: list[str] = []
    found = dict(known)
    if len(reads) < len(factors) or any(m.binders or m.guards for m in e.monomials):
        return lines, found
    for read in dict.fromkeys(reads):
        name = read.tensor.name
        places = {r.at for r in reads if r.tensor == read.tensor}
        if name not in known and reads.count(read) > 1 and len(places) == 1 and not scope.inside(read):
            found[name] = f"{name}_here"
            lines.append(f"const ACC {found[name]} = ACC({arrays[name]}[{scope.offset(read.tensor, read.at)}]);")
    return lines, found


FUNCTIONS = {"exp": "exp_of", "log": "log_of", "tanh": "tanh_of", "sigmoid": "sigmoid_of", "relu": "relu_of",
             "step": "step_of", "recip": "reciprocal"}  # fmt: skip


def stored(cell: str, value: str) -> list[str]:
    """The statement that stores a number, on as many lines as that takes.

    >>> stored("Y[n]", "x + y")
    ['Y[n] = REAL(x + y);']
    """
    whole = f"{cell} = REAL({value});"
    return [whole] if len(whole) <= LINE else [f"{cell} =", f"    REAL({value});"]


def scaled(text: str, coefficient: Fraction) -> str:
    """A product times a rational number.

    >>> scaled("x * y", Fraction(-1)), scaled("x", Fraction(1, 4)), scaled("", Fraction(3))
    ('-x * y', 'RATIO(1, 4) * x', 'ACC(3)')
    """
    if not text:
        return number(coefficient)
    if coefficient == 1:
        return text
    return f"-{text}" if coefficient == -1 else f"{number(coefficient)} * {text}"


def number(value: Fraction) -> str:
    """A rational number."""
    if value.denominator == 1:
        return f"ACC({value.numerator})"
    return f"RATIO({value.numerator}, {value.denominator})"
