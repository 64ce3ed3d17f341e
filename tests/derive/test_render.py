"""Notation: names that never capture, formulas as a reader expects them, and JSON that gives terms back."""

from fractions import Fraction
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derive.indices import (
    Divides,
    Guard,
    Index,
    NonNegative,
    Zero,
    at_least,
    constant_truth,
    index,
    inside,
    interval,
    symbol,
    symbols,
    var,
    variables,
)
from derive.render.formula import Notation
from derive.render.html import Html, mathml
from derive.render.json import (
    Definitions,
    dumps,
    expr_from_json,
    expr_to_json,
    guard_from_json,
    guard_to_json,
    index_from_json,
    index_to_json,
    loads,
    tensor_from_json,
    tensor_to_json,
)
from derive.render.latex import Latex
from derive.render.names import Namer, Names, taken_names
from derive.render.text import Text, fill
from derive.terms import Apply, Derivative, Expr, Factor, Maximum, define, expression, tensor, term

N, C, M, K, S, D, P = symbols("N C M k s d p")
X = tensor("X", C, N)
W = tensor("W", M, C, K)
U = tensor("u", M)
AXES = Names(axes={"X": "ch", "W": "oca", "Z": "oi"})


def text(e: Expr, scope: tuple[str, ...] = (), names: Names = AXES) -> str:
    return Text(Namer(names, taken_names([e], [], []))).expr(e, scope)


def convolution() -> Expr:
    o, i, c, a = variables(0, 4)
    window = [interval(0, C), interval(0, K)]
    return term(2, W[o, c, a], X[c, i * S + a * D - P], over=window) + term(2, U[o])


# --- random terms -------------------------------------------------------------------------------------------------


@st.composite
def indices(draw: st.DrawFn, depth: int) -> Index:
    atoms = [symbol(name) for name in "nks"] + [var(level) for level in range(depth)]
    total = index(draw(st.integers(-3, 3)))
    for _ in range(draw(st.integers(0, 3))):
        product = index(draw(st.sampled_from([-2, -1, 1, 3])))
        for atom in draw(st.lists(st.sampled_from(atoms), min_size=1, max_size=2)):
            product = product * atom
        total = total + product
    if draw(st.integers(0, 4)) == 0:
        total = total // draw(st.sampled_from([index(2), symbol("s"), symbol("s") * symbol("k")]))
    return total


@st.composite
def guards(draw: st.DrawFn, depth: int) -> Guard:
    e = draw(indices(depth))
    kind = draw(st.sampled_from(["ge0", "eq0", "divides"]))
    return NonNegative(e) if kind == "ge0" else Zero(e) if kind == "eq0" else Divides(symbol("s"), e)


V = define("V", [symbol("n")], term(1, tensor("A1", symbol("n"))[var(0)], coefficient=2))
TENSORS = (tensor("A1", symbol("n")), tensor("T_in", symbol("n"), 3), tensor("c"), V)


@st.composite
def factors(draw: st.DrawFn, depth: int, size: int) -> Factor:
    kinds = ["read", "apply", "maximum", "derivative"] if size else ["read"]
    kind = draw(st.sampled_from(kinds))
    t = draw(st.sampled_from(TENSORS))
    at = tuple(draw(indices(depth)) for _ in range(t.rank))
    if kind == "read":
        return t[at]
    if kind == "apply":
        name = draw(st.sampled_from(["exp", "log", "recip", "sigmoid", "relu", "step", "tanh"]))
        return Apply(name, draw(expressions(depth, size - 1)))
    if kind == "maximum":
        return Maximum((interval(0, symbol("k")),), (), draw(expressions(depth + 1, size - 1)))
    return Derivative(draw(expressions(depth, size - 1)), t, at)


@st.composite
def expressions(draw: st.DrawFn, depth: int, size: int = 2) -> Expr:
    total = expression(depth, [])
    for _ in range(draw(st.integers(0, 2))):
        binders = draw(st.integers(0, 2))
        over = [interval(0, draw(st.sampled_from([symbol("n"), symbol("k"), index(3)]))) for _ in range(binders)]
        inner = depth + binders
        total = total + term(
            depth,
            *draw(st.lists(factors(inner, size), max_size=2)),
            over=over,
            guards=draw(st.lists(guards(inner), max_size=2)),
            coefficient=draw(st.sampled_from([1, -1, 2, Fraction(-3, 2), Fraction(1, 6)])),
        )
    return total


# --- JSON ---------------------------------------------------------------------------------------------------------


@given(indices(3), guards(3))
def test_indices_and_guards_come_back_from_json(e: Index, g: Guard) -> None:
    assert index_from_json(loads(dumps(index_to_json(e)))) == e
    assert guard_from_json(loads(dumps(guard_to_json(g)))) == g


