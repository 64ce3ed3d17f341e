"""Element by element: an expression in cells at the same position, as a chain of ufuncs that ends in the buffer.

``reduce`` is its neighbour: the sum or the maximum of one tensor over some of its axes.  A chain writes its target at
once and goes on there, so a stage may take over the buffer of a tensor it reads as long as its first operation reads
that tensor for the last time; the printer refuses other orders.
"""

from __future__ import annotations

from fractions import Fraction

from codegen.plan import PlanError, Stage
from codegen.templates.numpy.scope import Scope, scope_of
from codegen.templates.numpy.text import Context, only_monomial, times
from codegen.templates.numpy.views import read_view, target_view
from derive.indices import variables
from derive.terms import Apply, Expr, Factor, Maximum, Monomial, Read

UFUNCS = {"exp": "exp", "log": "log", "tanh": "tanh", "recip": "divide", "relu": "maximum", "step": "greater"}
AGAINST_ZERO = ("relu", "step")


def pointwise(ctx: Context, stage: Stage) -> list[str]:
    """The text of a stage without sums."""
    scope = scope_of(stage, ())
    target = target_view(ctx.plan, ctx.arrays, stage, scope)
    printer = _Chain(ctx, stage, scope, target.text, target.axes)
    printer.expr(stage.body)
    return printer.lines


class _Chain:
    """Prints one expression into one target."""

    def __init__(self, ctx: Context, stage: Stage, scope: Scope, target: str, axes: tuple[int, ...]) -> None:
        self.ctx, self.stage, self.scope, self.target, self.axes = ctx, stage, scope, target, axes
        self.lines: list[str] = []

    def put(self, ufunc: str, *arguments: str) -> None:
        """One operation into the target; what was taken over must not be read after the first one."""
        taken = self.stage.into and self.ctx.arrays[self.stage.into]
        if self.lines and taken and self.target != taken and any(a.startswith(taken) for a in arguments):
            raise PlanError(f"{self.stage.name} reads {self.stage.into} after it began to overwrite it")
        self.lines.append(f"np.{ufunc}({', '.join(arguments)}, out={self.target})")

    def expr(self, e: Expr) -> None:
        """A number plus a product, or the sum of two plain reads, or one product."""
        constants = [m for m in e.monomials if not m.factors and not m.binders]
        others = [m for m in e.monomials if m not in constants]
        if len(others) == 1:
            self.affine(constants[0].coefficient if constants else Fraction(0), others[0])
        elif len(others) == 2 and not constants:
            self.sum_of_two(*others)
        else:
            raise PlanError(f"{self.stage.name}: the template pointwise cannot print {e.text}")

    def affine(self, shift: Fraction, m: Monomial) -> None:
        """shift + coefficient * product."""
        if not shift:
            self.product(m, m.coefficient)
        elif m.coefficient == -1:
            self.product(m, Fraction(1))
            self.put("subtract", self.ctx.constant(shift), self.target)
        else:
            self.product(m, m.coefficient)
            self.put("add", self.target, self.ctx.constant(shift))

    def sum_of_two(self, a: Monomial, b: Monomial) -> None:
        """x + y, x - y, or x - y z where the product is printed first."""
        if len(a.factors) > len(b.factors) or (a.coefficient == -1 and b.coefficient == 1):
            a, b = b, a
        if a.coefficient != 1 or b.coefficient not in (1, -1) or len(a.factors) != 1:
            raise PlanError(f"{self.stage.name}: the template pointwise cannot print {self.stage.body.text}")
        second = self.target
        if len(b.factors) == 1 and isinstance(b.factors[0], Read):
            second = self.cells(b.factors[0])
        else:
            self.product(b, Fraction(1))
        self.put("add" if b.coefficient == 1 else "subtract", self.cells(a.factors[0]), second)

    def product(self, m: Monomial, coefficient: Fraction) -> None:
        """coefficient * f * g * ..."""
        if m.binders or m.guards:
            raise PlanError(f"{self.stage.name}: the template pointwise prints no sums and no guards")
        if len(m.factors) == 1 and isinstance(m.factors[0], Apply):
            self.function(m.factors[0])
        elif len(m.factors) == 1:
            if coefficient == 1 and self.cells(m.factors[0]) == self.target:
                return
            self.lines.append(times(self.ctx, self.cells(m.factors[0]), coefficient, self.target))
            return
        else:
            cells = [self.cells(f) for f in m.factors]
            self.put("multiply", cells[0], cells[1])
            for further in cells[2:]:
                self.put("multiply", self.target, further)
        if coefficient != 1:
            self.lines.append(times(self.ctx, self.target, coefficient, self.target))

    def function(self, f: Apply) -> None:
        """A scalar function; of a plain read without a pass for its argument."""
        if f.function not in UFUNCS:
            raise PlanError(f"{self.stage.name}: NumPy has no {f.function}; write it with {', '.join(UFUNCS)}")
        argument = f.argument.monomials
        plain = len(argument) == 1 and argument[0].coefficient == 1 and len(argument[0].factors) == 1
        if plain and isinstance(argument[0].factors[0], Read):
            source = self.cells(argument[0].factors[0])
        else:
            self.expr(f.argument)
            source = self.target
        # 1 / x and not np.reciprocal, which NumPy has in no vector form: it takes half as long again.
        numerator = [self.ctx.constant(Fraction(1))] if f.function == "recip" else []
        zero = ["0"] if f.function in AGAINST_ZERO else []
        self.put(UFUNCS[f.function], *numerator, source, *zero)

    def cells(self, f: Factor) -> str:
        """The text of a read at the position that is written."""
        if not isinstance(f, Read):
            raise PlanError(f"{self.stage.name}: {f.text} is no read; give it a stage of its own")
        view = read_view(self.ctx.plan, self.ctx.arrays, f, self.scope)
        return view.aligned(self.axes)


def reduce(ctx: Context, stage: Stage, *, accumulate: bool) -> list[str]:
    """The text of ``Sum`` or ``max`` of one read over its bound variables."""
    m = only_monomial(stage)
    ufunc, binders, factor = "sum", m.binders, m.factors[0] if len(m.factors) == 1 else None
    if isinstance(factor, Maximum) and not m.binders:
        ufunc, binders = "max", factor.binders
        inner = factor.body.monomials[0]
        factor = inner.factors[0] if len(factor.body.monomials) == 1 and inner.coefficient == 1 else None
    if not isinstance(factor, Read) or m.guards or m.coefficient != 1:
        raise PlanError(f"{stage.name}: the template reduce prints the sum or the maximum of one read")
    scope = scope_of(stage, binders)
    rank = stage.tensor.rank
    wanted = (*range(rank), *range(rank, rank + len(binders)))
    if set(factor.at) != set(variables(0, len(wanted))) or scope.loops:
        raise PlanError(f"{stage.name}: {factor.text} is not read at each variable once")
    source = read_view(ctx.plan, ctx.arrays, factor, scope)
    axes = tuple(k for k, level in enumerate(source.axes) if level >= rank)
    if [level for level in source.axes if level < rank] != list(range(rank)):
        raise PlanError(f"{stage.name}: the axes that stay have to keep their order")
    axis = f"{axes[0]}" if len(axes) == 1 else f"{axes}"
    target = target_view(ctx.plan, ctx.arrays, stage, scope).text
    if accumulate:
        return [f"np.add({target}, np.{ufunc}({source.text}, axis={axis}), out={target})"]
    return [f"np.{ufunc}({source.text}, axis={axis}, out={target})"]
