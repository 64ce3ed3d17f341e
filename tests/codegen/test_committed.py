"""Committed derivations: fresh, found by statement only, and used without a solver.

A statement counts as proved when its digest is in the committed file.  So digests are recomputed here in a process of
its own, where Z3 must not turn up; a statement that was tampered with must not be found; and one file is proved anew,
byte for byte.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from codegen import prove
from codegen.architecture import forget
from codegen.committed import Claim, Committed, committed, file_text
from codegen.network_proof import NetworkProof
from derive import kernel
from derive.indices import at_least, index, symbol, var
from derive.kernel import Theorem
from derive.terms import constant, tensor, term
from tests.codegen.networks import LENET

ROOT = Path(__file__).parents[2]
CLAIMS = """
import sys
from codegen.architecture import forget, instance
from codegen.committed import committed
from codegen.network_proof import NetworkProof
from codegen.plans.network import network
from derive.indices import index, symbol
from derive.layers import lenet

net, shape = lenet(), (symbol("N"), index(1), index(28), index(28))
architecture = forget(net, shape)
general, file = NetworkProof.of(architecture), committed("lenet")
print(instance(network(net, shape), general.plan, general.facts, architecture.sizes) or "an instance")
for output, claim in general.claims().items():
    print(output, file.proves(output, claim), file.outputs[output]["digest"])
print(sorted(name for name in sys.modules if name.split(".")[0] == "z3"))
"""


def run(*arguments: str, seed: str = "random") -> subprocess.CompletedProcess[str]:
    """Python in a process of its own, from the folder the packages are in."""
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@cache
def file() -> Committed:
    found = committed("lenet")
    assert found is not None
    return found


@cache
def claims() -> Mapping[str, Claim]:
    return NetworkProof.of(forget(*LENET)).claims()


# --- the file is fresh --------------------------------------------------------------------------------------------


def test_every_statement_is_found_without_a_solver() -> None:
    results = [run("-c", CLAIMS, seed=seed) for seed in ("0", "1")]
    assert [r.stderr for r in results] == ["", ""]
    assert results[0].stdout == results[1].stdout
    first, *rest, last = results[0].stdout.splitlines()
    assert first == "an instance"
    assert last == "[]"
    assert len(rest) == 12
    assert all(" True " in line for line in rest)


def test_a_whole_file_is_what_is_proved_now() -> None:
    """Byte for byte; the other files take longer, and CI runs ``python -m codegen.prove --check`` for all of them."""
    result = run("-m", "codegen.prove", "--check", "groups1d")
    assert (result.returncode, result.stderr) == (0, "groups1d: proved\n")


def test_the_file_says_what_was_proved_and_how() -> None:
    assert set(file().outputs) == {
        "forward",
        "loss",
        *(f"gradient {k}.{p}" for k in (0, 3, 7, 9, 11) for p in ("weight", "bias")),
    }
    assert all(entry["obligations"] for entry in file().outputs.values())
    assert all(entry["conditions"] == [] for entry in file().outputs.values())
    path = ROOT / "codegen" / "plans" / "proofs" / "lenet.json"
    assert file().file_digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_every_lemma_is_in_the_file_once_and_is_used() -> None:
    data = json.loads((ROOT / "codegen" / "plans" / "proofs" / "lenet.json").read_text(encoding="utf-8"))
    used = {step["lemma"] for t in data["theorems"].values() for step in t["steps"] if "lemma" in step}
    outputs = {entry["digest"] for entry in data["outputs"].values()}
    assert used | outputs == set(data["theorems"])


# --- only that statement is found ---------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["forward", "loss", "gradient 0.weight", "gradient 11.bias"])
def test_a_statement_that_was_tampered_with_is_not_found(output: str) -> None:
    claim = claims()[output]
    assert file().proves(output, claim)
    one = constant(claim.lhs.depth, 1)
    tampered = {
        "sides exchanged": replace(claim, lhs=claim.rhs, rhs=claim.lhs),
        "left side": replace(claim, lhs=claim.lhs + one),
        "right side": replace(claim, rhs=claim.rhs.scaled(2)),
        "a fact less": replace(claim, facts=claim.facts[:-1]),
        "a fact more": replace(claim, facts=(*claim.facts, at_least(symbol("K"), 2))),
        "an interval": replace(claim, binders=((index(0), symbol("q")), *claim.binders[1:])),
    }
    for what, other in tampered.items():
        assert not file().proves(output, other), what


def test_a_stage_of_the_same_name_with_another_body_is_not_found() -> None:
    """The digest goes through every definition, not only the names."""
    claim = claims()["forward"]
    ((read,),) = (m.factors for m in claim.lhs.monomials)
    assert "Z11" in read.text
    stage = next(iter(claim.lhs.tensors))
    assert stage.body is not None
    other = replace(stage, body=stage.body.scaled(2))
    changed = replace(claim, lhs=term(2, other[var(0), var(1)]))
    assert changed.lhs.text == claim.lhs.text
    assert not file().proves("forward", changed)


def test_one_output_does_not_prove_another() -> None:
    for output in ("forward", "gradient 9.bias"):
        assert [o for o in file().outputs if file().proves(o, claims()[output])] == [output]
    assert len({entry["digest"] for entry in file().outputs.values()}) == len(claims())
    assert not file().proves("gradient 5.weight", claims()["forward"])


@pytest.mark.parametrize(
    "entry", [{"theory": "ring of numbers"}, {"conditions": ["nothing at all"]}, {"digest": "0" * 64}]
)
def test_an_entry_that_was_edited_proves_nothing(entry: Mapping[str, object]) -> None:
    edited = Committed("lenet", {"loss": {**file().outputs["loss"], **entry}}, "")
    assert not edited.proves("loss", claims()["loss"])


def test_a_plan_without_a_file_has_no_proofs() -> None:
    assert committed("nothing") is None


# --- writing and checking -----------------------------------------------------------------------------------------


def tiny() -> dict[str, Theorem]:
    x = tensor("X", symbol("n"))
    return {"forward": kernel.begin(term(1, x[var(0)]), facts=[at_least(symbol("n"), 0)], over=x.box)}


def test_prove_writes_a_file_and_finds_it_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prove, "PLANS", {"tiny": ("A copy", tiny)})
    monkeypatch.setattr(prove, "FOLDER", tmp_path / "proofs")
    path = tmp_path / "proofs" / "tiny.json"
    assert prove.main(["--check"]) == 1  # there is no file
    assert prove.main([]) == 0
    assert path.read_text(encoding="utf-8") == file_text("A copy", tiny())
    assert prove.main(["--check", "tiny"]) == 0
    path.write_text(path.read_text(encoding="utf-8").replace("A copy", "A fake"), encoding="utf-8")
    assert prove.main(["--check"]) == 1
    assert capsys.readouterr().err.splitlines() == ["tiny: stale", "tiny: proved", "tiny: proved", "tiny: stale"]
