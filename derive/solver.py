"""The bridge to Z3: does this guard follow from those guards, for all integers?

A ``Question`` is universally quantified over every size symbol and variable in it.  The answer is *proved*,
*refuted* (with numbers that show it) or *unknown*; unknown is not a proof, and nothing here turns it into one.
The search is bounded by Z3's own resource count (``rlimit``), never by seconds, so that the same question has the
same answer on a slow machine.

Floor division and divisibility reach Z3 as Euclid's division: ``e // m`` becomes q with ``e == m*q + r`` and
``0 <= r < m``.  That axiom is contradictory for ``m < 1``, so it is asserted only after ``m >= 1`` has itself been
proved from the hypotheses.  Z3 is imported here only, and only when the first question is asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Literal

from derive.indices import Divides, Guard, Index, NonNegative, Quotient, Sym, Var, Zero, constant_truth, index

DEFAULT_RLIMIT = 20_000_000
_QUICK_RLIMIT = 400_000
FALSE: Guard = NonNegative(index(-1))

Status = Literal["proved", "refuted", "unknown"]


@dataclass(frozen=True)
class Question:
    """Do the hypotheses imply the goal, for all integers?  ``goal=FALSE`` asks whether they contradict each other."""

    hypotheses: tuple[Guard, ...]
    goal: Guard

    @cached_property
    def text(self) -> str:
        """Canonical text."""
        return f"{' & '.join(h.text for h in self.hypotheses) or 'true'} => {self.goal.text}"


@dataclass(frozen=True)
class Answer:
    """What became of a question, by which method, and the counterexample where there is one."""

    status: Status
    method: str
    model: tuple[tuple[str, int], ...] = ()


def question(hypotheses: Iterable[Guard], goal: Guard) -> Question:
    """A question in canonical form: hypotheses sorted, without repetitions and plainly true ones."""
    kept = {h.text: h for h in hypotheses if constant_truth(h) is not True}
    return Question(tuple(kept[text] for text in sorted(kept)), goal)


@lru_cache(maxsize=20_000)
def ask(q: Question, rlimit: int = DEFAULT_RLIMIT) -> Answer:
    """Decide a question, first by looking, then by Z3.

    >>> from derive.indices import symbol, at_least
    >>> n = symbol("n")
    >>> ask(question([at_least(n, 3)], at_least(n, 2))).status
    'proved'
    >>> ask(question([at_least(n, 1)], at_least(n, 2))).model
    (('n', 1),)
    """
    if rlimit < 1:  # Z3 reads 0 as "without bound"
        raise ValueError(f"rlimit={rlimit}: at least 1")
    if constant_truth(q.goal) is True or q.goal in q.hypotheses:
        return Answer("proved", "by inspection")
    if any(constant_truth(h) is False for h in q.hypotheses):
        return Answer("proved", "by inspection")
    return _ask_z3(q, rlimit)


def smtlib(q: Question) -> str:
    """The question as an SMT-LIB script; ``unsat`` is the answer that proves it."""
    encoding = _Encoding(q)
    return str(encoding.solver(DEFAULT_RLIMIT, products=False).to_smt2())


@lru_cache(maxsize=20_000)
def ask_near(q: Question, rlimit: int = DEFAULT_RLIMIT) -> Answer:
    """Decide a question from the hypotheses that have to do with its goal: proved, or unknown.

    What follows from some hypotheses follows from all.  A goal that does not follow from those near it is given up
    here at once, which is quick where it is no loss not to know.
    """
    near = relevant(q)
    if len(near.hypotheses) == len(q.hypotheses):
        return ask(q, rlimit)
    if constant_truth(q.goal) is True or q.goal in q.hypotheses:
        return Answer("proved", "by inspection")
    outcome = _quickly(near, rlimit)
    if outcome == "unknown":
        return ask(q, rlimit)
    return Answer("proved", "Z3") if outcome == "unsat" else Answer("unknown", "not from the hypotheses near the goal")


def _ask_z3(q: Question, rlimit: int) -> Answer:
    """First from the hypotheses that have to do with the goal, then from all: quick, with product lemmas, long."""
    near = relevant(q)
    if len(near.hypotheses) < len(q.hypotheses) and _quickly(near, rlimit) == "unsat":
        return Answer("proved", "Z3")
    encoding = _Encoding(q)
    if not encoding.divisors_positive(rlimit):
        return Answer("unknown", "a divisor was not proved to be at least 1")
    for limit, products in ((min(_QUICK_RLIMIT, rlimit), False), (rlimit, True), (rlimit, False)):
        solver = encoding.solver(limit, products)
        outcome = str(solver.check())
        if outcome == "unsat":
            return Answer("proved", "Z3")
        if outcome == "sat":
            return Answer("refuted", "Z3", encoding.model(solver.model()))
    return Answer("unknown", f"Z3 gave up within rlimit {rlimit}")


@lru_cache(maxsize=20_000)
def _quickly(q: Question, rlimit: int) -> str:
    """Z3's word after a short search."""
    encoding = _Encoding(q)
    limit = min(_QUICK_RLIMIT, rlimit)
    return str(encoding.solver(limit, products=False).check()) if encoding.divisors_positive(limit) else "unknown"


