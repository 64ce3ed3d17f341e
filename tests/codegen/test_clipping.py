"""What is moved of an axis where an index leaves the stored cells: against a search through every value.

First the slices of a ``Clip`` by themselves, as text that is evaluated; then whole stages, printed by ``strided`` and
``scatter`` and executed, against the definition with a tensor that is zero outside its box.  Buffers that are made
without zeros are filled with NaN, so a cell that nobody writes shows.
"""

import itertools
import re
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegen.module import context, printed
from codegen.plan import BATCH, Plan, PlanError, Stage
from codegen.templates.numpy import buffers
from codegen.templates.numpy.clipping import Clip, clips_of, statements
from codegen.templates.numpy.scatter import meeting
from codegen.templates.numpy.scope import Scope
from derive.indices import equal, index, interval, var
from derive.terms import Tensor, define, tensor, term

Array = npt.NDArray[Any]
V, A, B = 0, 1, 2  # the vector variable, and two loops

# --- a clip by itself ---------------------------------------------------------------------------------------------


@st.composite
def clips(draw: st.DrawFn) -> tuple[Clip, Scope]:
    """A clip whose rest depends on two loops, and its scope."""
    length, cells, first = draw(st.integers(1, 6)), draw(st.integers(0, 7)), draw(st.integers(0, 3))
    step, turns = draw(st.integers(1, 4)), (draw(st.integers(1, 3)), draw(st.integers(1, 2)))
    slopes = draw(st.integers(-3, 3)), draw(st.integers(-2, 2))
    rest = var(A) * slopes[0] + var(B) * slopes[1] + draw(st.integers(-8, 8))
    scope = Scope(("v", "a", "b"), tuple(interval(0, n) for n in (length, *turns)), frozenset({A, B}))
    return Clip(V, step, rest, length, first, cells), scope


def turns_of(clip: Clip, scope: Scope) -> Iterator[tuple[dict[str, int], int, list[int]]]:
    """For each value of the loops: the values by letter, the value of ``rest``, and the values of v that are left."""
    ranges = [range(*(end.constant or 0 for end in scope.intervals[level])) for level in (A, B)]
    for a, b in itertools.product(*ranges):
        (rest,) = scope.written_out({A: a, B: b}).values(clip.rest)
        cells = range(clip.first, clip.first + clip.cells)
        yield {"a": a, "b": b}, rest, [v for v in range(clip.length) if clip.step * v + rest in cells]


def sliced(text: str, size: int, letters: dict[str, int]) -> list[int]:
    """The numbers of the cells of an axis that a slice takes."""
    return list(np.arange(size)[eval(f"np.s_[{text}]", {"np": np, **letters})])


@settings(max_examples=150)
@given(clips())
def test_a_span_is_what_a_search_finds(drawn: tuple[Clip, Scope]) -> None:
    clip, scope = drawn
    for _, rest, left in turns_of(clip, scope):
        assert list(range(*clip.span(rest))) == left


@settings(max_examples=150)
@given(clips(), st.integers(0, 3))
def test_slices_take_the_cells_that_are_left(drawn: tuple[Clip, Scope], after: int) -> None:
    """In a loop where something is left in every turn; written out wherever something is left."""
    clip, scope = drawn
    turns, stored = list(turns_of(clip, scope)), clip.first + clip.cells + after
    everywhere = all(left for _, _, left in turns)
    for letters, rest, left in turns:
        for here in [scope.written_out({A: letters["a"], B: letters["b"]}), *([scope] if everywhere else [])]:
            if left:
                assert sliced(clip.of_variable(here), clip.length, letters) == left
                assert sliced(clip.of_index(here), stored, letters) == [clip.step * v + rest for v in left]


@settings(max_examples=100)
@given(clips())
def test_statements_are_written_out_where_nothing_is_left_in_some_turn(drawn: tuple[Clip, Scope]) -> None:
    clip, scope = drawn
    turns = list(turns_of(clip, scope))
    printed = statements(
        scope, [A, B], {V: clip}, lambda here: [f"got.append(({here.text(var(A))}, {here.text(var(B))}))"]
    )
    got: list[tuple[int, int]] = []
    exec("\n".join(printed), {"got": got})
    if all(left for _, _, left in turns):
        assert [line.strip().split(" ")[0] for line in printed[:2]] == ["for", "for"]
        assert got == [(letters["a"], letters["b"]) for letters, _, _ in turns]
    else:
        assert not any("for" in line for line in printed)
        assert got == [(letters["a"], letters["b"]) for letters, _, left in turns if left]


