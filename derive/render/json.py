"""Derivations as JSON: the same bytes on every run, and everything that a separate checker needs to replay them.

An index is a list of ``[coefficient, [atoms]]``; an atom is a size's name, a variable's position, or
``{"floor": [numerator, denominator]}``.  A guard is ``{"ge0": e}``, ``{"eq0": e}`` or ``{"divides": [m, e]}``.
Tensors are read by key; ``definitions`` says for each key its name, box and body.  A step carries its rule, the rule's
arguments, where it applies and its result; the side conditions are listed for the reader, a checker rebuilds them.

Reading a file gives terms and a ``Record``, never a theorem.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from fractions import Fraction
from functools import lru_cache
from typing import Any, Protocol

from derive.indices import (
    Atom,
    Divides,
    Guard,
    Index,
    Interval,
    NonNegative,
    Quotient,
    Sym,
    Var,
    Zero,
    index,
    symbol,
    var,
)
from derive.terms import Apply, Derivative, Expr, Factor, Maximum, Monomial, Read, Tensor, expression

Json = Any


def dumps(value: Json) -> str:
    """Canonical text: keys sorted, no blanks, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def loads(text: str) -> Json:
    """The value again; text that is not JSON is a ValueError that says where."""
    return json.loads(text)


# --- indices and guards -------------------------------------------------------------------------------------------


def index_to_json(e: Index) -> Json:
    """An index as a list of terms."""
    return [[coefficient, [_atom_to_json(a) for a in product]] for product, coefficient in e.terms]


def _atom_to_json(atom: Atom) -> Json:
    if isinstance(atom, Sym):
        return atom.name
    if isinstance(atom, Var):
        return atom.level
    return {"floor": [index_to_json(atom.numerator), index_to_json(atom.denominator)]}


def index_from_json(data: Json) -> Index:
    """The index again."""
    total = index(0)
    for coefficient, product in data:
        value = index(coefficient)
        for atom in product:
            value = value * _atom_from_json(atom)
        total = total + value
    return total


def _atom_from_json(data: Json) -> Index:
    if isinstance(data, str):
        return symbol(data)
    if isinstance(data, int):
        return var(data)
    numerator, denominator = (index_from_json(part) for part in data["floor"])
    return Index((((Quotient(numerator, denominator),), 1),))


def guard_to_json(g: Guard) -> Json:
    """A guard by its kind."""
    if isinstance(g, Divides):
        return {"divides": [index_to_json(g.m), index_to_json(g.e)]}
    return {"ge0" if isinstance(g, NonNegative) else "eq0": index_to_json(g.e)}


def guard_from_json(data: Json) -> Guard:
    """The guard again."""
    ((kind, value),) = data.items()
    if kind == "divides":
        return Divides(index_from_json(value[0]), index_from_json(value[1]))
    if kind not in ("ge0", "eq0"):
        raise ValueError(f"guard={kind!r}: the kinds of guards are ge0, eq0 and divides")
    return NonNegative(index_from_json(value)) if kind == "ge0" else Zero(index_from_json(value))


def interval_to_json(bounds: Interval) -> Json:
    """An interval as a pair."""
    return [index_to_json(e) for e in bounds]


def interval_from_json(data: Json) -> Interval:
    """The interval again."""
    low, high = data
    return index_from_json(low), index_from_json(high)


# --- tensors and expressions --------------------------------------------------------------------------------------


