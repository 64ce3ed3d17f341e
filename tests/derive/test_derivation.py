"""Derivations: what a reader sees is what the kernel did, on every run; a file of one is no theorem."""

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from derive import kernel, tactics
from derive.derivation import Derivation, Note
from derive.indices import at_least, interval, symbols, variables
from derive.kernel import Theorem, vector_jacobian
from derive.render.document import document_from_json, document_to_json
from derive.render.json import dumps, loads, statement_digest
from derive.render.names import Names
from derive.render.text import Text
from derive.rules import Cancel, Case, Reindex, RewriteIndex, Sigmoid
from derive.terms import Apply, Tensor, define, tensor, term

C, M, K, S, D, P, N, OUT = symbols("C M k s d p n o")
FACTS = [
    *(at_least(e, 1) for e in (C, M, K, S, D, N, OUT)),
    at_least(P, 0),
    at_least(N + 2 * P - D * (K - 1) - 1, S * (OUT - 1)),
    at_least(S * OUT - 1, N + 2 * P - D * (K - 1) - 1),
]
X, W, U, G = tensor("X", C, N), tensor("W", M, C, K), tensor("u", M), tensor("G", M, OUT)
NAMES = Names(axes={"X": "ch", "W": "mca", "G": "mi", "Z": "mi", "u": "m"})


def layer() -> Tensor:
    m, i, c, a = variables(0, 4)
    window = [interval(0, C), interval(0, K)]
    body = term(2, W[m, c, a], X[c, i * S + a * D - P], over=window) + term(2, U[m])
    return define("Z", [M, OUT], body)


def input_gradient() -> Derivation:
    t = kernel.begin(vector_jacobian(G, layer(), X), facts=FACTS, over=X.box)
    notes = [Note(0, "The derivative", "Z depends on X through its reads."), Note(1, "", "Open Z first.")]
    t = tactics.differentiate_all(tactics.unfold_all(t, ["Z"]))
    notes.append(Note(len(t.steps), "Solving for i"))
    t = tactics.tidy(tactics.contract_all(t))
    introduction = "How the loss changes with an input."
    return Derivation("Input gradient", introduction, t, "d2l 7.1", "cross-correlation", notes, NAMES)


def softmax() -> tuple[Tensor, Theorem]:
    i, j = variables(0, 2)
    z = tensor("Z1", N)
    total = term(1, Apply("exp", term(2, z[j])), over=[interval(0, N)])
    p = define("P", [N], term(1, Apply("exp", term(1, z[i])), Apply("recip", total)))
    t = kernel.begin(term(1, p[i]), facts=[at_least(N, 1)], over=[interval(0, N)])
    return p, tactics.unfold_all(t)


def used() -> Theorem:
    p, equation = softmax()
    (i,) = variables(0, 1)
    inner = term(1, tensor("A1", N)[i], p[i])
    t = kernel.begin(term(0, Apply("tanh", inner), over=[interval(0, N)]), facts=[at_least(N, 1)])
    return kernel.use(t, (0, 0, 0), equation, [i])


def specialised() -> Theorem:
    q = tensor("Q_in", N * 2)
    return kernel.specialise(softmax()[1], facts=[at_least(N, 3)], sizes={"n": N * 2}, tensors={"Z1": q})


def joined() -> Theorem:
    _, equation = softmax()
    return kernel.trans(kernel.sym(equation), equation)


def laws() -> Theorem:
    (i,) = variables(0, 1)
    x = tensor("X", N)
    e = term(1, Apply("sigmoid", term(1, x[i])), x[i + 1 - 1], Apply("recip", term(1, x[i])))
    t = kernel.begin(e, facts=[at_least(N, 1)], over=[interval(0, N)])
    factors = [type(f).__name__ + getattr(f, "function", "") for f in t.rhs.monomials[0].factors]
    t = kernel.rewrite(t, (0,), Cancel(factors.index("Read"), factors.index("Applyrecip")))
    return kernel.rewrite(t, (0,), Sigmoid(0))


def reindexed() -> Theorem:
    (k,) = variables(0, 1)
    x, v = tensor("X", N), tensor("v", N)
    t = kernel.begin(term(0, x[k], v[k + P - P], over=[interval(0, N)]), facts=[at_least(N, 1)])
    t = kernel.rewrite(t, (0,), Reindex((interval(-P, N - P),), (k + P,), (k - P,)))
    t = kernel.rewrite(t, (0,), RewriteIndex(0, 0, k + P))
    return kernel.rewrite(t, (0,), Case(at_least(k, 0)))  # type: ignore[arg-type]