def test_ends_that_no_loop_moves_are_numbers() -> None:
    scope = Scope(("v", "a"), (interval(0, 5), interval(0, 3)), frozenset({A}))
    clip = Clip(V, 1, var(A) - 1, 5, 0, 5)
    assert clip.of_variable(scope) == "max(0, -a + 1):min(5, -a + 6)"
    assert clip.of_index(scope) == "max(0, a - 1):min(5, a + 4)"
    fixed = scope.written_out({A: 0})
    assert (clip.of_variable(fixed), clip.of_index(fixed)) == ("1:5", "0:4")


# --- which variables are clipped ----------------------------------------------------------------------------------


def nothing(*inputs: Tensor) -> Plan:
    return Plan("test", inputs, (), {})


def test_what_stays_inside_is_not_clipped() -> None:
    x, scope = tensor("X", 7), Scope(("v", "a"), (interval(0, 3), interval(0, 3)), frozenset({A}))
    assert clips_of(nothing(x), x, [2 * var(V) + var(A)], scope) == {}
    assert set(clips_of(nothing(x), x, [2 * var(V) + var(A) + 1], scope)) == {V}


def test_a_variable_that_two_axes_would_clip_is_refused() -> None:
    x, scope = tensor("X", 3, 3), Scope(("v",), (interval(0, 4),), frozenset())
    with pytest.raises(PlanError, match="X: v would be clipped by two axes; make it a loop"):
        clips_of(nothing(x), x, [var(V), var(V) - 1], scope)


# --- stages -------------------------------------------------------------------------------------------------------


def computed(plan: Plan, name: str, images: int = 1, **inputs: Array) -> Array:
    """A stage of a plan, by its printed text on fresh buffers; what is not made of zeros is NaN."""
    plan.check()
    ctx = context(plan, {t.name: t.name for t in plan.inputs})
    text, made = printed(ctx, plan.stages), buffers(ctx, plan)
    work, block = SimpleNamespace(), SimpleNamespace()
    poisoned = SimpleNamespace(zeros=np.zeros, empty=lambda shape, dtype: np.full(shape, np.nan, dtype))
    for owner, holder in (("w", work), ("v", block)):
        exec("\n".join(made[owner]), {"self": holder, "np": poisoned, "dtype": np.float64, "b": images})
    arrays = {name: eval(where, {"w": work, "v": block}) for name, where in ctx.arrays.items() if "." in where}
    names = {"np": np, "w": work, "v": block, **inputs}
    exec("\n".join(text), names)
    once = arrays[name].copy()
    exec("\n".join(text), names)
    np.testing.assert_array_equal(arrays[name], once)  # the buffers may have been used before
    return once


SIDES = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(-2, 5), st.integers(1, 5))


@settings(max_examples=80)
@given(st.lists(SIDES, min_size=1, max_size=2), st.lists(st.integers(1, 6), min_size=2, max_size=2), st.booleans())
def test_windows_beyond_an_image_are_zeros(
    sides: list[tuple[int, int, int, int, int]], sizes: list[int], looped: bool
) -> None:
    """``Col[a,i] = X[i s + a d - p]`` on one or two axes, whatever lies outside."""
    n = len(sides)
    x = tensor("X", *sizes[:n])
    box = [*(k for k, *_ in sides), *(o for *_, o in sides)]
    cells = [var(n + axis) * s + var(axis) * d - p for axis, (_, s, d, p, _) in enumerate(sides)]
    letters = " ".join([f"a{k}" for k in range(n)] + [f"i{k}" for k in range(n)])
    body = term(2 * n, x[tuple(cells)])
    if not looped:  # the kernel cells summed up: a sum of slabs
        box = box[n:]
        cells = [var(axis) * s + var(n + axis) * d - p for axis, (_, s, d, p, _) in enumerate(sides)]
        letters = " ".join([f"i{k}" for k in range(n)] + [f"a{k}" for k in range(n)])
        body = term(n, x[tuple(cells)], over=[interval(0, k) for k, *_ in sides])
    stage = Stage(define("Col", box, body), "strided", letters, tuple(f"a{k}" for k in range(n)))
    data = np.random.default_rng(0).integers(1, 99, x_shape(x)).astype(np.float64)
    found = computed(Plan("test", (x,), (stage,), {"out": "Col"}), "Col", X=data)
    wanted = np.zeros([k for k, *_ in sides] + [o for *_, o in sides])
    for at in np.ndindex(*wanted.shape):
        h = [i * s + a * d - p for a, i, (_, s, d, p, _) in zip(at[:n], at[n:], sides, strict=True)]
        if all(0 <= cell < size for cell, size in zip(h, sizes, strict=False)):
            wanted[at] = data[tuple(h)]
    np.testing.assert_array_equal(found, wanted if looped else wanted.sum(axis=tuple(range(n))))


