"""Output sizes: a size is the *number of legal window positions*, and the formula for it is a theorem.

A row of n cells gets pl zeros before it and pr after it.  A window starts at a cell t of the padded row; it is legal
where the stride divides t and the window of ``d (k - 1) + 1`` cells fits.  With L = n + pl + pr - d (k - 1) - 1,

    Sum over 0 <= t < n + pl + pr, [s divides t] [t <= L], of 1  =  Sum over 0 <= i < L // s + 1 of 1

for all sizes (``window_count``), also where L < 0: then both sums are empty, and so the number is max(0, L // s + 1).
The formula without the maximum can be negative.  Integer division in C truncates towards zero and gives
``L / s + 1 == 1`` for -s < L < 0: one window where none fits.  In Python and here ``//`` is the floor.

A layer at symbolic sizes calls its output size o and assumes ``s (o - 1) <= L <= s o - 1``.  ``output_unique`` shows
that this leaves no choice, o = L // s + 1, and ``output_exists`` that this choice satisfies it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, reduce
from typing import Any

from derive import kernel, tactics
from derive.indices import Divides, Guard, Index, Quotient, Sym, at_least, equal, index, interval, symbol, symbols, var
from derive.kernel import Theorem
from derive.layers import Layer, Sequential, at_layer
from derive.legality import LayerError, Window, check, dimension, window
from derive.rules import Reguard, Reindex
from derive.terms import constant, tensor, term

# --- the theorems -------------------------------------------------------------------------------------------------


def _row() -> Window:
    n, k, s, d, pl, pr = symbols("n k s d pl pr")
    return window(n, k, s, d, pl, pr)


def _setting(w: Window) -> tuple[Guard, ...]:
    """A legal setting on a row of at least one cell; no window need fit."""
    return (at_least(w.size, 1), *(c.guard for c in w.settings()))


def _counted(w: Window, facts: Sequence[Guard]) -> Theorem:
    start = var(0)
    fits = [Divides(w.stride, start), at_least(w.padded, start + w.extent)]
    theorem = kernel.begin(term(0, over=[interval(0, w.padded)], guards=fits), facts=facts)
    # A legal start is a multiple of the stride: t = i s, i = t // s.
    numbered = Reindex((interval(0, w.positions),), (var(0) * w.stride,), (var(0) // w.stride,))
    return tactics.tidy(kernel.rewrite(theorem, (0,), numbered))


@lru_cache(maxsize=1)
def window_count() -> Theorem:
    """The number of legal window positions is L // s + 1, or 0 where that is negative; for all n, k, s, d, pl, pr.

    >>> window_count().rhs
    Sum{0<=$0<((d-d*k+n+pl+pr-1)//(s))+1}
    """
    w = _row()
    return _counted(w, _setting(w))


@lru_cache(maxsize=1)
def output_count() -> Theorem:
    """Under a layer's conditions the number of legal window positions is its output size o.

    >>> output_count().rhs
    Sum{0<=$0<o0}
    """
    w = _row()
    theorem = _counted(w, [c.guard for c in w.conditions()])
    return kernel.rewrite(theorem, (0,), Reguard((interval(0, w.output),), ()))


@lru_cache(maxsize=1)
def output_unique() -> Theorem:
    """Under a layer's conditions its output size is L // s + 1.

    >>> output_unique()
    |- 1 = [((d-d*k+n+pl+pr-1)//(s))-o0+1==0]
    """
    w = _row()
    theorem = kernel.begin(constant(0, 1), facts=[c.guard for c in w.conditions()])
    return kernel.rewrite(theorem, (0,), Reguard((), (equal(w.output, w.positions),)))


@lru_cache(maxsize=1)
def output_exists() -> Theorem:
    """Where L >= 0, the number L // s + 1 satisfies what a layer assumes of its output size."""
    w = _row()
    o = w.positions
    theorem = kernel.begin(constant(0, 1), facts=[*_setting(w), at_least(w.last, 0)])
    assumed = (at_least(o, 1), at_least(w.last, w.stride * (o - 1)), at_least(w.stride * o - 1, w.last))
    return kernel.rewrite(theorem, (0,), Reguard((), assumed))


# --- numbers and SymPy expressions --------------------------------------------------------------------------------


def window_positions(n: Any, k: Any, s: Any = 1, d: Any = 1, pl: Any = 0, pr: Any = 0) -> Any:
    """The number of legal window positions on one axis, ``max(0, L // s + 1)``: see ``window_count``.

    An integer for integers, a SymPy expression where a size is a symbol: a string, a SymPy symbol or an ``Index``.
    LayerError where the setting itself is not legal.

    >>> window_positions(224, 7, s=2, pl=3, pr=3), window_positions(3, 5)
    (112, 0)
    >>> window_positions("n", 2, s=2)
    Max(0, floor(n/2))
    """
    names: dict[str, Any] = {}
    given = {"n": n, "k": k, "s": s, "d": d, "pl": pl, "pr": pr}
    size, kernel_size, stride, dilation, before, after = (as_index(*item, names) for item in given.items())
    w = window(size, kernel_size, stride, dilation, before, after)
    check("window_positions", w.settings())
    if w.output.constant is not None:
        return w.output.constant
    import sympy

    return sympy.Max(0, as_sympy(w.positions, names))


def output_shape(layer: Layer, input_shape: Sequence[Any]) -> tuple[Any, ...]:
    """The shape of a layer's output (d2l 7.3.2; for all sizes ``output_count``).

    Each entry of ``input_shape`` is an integer or a symbol: a string, a SymPy expression or an ``Index``.  Where a size
    depends on symbols the answer is a SymPy expression, right wherever it is positive.  LayerError for a shape that is
    not legal; it gives the formula with the numbers put in and the nearest legal value.

    >>> from derive.layers import Conv2d, lenet
    >>> output_shape(Conv2d(6, 16, 5), (8, 6, 14, 14))
    (8, 16, 10, 10)
    >>> output_shape(Conv2d(6, 16, 5, stride=2, padding=1), ("N", 6, "h", "w"))
    (N, 16, floor(h/2 - 3/2) + 1, floor(w/2 - 3/2) + 1)
    >>> output_shape(lenet(), ("N", 1, 28, 28))
    (N, 10)
    """
    names: dict[str, Any] = {}
    shape = _through(layer, tuple(as_index("input_shape", size, names) for size in input_shape))
    return tuple(as_sympy(e, names) if e.constant is None else e.constant for e in shape)


def _through(layer: Layer, shape: tuple[Index, ...]) -> tuple[Index, ...]:
    """The output shape with L // s + 1 for every output size that is not a number."""
    if isinstance(layer, Sequential):
        for k, inner in enumerate(layer.layers):
            try:
                shape = _through(inner, shape)
            except LayerError as error:
                raise at_layer(k, layer, error) from None
        return shape
    applied = layer.on(tensor("X", *shape))
    formulas = {w.output.text: w.positions for w in applied.windows if w.output.constant is None}
    return tuple(hi.substitute(_by_name(formulas)) for _, hi in applied.y.box)


def _by_name(values: Mapping[str, Index]) -> Callable[[Any], Index | None]:
    return lambda atom: values.get(atom.text)


def as_index(argument: str, value: Any, names: dict[str, Any]) -> Index:
    """An integer, a name, a SymPy expression or an index as an index; ``names`` collects SymPy's symbols."""
    if isinstance(value, str):
        if not value.isidentifier():
            raise LayerError(f"{argument}={value!r}: a size symbol is named by an identifier, such as 'n'")
        return symbol(value)
    if type(value).__module__.split(".")[0] != "sympy" or getattr(value, "is_Integer", False):
        return index(dimension(argument, value))
    found = _polynomial(value, names)
    if found is None:
        raise LayerError(f"{argument}={value}: a size is a polynomial in symbols with integer coefficients, or a floor")
    if any(names[e.name] != e for e in value.free_symbols):
        raise LayerError(f"{argument}={value}: two different SymPy symbols have one name in this shape")
    return found


def _polynomial(e: Any, names: dict[str, Any]) -> Index | None:
    """A SymPy expression as an index, None where it is none."""
    import sympy

    if e.is_Symbol and e.name.isidentifier():
        names.setdefault(e.name, e)
        return symbol(e.name)
    if e.is_Integer:
        return index(int(e))
    power = e.is_Pow and e.exp.is_Integer and e.exp > 0
    floor = isinstance(e, sympy.floor)
    if not (e.is_Add or e.is_Mul or power or floor):
        return None
    args = sympy.fraction(sympy.together(e.args[0])) if floor else (e.base,) * int(e.exp) if power else e.args
    parts = [_polynomial(part, names) for part in args]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    if floor:
        return known[0] // known[1]
    combine = operator.add if e.is_Add else operator.mul
    return reduce(combine, known)


def as_sympy(e: Index, names: Mapping[str, Any] | None = None) -> Any:
    """An index as a SymPy expression, with ``floor`` for ``//``; ``names`` gives the symbols to use.

    >>> as_sympy((symbol("n") + 1) // 2 * 3)
    3*floor(n/2 + 1/2)
    """
    import sympy

    def atom(a: Any) -> Any:
        if isinstance(a, Sym):
            return (names or {}).get(a.name, sympy.Symbol(a.name, integer=True))
        if isinstance(a, Quotient):
            return sympy.floor(as_sympy(a.numerator, names) / as_sympy(a.denominator, names))
        raise ValueError(f"{e.text}: a size does not depend on a variable")

    return sympy.Add(*(coefficient * sympy.Mul(*map(atom, product)) for product, coefficient in e.terms))


__all__ = [
    "as_index", "as_sympy", "output_count", "output_exists", "output_shape", "output_unique", "window_count",
    "window_positions",
]  # fmt: skip