def chained() -> Theorem:
    z = layer()
    m, i = variables(0, 2)
    loss = define("L", [], term(0, z[m, i], z[m, i], over=z.box))
    product = input_gradient().theorem
    return kernel.chain(term(0, loss[()]), "dZ1", product, facts=FACTS)


THEOREMS = {
    "input gradient": lambda: input_gradient().theorem,
    "use": used,
    "specialise": specialised,
    "trans": joined,
    "laws": laws,
    "reindex": reindexed,
    "chain": chained,
}


@pytest.fixture(params=list(THEOREMS), scope="module")
def derivation(request: pytest.FixtureRequest) -> Derivation:
    return Derivation(request.param, "An example.", THEOREMS[request.param](), names=NAMES)


# --- every example ------------------------------------------------------------------------------------------------


def test_the_last_step_shown_ends_in_the_right_side(derivation: Derivation) -> None:
    view = derivation.view(Text())
    assert derivation.steps[-1].after == " ".join(view.rhs)
    assert derivation.record.steps[-1].result == derivation.theorem.rhs
    assert [s.rule for s in derivation.steps] == [s.rule for s in derivation.theorem.steps]


def test_steps_connect(derivation: Derivation) -> None:
    rules = [s.rule for s in derivation.steps]
    for before, after in zip(derivation.steps, derivation.steps[1:], strict=False):
        if after.rule not in ("begin", "trans"):
            assert after.before == before.after, rules
    assert all(s.explanation for s in derivation.steps)


def test_no_position_and_no_solver_internals_are_shown(derivation: Derivation) -> None:
    for shown in (derivation.to_text(), derivation.to_html(), derivation.to_text(ascii_only=True)):
        assert "$" not in shown
        assert "replayed" not in shown
        assert "independently" not in shown


def test_ascii_is_ascii(derivation: Derivation) -> None:
    assert derivation.to_text(ascii_only=True).isascii()


def test_html_is_well_formed_and_needs_nothing(derivation: Derivation) -> None:
    shown = derivation.to_html()
    ET.fromstring(shown)
    assert "<script" not in shown
    assert "http" not in shown.replace("http://www.w3.org/1998/Math/MathML", "")
    assert derivation.to_html(page=True).startswith("<!DOCTYPE html>")


def test_latex_is_balanced(derivation: Derivation) -> None:
    shown = derivation.to_latex(document=True)
    assert shown.count("{") == shown.count("}")
    assert shown.count(r"\begin{") == shown.count(r"\end{")
    assert shown.count("$") % 2 == 0


def test_a_file_shows_the_same_and_holds_no_theorem(derivation: Derivation) -> None:
    written = derivation.to_json()
    again = Derivation.from_json(written)
    assert again.is_record
    assert again.to_json() == written
    assert again.steps == derivation.steps
    assert again.digest == derivation.digest == statement_digest(derivation.theorem)
    assert "nothing in it was proved or checked here" in again.scope
    assert "Proved" not in again.to_text()
    assert "no theorem" in repr(again)
    with pytest.raises(ValueError, match="a record of a derivation, not a theorem"):
        _ = again.theorem


def test_every_chain_of_a_record_knows_its_left_side(derivation: Derivation) -> None:
    data = document_to_json(derivation.record)
    entries = [data, *data["lemmas"].values()]
    for entry in entries:
        for step in entry["steps"]:
            assert ("lhs" in step) == (step["rule"] in ("begin", "specialise", "chain"))
    assert dumps(document_to_json(document_from_json(loads(dumps(data))))) == dumps(data)


# --- single matters -----------------------------------------------------------------------------------------------


def test_the_text_of_a_derivation() -> None:
    shown = input_gradient().to_text()
    assert "Source: d2l 7.1. Convention: cross-correlation." in shown
    assert "= Σ[0 ≤ m < M, 0 ≤ a < k] [s ∣ h + p - a d] W[m, c, a] G[m, ⌊(h + p - a d)/s⌋]" in shown
    definition = "Z[m, i] := u[m] + Σ[0 ≤ c < C, 0 ≤ a < k] W[m, c, a] X[c, i s + a d - p] for 0 ≤ m < M"
    assert definition in " ".join(shown.split())
    assert "\nSolving for i\n-------------\n" in shown
    assert "\nOpen Z first.\n  1  unfold: Replace Z[m, i] by its definition.\n" in shown
    assert "h = i s + a d - p has at most one solution, i = ⌊(h + p - a d)/s⌋, and it is one only" in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_scope_names_sizes_theory_and_trust() -> None:
    d = input_gradient()
    assert d.scope.startswith("Proved for all sizes that satisfy: C, M, k, s, d, n, o ≥ 1, p ≥ 0,")
    assert "d (k - 1) + s (o - 1) < n + 2 p" in d.scope
    assert "values in any commutative ring" in d.scope
    assert "the definitions listed with the statement" in d.trusted