@settings(max_examples=80)
@given(st.lists(SIDES, min_size=1, max_size=2), st.lists(st.integers(1, 6), min_size=2, max_size=2), st.integers(0, 2))
def test_what_is_added_beyond_an_image_is_left_out(
    sides: list[tuple[int, int, int, int, int]], sizes: list[int], margin: int
) -> None:
    """``D[h] = Sum_{a,i} [h == i s + a d - p] S[a,i]``, with a margin that takes some of it, or none."""
    n = len(sides)
    s_ = tensor("S", *(k for k, *_ in sides), *(o for *_, o in sides))
    guards = [
        equal(var(axis), var(2 * n + axis) * s + var(n + axis) * d - p) for axis, (_, s, d, p, _) in enumerate(sides)
    ]
    body = term(n, s_[tuple(var(k) for k in range(n, 3 * n))], over=s_.box, guards=guards)
    letters = " ".join(f"{name}{k}" for name in "hai" for k in range(n))
    edge = (index(margin), index(margin))
    loops = tuple(f"a{k}" for k in range(n))
    stage = Stage(define("D", sizes[:n], body), "scatter", letters, loops, margin=(edge,) * n)
    data = np.random.default_rng(0).integers(1, 99, x_shape(s_)).astype(np.float64)
    whole = computed(Plan("test", (s_,), (stage,), {"out": "D"}), "D", S=data)
    inner = whole[(slice(margin, -margin or None),) * n]
    wanted = np.zeros(sizes[:n])
    for at in np.ndindex(*data.shape):
        h = [i * s + a * d - p for a, i, (_, s, d, p, _) in zip(at[:n], at[n:], sides, strict=True)]
        if all(0 <= cell < size for cell, size in zip(h, sizes, strict=False)):
            wanted[tuple(h)] += data[at]
    np.testing.assert_array_equal(inner, wanted)


def x_shape(t: Tensor) -> list[int]:
    return [(hi - lo).constant or 0 for lo, hi in t.box]


@settings(max_examples=60)
@given(
    tile=st.integers(2, 4), tiles=st.integers(1, 3), short=st.integers(-1, 4), bias=st.booleans(),
    images=st.integers(0, 3),
)  # fmt: skip
def test_tiles_put_together_leave_out_what_lies_beyond(
    tile: int, tiles: int, short: int, bias: bool, images: int
) -> None:
    """``Z[b,h] = Sum_{r,j} [h == t j + r] T[r,j,b] + u[b]`` where the last tile is cut short, or one is missing."""
    size = max(1, tile * tiles - short)
    t, u = tensor("T", tile, tiles, BATCH), tensor("u", BATCH)
    b, h, r, j = (var(k) for k in range(4))
    body = term(2, t[r, j, b], over=t.box[:2], guards=[equal(h, tile * j + r)])
    stage = Stage(define("Z", [BATCH, size], body + term(2, u[b]) if bias else body), "scatter", "b h r j", ("r",))
    inputs = (t, u) if bias else (t,)
    plan = Plan("test", inputs, (stage,), {"other": "Z"})
    rng = np.random.default_rng(0)
    data, more = rng.integers(1, 99, (tile, tiles, images)) * 1.0, rng.integers(1, 99, images) * 1.0
    if size > tile * tiles and bias:
        with pytest.raises(PlanError, match=r"Z: u\[\$0\] is added where slices cover every cell once"):
            placed(plan, images, T=data, u=more)
        return
    found = placed(plan, images, T=data, **({"u": more} if bias else {}))
    put = data.transpose(2, 1, 0).reshape(images, tile * tiles)
    wanted = np.zeros((images, size))
    wanted[:, : tile * tiles] = put[:, :size]
    np.testing.assert_array_equal(found, wanted + (more[:, None] if bias else 0))