class Definitions:
    """The tensors of a document by key: the name, or name and number where tensors of one name differ."""

    def __init__(self, by_key: Mapping[str, Tensor]) -> None:
        self.by_key = dict(by_key)
        self._keys = {t: key for key, t in self.by_key.items()}

    @staticmethod
    def of(sides: Iterable[Expr], tensors: Iterable[Tensor] = ()) -> Definitions:
        """Those that occur in these expressions, through all definitions."""
        found = {t for e in sides for outer in e.tensors for t in outer.reads_of_body}
        found |= {t for outer in tensors for t in outer.reads_of_body}
        by_name: dict[str, list[Tensor]] = {}
        for t in sorted(found, key=lambda t: t.name):
            by_name.setdefault(t.name, []).append(t)
        keys = {}
        for name, several in by_name.items():
            several.sort(key=_fingerprint)
            for k, t in enumerate(several):
                keys[name if len(several) == 1 else f"{name}#{k + 1}"] = t
        return Definitions(keys)

    def key(self, t: Tensor) -> str:
        """The key of a tensor."""
        return self._keys[t]

    def tensor(self, key: str) -> Tensor:
        """The tensor of a key."""
        if key not in self.by_key:
            raise ValueError(f"tensor={key!r}: the file does not define it; it defines {', '.join(self.by_key)}")
        return self.by_key[key]

    def to_json(self) -> Json:
        """The table."""
        return {key: tensor_to_json(t, self) for key, t in self.by_key.items()}

    @staticmethod
    def from_json(data: Json) -> Definitions:
        """The table again; a tensor is made after those its body reads."""
        made: dict[str, Tensor] = {}

        def make(key: str, above: tuple[str, ...]) -> None:
            if key in above or key not in data:
                raise ValueError(f"tensor={key!r}: not defined, or defined by way of itself")
            if key not in made:
                for inner in sorted(_keys_in(data[key]["body"])):
                    make(inner, (*above, key))
                made[key] = tensor_from_json(data[key], Definitions(made))

        for key in data:
            make(key, ())
        return Definitions(made)


@lru_cache(maxsize=20_000)
def _fingerprint(t: Tensor) -> str:
    """A text that tells apart tensors of one name: it spells every definition out."""
    alone = Definitions({_fingerprint(inner): inner for inner in t.body.tensors} if t.body else {})
    return hashlib.sha256(dumps(tensor_to_json(t, alone)).encode()).hexdigest()


def _keys_in(data: Json) -> set[str]:
    if isinstance(data, list):
        return {key for item in data for key in _keys_in(item)}
    if not isinstance(data, dict):
        return set()
    own = {data[k] for k in ("read", "by") if isinstance(data.get(k), str)}
    return own | {key for item in data.values() for key in _keys_in(item)}


def tensor_to_json(t: Tensor, definitions: Definitions) -> Json:
    """Name, box and body."""
    body = None if t.body is None else expr_to_json(t.body, definitions)
    return {"name": t.name, "box": [interval_to_json(b) for b in t.box], "body": body}


def tensor_from_json(data: Json, definitions: Definitions) -> Tensor:
    """The tensor again."""
    box = tuple(interval_from_json(b) for b in data["box"])
    body = None if data["body"] is None else expr_from_json(data["body"], definitions)
    return Tensor(data["name"], box, body)


def factor_to_json(f: Factor, definitions: Definitions) -> Json:
    """A factor by its kind."""
    if isinstance(f, Read):
        return {"read": definitions.key(f.tensor), "at": [index_to_json(e) for e in f.at]}
    if isinstance(f, Apply):
        return {"apply": f.function, "to": expr_to_json(f.argument, definitions)}
    if isinstance(f, Maximum):
        return {"maximum": expr_to_json(f.body, definitions), **_range_to_json(f.binders, f.guards)}
    at = [index_to_json(e) for e in f.at]
    return {"derivative": expr_to_json(f.expr, definitions), "by": definitions.key(f.tensor), "at": at}


def factor_from_json(data: Json, definitions: Definitions) -> Factor:
    """The factor again."""
    if "read" in data:
        return Read(definitions.tensor(data["read"]), tuple(index_from_json(e) for e in data["at"]))
    if "apply" in data:
        return Apply(data["apply"], expr_from_json(data["to"], definitions))
    if "maximum" in data:
        return Maximum(*_range_from_json(data), expr_from_json(data["maximum"], definitions))
    at = tuple(index_from_json(e) for e in data["at"])
    return Derivative(expr_from_json(data["derivative"], definitions), definitions.tensor(data["by"]), at)


def _range_to_json(binders: Sequence[Interval], guards: Sequence[Guard]) -> dict[str, Json]:
    return {
        "over": [interval_to_json(b) for b in binders],
        "guards": [guard_to_json(g) for g in guards],
    }


def _range_from_json(data: Json) -> tuple[tuple[Interval, ...], tuple[Guard, ...]]:
    return (
        tuple(interval_from_json(b) for b in data["over"]),
        tuple(guard_from_json(g) for g in data["guards"]),
    )