@given(expressions(2))
def test_expressions_come_back_from_json(e: Expr) -> None:
    definitions = Definitions.of([e])
    written = dumps([definitions.to_json(), expr_to_json(e, definitions)])
    table, data = loads(written)
    again = Definitions.from_json(table)
    assert expr_from_json(data, again) == e
    assert dumps([again.to_json(), expr_to_json(expr_from_json(data, again), again)]) == written


def test_tensors_come_back_with_their_definitions() -> None:
    z = define("Z", [M, N], convolution())
    definitions = Definitions.of([], [z])
    assert sorted(definitions.by_key) == ["W", "X", "Z", "u"]
    assert tensor_from_json(tensor_to_json(z, definitions), definitions) == z
    assert Definitions.from_json(definitions.to_json()).tensor("Z") == z


def test_tensors_of_one_name_keep_apart() -> None:
    small, large = tensor("T", 2), tensor("T", 3)
    definitions = Definitions.of([term(0, small[0]), term(0, large[0])])
    assert sorted(definitions.by_key) == ["T#1", "T#2"]
    again = Definitions.from_json(definitions.to_json())
    assert {again.tensor("T#1"), again.tensor("T#2")} == {small, large}


@pytest.mark.parametrize("data", [{"le0": [[1, ["n"]]]}, {"divides": [[[0, []]], [[1, ["n"]]]]}])
def test_a_guard_that_is_none_is_refused(data: object) -> None:
    with pytest.raises(ValueError, match=r"kinds of guards|divisors >= 1"):
        guard_from_json(data)


def test_a_definition_that_rests_on_itself_is_refused() -> None:
    body = {
        "depth": 0,
        "monomials": [{"coefficient": "1", "over": [], "guards": [], "factors": [{"read": "T", "at": []}]}],
    }
    with pytest.raises(ValueError, match="by way of itself"):
        Definitions.from_json({"T": {"name": "T", "box": [], "body": body}})


# --- names --------------------------------------------------------------------------------------------------------


def test_bound_variables_are_named_after_axes() -> None:
    assert text(convolution(), ("o", "i")) == "u[o] + Σ[0 ≤ c < C, 0 ≤ a < k] W[o, c, a] X[c, i s + a d - p]"


def test_a_name_in_scope_gets_a_prime_and_is_not_captured() -> None:
    assert text(convolution(), ("c", "a")).startswith("u[c] + Σ[0 ≤ c' < C, 0 ≤ a' < k] W[c, c', a']")


def test_a_size_named_like_a_variable_is_never_hidden() -> None:
    c, i, j = symbol("c"), symbol("i"), symbol("j")
    t = tensor("T", c, i + j)
    e = term(0, t[var(0), var(1)], over=[interval(0, c), interval(0, i + j)], guards=[at_least(var(1), i)])
    assert text(e, names=Names(axes={"T": "ci"})) == "Σ[0 ≤ c' < c, 0 ≤ i' < i + j] [i ≤ i'] T[c', i']"
    assert text(e, names=Names()) == "Σ[0 ≤ k < c, 0 ≤ l < i + j] [i ≤ l] T[k, l]"


def test_a_tensor_named_like_a_variable_is_never_hidden() -> None:
    t = tensor("i", N)
    assert text(term(0, t[var(0)], over=[interval(0, N)]), names=Names()) == "Σ[0 ≤ j < N] i[j]"


@given(expressions(2))
def test_names_in_scope_are_distinct_and_new(e: Expr) -> None:
    taken = taken_names([e], [], [])
    namer = Namer(Names(free="nk", axes={"A1": "k", "V": "i", "T_in": "is"}, bound="ns"), taken)
    for m in e.monomials:
        scope = namer.extend(namer.free([interval(0, 2)] * 2, [e]), m.binders, m.factors)
        assert len(set(scope)) == len(scope)
        assert not taken & set(scope)


def test_a_preferred_name_has_to_be_a_name() -> None:
    with pytest.raises(ValueError, match="name='2x'"):
        Names(axes={"X": ["2x"]})