def test_who_discharged_each_side_condition_is_told() -> None:
    d = Derivation("specialise", "", specialised())
    (obligation,) = [o for s in d.steps for o in s.obligations if o.by == "Z3"]
    assert obligation.goal == "2 n ≥ 1"
    assert "shown by Z3: 2 n ≥ 1" in d.to_text()
    assert any(t.startswith("Z3, which discharged 1 of") for t in d.trusted)
    assert "by Z3" in d.to_html()


def test_obligations_speak_of_the_variables_of_the_step() -> None:
    unfold = input_gradient().steps[1]
    assert {"m ≥ 0", "i ≥ 0", "m < M", "i < o"} <= {o.goal for o in unfold.obligations}
    assert "0 ≤ m < M" in unfold.obligations[0].given


def test_conditions_on_values_are_told() -> None:
    d = Derivation("laws", "", laws())
    assert "On the condition that X[h] is not 0." in Derivation("laws", "", laws(), names=Names("h")).scope
    assert any("is not 0" in c for s in d.steps for c in s.conditions)
    assert "provided that X[i] is not 0" in d.to_text()


def test_the_fragment_that_changed() -> None:
    step = Derivation("use", "", used(), names=NAMES).steps[-1]
    assert step.where == "A1[i] P[i]"
    assert step.became == "A1[i] exp(Z1[i]) / (Σ[0 ≤ j < n] exp(Z1[j]))"


def test_digest_is_of_the_statement_alone() -> None:
    one, other = input_gradient(), input_gradient()
    renamed = Derivation("Another title", "", one.theorem, names=Names(free="xy"))
    assert one.digest == other.digest == renamed.digest
    assert one.digest != Derivation("specialise", "", specialised()).digest


def test_notes_have_to_be_of_a_step() -> None:
    with pytest.raises(ValueError, match="step=99"):
        Derivation("laws", "", laws(), notes=[Note(99, "too late")])


def test_prose_is_escaped() -> None:
    d = Derivation("a < b & $c$ 100%", "50% of <b>", laws())
    ET.fromstring(d.to_html())
    assert r"a \textless{} b \& \$c\$ 100\%" in d.to_latex()


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.pop("steps"),
        lambda data: data.update(format="another"),
        lambda data: data["statement"].update(theory="another"),
        lambda data: data["statement"]["lhs"].update(depth=7),
        lambda data: data["steps"][0].update(rule="miracle"),
        lambda data: data["steps"].pop(0),
        lambda data: data["definitions"].pop("X"),
        lambda data: data["definitions"]["X"].update(box="wrong"),
        lambda data: data["notes"][0].update(step=1000),
    ],
)
def test_a_broken_file_is_refused(change: object) -> None:
    data = json.loads(input_gradient().to_json())
    change(data)  # type: ignore[operator]
    with pytest.raises(ValueError):  # noqa: PT011, a different message for each
        Derivation.from_json(json.dumps(data))


def test_text_that_is_no_json_is_refused() -> None:
    with pytest.raises(ValueError, match="Expecting value"):
        Derivation.from_json("not JSON")
    with pytest.raises(ValueError, match="not a derivation"):
        Derivation.from_json("[]")


_PROGRAM = """
import hashlib
from tests.derive.test_derivation import THEOREMS, NAMES
from derive.derivation import Derivation
d = [Derivation(name, "", make(), names=NAMES) for name, make in THEOREMS.items()]
shown = "".join(x.to_json() + x.to_text() + x.to_latex() + x.to_html() for x in d)
print(hashlib.sha256(shown.encode()).hexdigest())
"""


def test_the_same_bytes_under_every_hash_seed() -> None:
    root = Path(__file__).resolve().parents[2]
    digests = {
        subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            cwd=root,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(root), "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "12345")
    }
    assert len(digests) == 1


def test_import_leaves_the_mathml_converter_alone() -> None:
    program = "import sys, derive.derivation; print('latex2mathml' in sys.modules or 'z3' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