def expr_to_json(e: Expr, definitions: Definitions) -> Json:
    """An expression: its depth and its monomials."""
    monomials = [
        {
            "coefficient": str(m.coefficient),
            **_range_to_json(m.binders, m.guards),
            "factors": [factor_to_json(f, definitions) for f in m.factors],
        }
        for m in e.monomials
    ]
    return {"depth": e.depth, "monomials": monomials}


def expr_from_json(data: Json, definitions: Definitions) -> Expr:
    """The expression again, in canonical form."""
    monomials = [
        Monomial(
            Fraction(m["coefficient"]),
            *_range_from_json(m),
            tuple(factor_from_json(f, definitions) for f in m["factors"]),
        )
        for m in data["monomials"]
    ]
    return expression(data["depth"], monomials)


# --- statements ---------------------------------------------------------------------------------------------------


class Statement(Protocol):
    """What a theorem and a record of one both have."""

    @property
    def facts(self) -> tuple[Guard, ...]:
        """What is required of the sizes."""

    @property
    def binders(self) -> tuple[Interval, ...]:
        """The intervals of the free variables."""

    @property
    def lhs(self) -> Expr:
        """The left side."""

    @property
    def rhs(self) -> Expr:
        """The right side."""

    @property
    def theory(self) -> str:
        """The theory it holds in."""

    @property
    def conditions(self) -> tuple[str, ...]:
        """What is assumed of values."""


def statement_to_json(s: Statement, definitions: Definitions) -> Json:
    """Facts, intervals, both sides, theory and conditions on values."""
    return {
        "facts": [guard_to_json(g) for g in s.facts],
        "intervals": [interval_to_json(b) for b in s.binders],
        "lhs": expr_to_json(s.lhs, definitions),
        "rhs": expr_to_json(s.rhs, definitions),
        "theory": s.theory,
        "conditions": list(s.conditions),
    }


def statement_digest(s: Statement) -> str:
    """SHA-256 over the canonical JSON of the statement and its definitions: equal statements, equal digests."""
    definitions = Definitions.of([s.lhs, s.rhs])
    whole = {"definitions": definitions.to_json(), "statement": statement_to_json(s, definitions)}
    return hashlib.sha256(dumps(whole).encode()).hexdigest()


# --- arguments of rules -------------------------------------------------------------------------------------------

Writer = Callable[[Any, Definitions], Json]
_WRITE: dict[str, Writer] = {
    "int": lambda v, _: v,
    "str": lambda v, _: v,
    "Tensor": lambda v, d: d.key(v),
    "Index": lambda v, _: index_to_json(v),
    "Guard": lambda v, _: guard_to_json(v),
    "NonNegative": lambda v, _: guard_to_json(v),
    "Interval": lambda v, _: interval_to_json(v),
    "Factor": factor_to_json,
    "Fraction": lambda v, _: str(v),
}
_READ: dict[str, Writer] = {
    "int": lambda v, _: int(v),
    "str": lambda v, _: str(v),
    "Tensor": lambda v, d: d.tensor(v),
    "Index": lambda v, _: index_from_json(v),
    "Guard": lambda v, _: guard_from_json(v),
    "NonNegative": lambda v, _: guard_from_json(v),
    "Interval": lambda v, _: interval_from_json(v),
    "Factor": factor_from_json,
    "Fraction": lambda v, _: Fraction(v),
}


def _by_type(table: dict[str, Writer], kind: str, value: Any, definitions: Definitions) -> Any:
    if kind.startswith("tuple["):
        inner = kind.removeprefix("tuple[").removesuffix(", ...]")
        return [_by_type(table, inner, v, definitions) for v in value]
    if kind not in table:
        raise TypeError(f"a rule's argument of type {kind} cannot be written as JSON: add it to the table here")
    return table[kind](value, definitions)


def arguments_to_json(rule: Any, definitions: Definitions) -> Json:
    """The arguments of a rule, by the declared types of its fields."""
    return {f.name: _by_type(_WRITE, str(f.type), getattr(rule, f.name), definitions) for f in fields(rule)}


def arguments_from_json(rule: Any, data: Json, definitions: Definitions) -> dict[str, Any]:
    """The arguments of a rule of this class again."""
    read = {f.name: _by_type(_READ, str(f.type), data[f.name], definitions) for f in fields(rule)}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in read.items()}