# --- notation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_guards", "wanted"),
    [
        (inside(var(0) * S + var(1) * D - P, interval(0, N)), ["0 ≤ i s + j d - p < N"]),
        (inside(var(0), interval(-D, D + 1)), ["-d ≤ i ≤ d"]),
        ([at_least(N, 1), at_least(S, 1), at_least(P, 0)], ["N, s ≥ 1", "p ≥ 0"]),
        ([at_least(N + 2 * P - D * (K - 1) - 1, S * (M - 1))], ["s (M - 1) + d (k - 1) < N + 2 p"]),
        ([Zero(var(0) - var(1) * S + P)], ["i = j s - p"]),
        ([Divides(S, var(0) + P - var(1) * D)], ["s ∣ i + p - j d"]),
        ([at_least(5, var(0))], ["i ≤ 5"]),
        ([at_least(N, var(0) + 2)], ["i + 2 ≤ N"]),
        ([Zero(2 * N - 3)], ["2 N = 3"]),
    ],
)
def test_guards_read_as_a_reader_expects(given_guards: list[Guard], wanted: list[str]) -> None:
    assert Text().conditions(list(given_guards), ("i", "j")) == wanted


@given(st.lists(guards(2), max_size=4), st.integers(-2, 5), st.integers(-2, 5), st.integers(1, 4))
def test_conditions_say_what_the_guards_say(found: list[Guard], i: int, j: int, n: int) -> None:
    sizes = {"n": n, "k": 2, "s": 3}
    kept = [g for g in found if constant_truth(g) is None]
    shown = [_truth(c, {"i": i, "j": j, **sizes}) for c in Text(ascii_only=True).conditions(kept, ("i", "j"))]
    assert all(shown) == all(g.holds(sizes, (i, j)) for g in kept)


def _truth(condition: str, values: dict[str, int]) -> bool:
    """A printed condition, read as Python; several sides separated by commas all have to hold."""
    condition = condition.replace("floor(", "floor (").replace("^", "**")
    if " | " in condition:
        divisor, e = condition.split(" | ")
        return _value(e, values) % _value(divisor, values) == 0
    for operator in ("<=", ">=", "<", "="):
        condition = condition.replace(f" {operator} ", f" @{operator}@ ")
    sides = [part.strip() for part in condition.split("@")]
    numbers = [[_value(e, values) for e in side.split(", ")] for side in sides[::2]]
    compare = {
        "<=": lambda a, b: a <= b,
        ">=": lambda a, b: a >= b,
        "<": lambda a, b: a < b,
        "=": lambda a, b: a == b,
    }
    pairs = zip(numbers, sides[1::2], numbers[1:], strict=False)
    return all(compare[operator](a, b) for left, operator, right in pairs for a in left for b in right)


def _value(e: str, values: dict[str, int]) -> int:
    return int(eval(e.replace("/", "//"), {"floor": int}, values))  # printed by this test's own subject


def test_quotients_and_powers() -> None:
    x, y = X[var(0), 0], X[var(0), 1]
    e = term(1, Apply("exp", term(1, x)), Apply("recip", term(1, x) + term(1, y)), coefficient=Fraction(3, 2))
    assert text(e, ("i",)) == "3 exp(X[i, 0]) / (2 (X[i, 0] + X[i, 1]))"
    assert text(term(1, x, x, y), ("i",)) == "X[i, 0]² X[i, 1]"
    assert text(term(0) - term(0, Apply("sigmoid", term(0, U[0]))), ()) == "1 - σ(u[0])"


def test_the_same_in_latex() -> None:
    e = convolution()
    assert Latex(Namer(AXES)).expr(e, ("o", "i")) == (
        r"u[o] \, + \sum\limits_{c=0}^{C - 1} \sum\limits_{a=0}^{k - 1} \, W[o, c, a] \, X[c, i\,s + a\,d - p]"
    )


@given(expressions(2))
def test_every_formula_is_well_formed_mathml(e: Expr) -> None:
    notation = Html(Namer(AXES, taken_names([e], [], [])))
    for piece in notation.chunks(e, ("f", "g")):
        for display in (False, True):
            ET.fromstring(mathml(piece, display=display))


@given(expressions(2))
def test_brackets_are_balanced_and_every_notation_has_the_same_pieces(e: Expr) -> None:
    namer = Namer(AXES, taken_names([e], [], []))
    notations: list[Notation] = [Text(namer), Text(namer, ascii_only=True), Latex(namer)]
    pieces = [n.chunks(e, ("f", "g")) for n in notations]
    assert len({len(p) for p in pieces}) == 1
    for formula in (" ".join(p) for p in pieces):
        assert formula.count("(") == formula.count(")")
        assert formula.count("[") == formula.count("]")
        assert formula.count("{") == formula.count("}")
    assert " ".join(pieces[1]).isascii()


@given(expressions(2), st.integers(40, 90))
def test_filling_loses_nothing(e: Expr, width: int) -> None:
    pieces = Text(Namer(AXES, taken_names([e], [], []))).chunks(e, ("f", "g"))
    lines = fill(pieces, width, "    ")
    assert " ".join(line.strip() for line in lines) == " ".join(pieces)