def relevant(q: Question) -> Question:
    """The question with the hypotheses that share a variable with the goal, and those that share a symbol with them."""
    wanted = _mentioned(q.goal)
    with_variables = [h for h in q.hypotheses if _mentioned(h) & {a for a in wanted if isinstance(a, int)}]
    reached = wanted.union(*(_mentioned(h) for h in with_variables))
    return Question(tuple(h for h in q.hypotheses if _mentioned(h) & reached), q.goal)


@lru_cache(maxsize=20_000)
def _mentioned(g: Guard) -> frozenset[str | int]:
    """The names of symbols and the levels of variables in a guard."""
    return frozenset[str | int]().union(*(e.symbols for e in g.indices()), *(e.variables for e in g.indices()))


@dataclass
class _Encoding:
    """One question in Z3's terms."""

    q: Question
    _divisions: dict[tuple[Index, Index], tuple[Any, Any]] = field(default_factory=dict)
    _names: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        import z3

        self.z3 = z3
        self.hypotheses = [self._guard(h) for h in self.q.hypotheses]
        self.goal = self._guard(self.q.goal)

    def _integer(self, name: str) -> Any:
        return self._names.setdefault(name, self.z3.Int(name))

    def _index(self, e: Index) -> Any:
        total: Any = self.z3.IntVal(0)
        for product, coefficient in e.terms:
            value: Any = self.z3.IntVal(coefficient)
            for atom in product:
                if isinstance(atom, Sym):
                    value = value * self._integer(atom.name)
                elif isinstance(atom, Var):
                    value = value * self._integer(atom.text)
                else:
                    value = value * self._division(atom.numerator, atom.denominator)[0]
            total = total + value
        return self.z3.simplify(total)

    def _division(self, numerator: Index, denominator: Index) -> tuple[Any, Any]:
        """Quotient and remainder, one fresh pair for each distinct division."""
        key = (numerator, denominator)
        if key not in self._divisions:
            self._index(numerator), self._index(denominator)
            k = len(self._divisions)
            self._divisions[key] = (self.z3.Int(f"quotient!{k}"), self.z3.Int(f"remainder!{k}"))
        return self._divisions[key]

    def _guard(self, g: Guard) -> Any:
        if isinstance(g, NonNegative):
            return self._index(g.e) >= 0
        if isinstance(g, Zero):
            return self._index(g.e) == 0
        return self._division(g.e, g.m)[1] == 0

    def divisors_positive(self, rlimit: int) -> bool:
        """Whether every divisor is at least one by the hypotheses that hold no division themselves."""
        plain = tuple(h for h in self.q.hypotheses if not _has_division(h))
        divisors = sorted({m for _, m in self._divisions}, key=lambda m: m.text)
        for m in divisors:
            goal = NonNegative(m - 1)
            if constant_truth(goal) is not True and ask(Question(plain, goal), rlimit).status != "proved":
                return False
        return True

    def solver(self, rlimit: int, products: bool) -> Any:
        """A solver that holds the hypotheses and the negated goal."""
        z3 = self.z3
        solver = z3.Solver()
        solver.set("rlimit", rlimit)
        solver.set("random_seed", 0)
        for (numerator, denominator), (quotient, remainder) in self._divisions.items():
            m = self._index(denominator)
            solver.add(self._index(numerator) == m * quotient + remainder, remainder >= 0, remainder < m)
        solver.add(*self.hypotheses)
        if products:
            solver.add(*self._products())
        solver.add(z3.Not(self.goal))
        return solver

    def _products(self) -> list[Any]:
        """Consequences Z3 seldom finds alone: a hypothesis times one of the factors that occur in products."""
        bounds = [h.e for h in self.q.hypotheses if isinstance(h, NonNegative)]
        if isinstance(self.q.goal, NonNegative):
            bounds.append(-self.q.goal.e - 1)
        multipliers = [e for e in bounds if len(e.terms) <= 2 and _degree(e) == 1]
        lemmas = [self._index(a * b) >= 0 for a in multipliers for b in bounds if _degree(b) <= 2]
        for (numerator, denominator), (quotient, _) in self._divisions.items():
            m = self._index(denominator)
            for t in (self._index(e) for e in bounds if _degree(e) == 1 and e != numerator):
                lemmas.append(self.z3.Implies(quotient >= t, m * quotient >= m * t))
                lemmas.append(self.z3.Implies(quotient <= t, m * quotient <= m * t))
        return lemmas

    def model(self, found: Any) -> tuple[tuple[str, int], ...]:
        """The numbers of a counterexample, for symbols and variables."""
        values = {name: found.eval(term, model_completion=True).as_long() for name, term in self._names.items()}
        return tuple(sorted(values.items()))


def _has_division(g: Guard) -> bool:
    return isinstance(g, Divides) or any(isinstance(a, Quotient) for e in g.indices() for a in e.atoms())


def _degree(e: Index) -> int:
    return max((len(product) for product, _ in e.terms), default=0)


def first_failure(hypotheses: Sequence[Guard], goals: Iterable[Guard]) -> tuple[Guard, Answer] | None:
    """The first goal that is not proved, with its answer; None when all are."""
    for goal in goals:
        answer = ask(question(hypotheses, goal))
        if answer.status != "proved":
            return goal, answer
    return None
