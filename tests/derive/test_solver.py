"""The bridge to Z3 is asked what brute force can answer, and what it cannot, and must never say too much.

*Proved* may be said only where no numbers are a counterexample; *refuted* only with numbers that are one; *unknown* is
neither.  A floor or a divisibility whose divisor may be below one has no meaning, so nothing follows from it.
"""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from derive import solver
from derive.indices import (
    Divides,
    Guard,
    NonNegative,
    Quotient,
    Zero,
    at_least,
    equal,
    index,
    inside,
    interval,
    symbol,
    symbols,
    var,
)
from derive.obligations import Ledger, Refused
from derive.solver import FALSE, Question, ask, first_failure, question, smtlib

n, m, s, d, k = symbols("n m s d k")
i, j = var(0), var(1)


def status(hypotheses, goal, *rlimit):
    return ask(question(hypotheses, goal), *rlimit).status


def assignments(names, values):
    """Every way to give these values to these names; a name such as $0 is a variable."""
    for numbers in product(values, repeat=len(names)):
        yield dict(zip(names, numbers, strict=True))


def holds(g: Guard, numbers) -> bool:
    """Whether a guard is true of the numbers; one without a meaning there is not."""
    variables = tuple(numbers.get(f"${level}", 0) for level in range(4))
    try:
        return g.holds(numbers, variables)
    except ValueError:
        return False


def is_counterexample(q: Question, numbers) -> bool:
    return all(holds(h, numbers) for h in q.hypotheses) and not holds(q.goal, numbers)


# --- against brute force ------------------------------------------------------------------------------------------

ATOMS = (n, s, i)