def placed(plan: Plan, images: int, **inputs: Array) -> Array:
    """An output that is formed where the result lies, by its printed text."""
    ctx = context(plan.check(), {t.name: t.name for t in plan.inputs})
    size = x_shape(plan.stages[-1].tensor)[-1]
    result = np.full((images, size), np.nan)
    exec("\n".join(printed(ctx, plan.stages)), {"np": np, "Z": result, **inputs})
    return result


# --- cells that are never written ---------------------------------------------------------------------------------

X = tensor("X", 6)


def shifted(name: str = "C", size: int = 6, **more: Any) -> Stage:
    """``C[h] = X[h + 1]``, whose last cell lies outside X."""
    return Stage(define(name, [size], term(1, X[var(0) + 1])), "strided", "h", **more)


def test_the_buffer_of_a_clipped_stage_is_made_of_zeros() -> None:
    plan = Plan("test", (X,), (shifted(),), {"out": "C"})
    ctx = context(plan.check(), {"X": "X"})
    assert printed(ctx, plan.stages)[-1] == "np.copyto(w.C[0:5], X[1:6])"
    assert buffers(ctx, plan)["w"] == ["self.C = np.zeros((6,), dtype)"]
    inside = Plan("test", (X,), (shifted(size=5),), {"out": "C"})
    ctx = context(inside.check(), {"X": "X"})
    printed(ctx, inside.stages)
    assert buffers(ctx, inside)["w"] == ["self.C = np.empty((5,), dtype)"]


def pointwise(name: str, read: Stage, into: str) -> Stage:
    return Stage(define(name, [6], term(1, read.tensor[var(0)])), "pointwise", "h", into=into)


def image() -> Stage:
    return Stage(define("A", [6], term(1, X[var(0)])), "strided", "h")


XB = tensor("X", BATCH, 6)
SHARED: list[tuple[str, Callable[[], Plan], str]] = [
    (
        "taken over by another stage",
        lambda: Plan("test", (X,), (shifted(), pointwise("D", shifted(), "C")), {"out": "D"}),
        "C: cells that are never written have to stay zero, but its buffer is shared with D",
    ),
    (
        "takes another one over",
        lambda: Plan("test", (X,), (image(), shifted(into="A")), {"out": "C"}),
        "C: cells that are never written have to stay zero, but its buffer is shared with C",
    ),
    (
        "lies in the result",
        lambda: Plan(
            "test",
            (XB,),
            (Stage(define("C", [BATCH, 6], term(2, XB[var(0), var(1) + 1])), "strided", "b h"),),
            {"out": "C"},
        ),
        "C: cells that are never written have to stay zero, but its buffer is shared with the result",
    ),
]


@pytest.mark.parametrize(("make", "message"), [case[1:] for case in SHARED], ids=[case[0] for case in SHARED])
def test_a_clipped_stage_shares_its_buffer_with_nothing(make: Callable[[], Plan], message: str) -> None:
    plan = make().check()
    with pytest.raises(PlanError, match=re.escape(message)):
        printed(context(plan, {t.name: t.name for t in plan.inputs}), plan.stages)


@given(
    size=st.integers(1, 14), step=st.integers(1, 5), slope=st.integers(0, 6), before=st.integers(-2, 4),
    slots=st.integers(1, 6), turns=st.integers(1, 5),
)  # fmt: skip
def test_how_often_slices_meet_a_cell(size: int, step: int, slope: int, before: int, slots: int, turns: int) -> None:
    """``D[b,h] = Sum_{r,q} [h == s q + r d - p] S[b,r,q]``, counted one by one."""
    s = tensor("S", BATCH, turns, slots)
    guard = equal(var(1), step * var(3) + slope * var(2) - before)
    body = term(2, s[var(0), var(2), var(3)], over=s.box[1:], guards=[guard])
    stage = Stage(define("D", [BATCH, size], body), "scatter", "b h r q", ("r",))
    cells = [step * q + slope * r - before for r in range(turns) for q in range(slots)]
    times = [cells.count(h) for h in range(size)]
    wanted = "often" if max(times) > 1 else "once" if min(times) == 1 else "at most once"
    assert meeting(stage) == (wanted if slope else "often")  # what r does not move is summed over it