@st.composite
def small_indices(draw, depth=1):
    total = index(draw(st.integers(-3, 3)))
    for atom in ATOMS:
        total = total + atom * draw(st.sampled_from([0, 0, 1, -1, 2]))
    if depth and draw(st.booleans()):
        divisor = draw(st.sampled_from([index(2), index(3), s, s + 1, n]))
        total = total + (draw(small_indices(0)) // divisor) * draw(st.sampled_from([1, -1]))
    if draw(st.integers(0, 3)) == 0:
        total = total + i * s
    return total


@st.composite
def small_guards(draw):
    e = draw(small_indices())
    kind = draw(st.integers(0, 4))
    if kind == 0:
        return Zero(e)
    return Divides(draw(st.sampled_from([index(2), s, n])), e) if kind == 1 else NonNegative(e)


@st.composite
def questions(draw):
    bounds = draw(st.sampled_from([[], [at_least(s, 1)], [at_least(s, 1), at_least(n, 1), *inside(i, interval(0, n))]]))
    return question([*bounds, *draw(st.lists(small_guards(), max_size=2))], draw(small_guards()))


@given(questions())
@settings(max_examples=150)
def test_answers_agree_with_brute_force(q):
    answer = ask(q, 300_000)
    names = ("n", "s", "$0")
    if answer.status == "proved":
        wrong = [a for a in assignments(names, range(-3, 5)) if is_counterexample(q, a)]
        assert not wrong, f"{q.text} is false at {wrong[0]}"
    elif answer.status == "refuted":
        model = dict.fromkeys(names, 0) | dict(answer.model)
        assert is_counterexample(q, model), f"{q.text}: {model} is no counterexample"


@given(questions())
@settings(max_examples=40)
def test_a_question_asked_twice_is_not_answered_both_ways(q):
    """The order of hypotheses is no part of a question; near the bound an answer may be lost, never turned round."""
    again = question(reversed(q.hypotheses), q.goal)
    assert again == q
    assert {solver._ask_z3(q, 300_000).status, solver._ask_z3(again, 300_000).status} != {"proved", "refuted"}


# --- what it says -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hypotheses", "goal"),
    [
        ([at_least(n, 3)], at_least(n, 2)),
        ([at_least(s, 1)], at_least((n // s) * s + s - 1, n)),
        ([at_least(s, 1), at_least(i, 0)], at_least((i * s) // s, i)),
        ([at_least(s, 1), Divides(s, n)], equal((n // s) * s, n)),
        ([Divides(index(2), n), Divides(index(3), n)], Divides(index(6), n)),
        ([at_least(s, 1), at_least(n, 1)], at_least(n * s, s)),
        ([at_least(n, 1), at_least(-n, 0)], FALSE),
        ([NonNegative(index(-1))], equal(n, m)),
        ([at_least(n // s, 3)], at_least(n // s, 3)),
    ],
)
def test_what_follows_is_proved(hypotheses, goal):
    assert status(hypotheses, goal) == "proved"


@pytest.mark.parametrize(
    ("hypotheses", "goal"),
    [
        ([], at_least(n * n, 2 * n)),
        ([at_least(n, 0)], at_least(n, 1)),
        ([at_least(s, 1)], equal((n // s) * s, n)),
        ([at_least(s, 2), at_least(n, 0)], at_least(n // s, 1)),
        ([Divides(index(2), n)], Divides(index(4), n)),
        ([at_least(n, 0), at_least(m, 0)], FALSE),
        ([*inside(i, interval(0, n))], at_least(n - 2, i)),
    ],
)
def test_what_does_not_follow_is_refuted_with_numbers(hypotheses, goal):
    q = question(hypotheses, goal)
    answer = ask(q)
    assert answer.status == "refuted"
    numbers = dict.fromkeys((*"nmsdk", "$0", "$1"), 0) | dict(answer.model)
    assert is_counterexample(q, numbers)


def test_floor_is_not_truncation():
    """-7 // 2 is -4; Z3's own division rounds differently for negative divisors, which never reach it."""
    assert status([equal(n, -7)], equal(n // 2, -4)) == "proved"
    assert status([equal(n, -7)], equal(n // 2, -3)) == "refuted"
    assert status([equal(n, -7), equal(s, 2)], equal(n // s, -4)) == "proved"
    assert status([equal(n, 7), equal(s, -2)], equal(n // s, -3)) == "unknown"
    assert status([equal(n, 7), equal(s, -2)], equal(n // s, -4)) == "unknown"


@pytest.mark.parametrize(
    "goal",
    [
        at_least((n // s) * s + s - 1, n),
        equal(n // s, n // s + 1),
        Divides(s, index(0)),
        Divides(s, s),
        at_least(n // s - n // s, -1),
        at_least(n // (s // d), 0),
        FALSE,
    ],
)
@pytest.mark.parametrize("known", [[], [at_least(s, 0)], [at_least(-s, 1)], [at_least(s * s, 1)], [at_least(n, 1)]])
def test_a_divisor_that_may_be_below_one_proves_nothing(goal, known):
    """Asserting Euclid's division there would be a contradiction, from which everything follows."""
    tainted = [*known, at_least(n // s, 0), Divides(s, n)]
    if goal.e.constant != 0 and goal.indices()[-1].constant != 1:
        assert status(tainted, goal) == "unknown"
    assert status(tainted, equal(m, 1)) == "unknown"
    assert status(tainted, FALSE) == "unknown"


def test_a_division_does_not_vouch_for_its_own_divisor():
    """The hypothesis ``(n // s) s <= n`` would give s >= 1 if Euclid's axioms were assumed before it is known."""
    circular = [at_least(n - (n // s) * s, 0), at_least(n // s, n), at_least(s // s, 1)]
    assert status(circular, at_least(s, 1)) == "unknown"
    nested = n // (s // d)
    assert status([at_least(s // d, 1)], at_least(nested * (s // d), n - s // d + 1)) == "unknown"
    assert status([at_least(d, 1), at_least(s, d)], at_least(nested * (s // d), n - s // d + 1)) == "proved"


# --- unknown is not a proof ---------------------------------------------------------------------------------------

HARD = question([at_least(n, 1), at_least(m, 1), at_least(k, 1)], NonNegative(n * n * n + m * m * m - k * k * k - 1))
TRUE_BUT_LONG = question(
    [at_least(s, 1), at_least(d, 1), *inside(i, interval(0, n)), *inside(j, interval(0, m))],
    at_least(((i * s + j * d) // s) * s + s - 1, i * s + j * d),
)


def test_a_tiny_rlimit_gives_unknown():
    answer = ask(TRUE_BUT_LONG, 1)
    assert answer.status == "unknown"
    assert "rlimit 1" in answer.method
    assert answer.model == ()
    assert ask(TRUE_BUT_LONG).status == "proved"


def test_an_rlimit_has_to_be_a_bound():
    """Z3 takes 0 for *no bound*."""
    with pytest.raises(ValueError, match="rlimit=0"):
        ask(TRUE_BUT_LONG, 0)


def test_unknown_refuses(monkeypatch):
    """Whatever is asked for is refused when Z3 gives up, and nothing is recorded as discharged."""
    monkeypatch.setattr(solver._Encoding, "solver", lambda self, rlimit, products: _GivesUp())
    ask.cache_clear()
    try:
        ledger = Ledger()
        assert not ledger.holds([at_least(n, 3)], at_least(n, 2))
        with pytest.raises(Refused, match="gave up"):
            ledger.require([at_least(n, 3)], [at_least(n, 2)], "a condition")
        assert ledger.obligations == []
    finally:
        ask.cache_clear()


class _GivesUp:
    def check(self):
        return "unknown"


def test_a_false_statement_is_never_proved_for_lack_of_time():
    assert {solver._ask_z3(HARD, 50_000).status for _ in range(3)} <= {"unknown", "refuted"}


# --- form of questions and answers --------------------------------------------------------------------------------


def test_questions_are_canonical():
    a, b = at_least(n, 1), at_least(m, 2)
    assert question([a, b, a], FALSE) == question([b, a], FALSE)
    assert question([NonNegative(index(3))], a).hypotheses == ()
    assert question([a], b).text == "n-1>=0 => m-2>=0"
    assert question([], b).text == "true => m-2>=0"


def test_a_variable_and_a_symbol_are_two_things():
    """No name that a user can choose is a variable's, or one of the solver's own."""
    for name in ("_0", "v0", "quotient0", "remainder0"):
        assert status([equal(symbol(name), 1)], equal(i, 1)) == "refuted"
    assert status([equal(symbol("quotient"), 5), at_least(s, 1)], equal(n // s, 5)) == "refuted"


def test_smtlib_asks_for_unsat():
    text = smtlib(question([at_least(s, 1)], at_least((n // s) * s, n - s + 1)))
    assert "(declare-fun n () Int)" in text
    assert "(check-sat)" in text
    assert "quotient!0" in text


def test_first_failure_names_the_goal():
    goals = [at_least(n, 1), at_least(n, 5), at_least(n, 9)]
    goal, answer = first_failure([at_least(n, 3)], goals)
    assert goal == goals[1]
    assert answer.status == "refuted"
    assert first_failure([at_least(n, 9)], goals) is None


def test_nested_floors_are_one_division_each():
    e = (n // 2) // 3
    assert isinstance(next(e.atoms()), Quotient)
    assert status([], equal(e, n // 6)) == "proved"
    assert status([at_least(s, 1), at_least(d, 1)], equal((n // s) // d, n // (s * d))) in ("proved", "unknown")
