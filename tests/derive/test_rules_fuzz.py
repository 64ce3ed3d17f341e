"""No rule changes a value: random terms, random applications, both sides evaluated exactly.

Every rule of ``derive.rules`` and of the kernel is proposed for terms that ``tests.derive.proposals`` builds; where the
kernel accepts, both sides are computed by ``tests.derive.meaning`` at random sizes that satisfy the facts, with random
tensors, for all values of the free variables.  The test also counts: a rule that is nearly always refused would be
tested by nothing.  The counts are printed after the run.
"""

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from derive.kernel import Theorem
from derive.rules import RULES
from tests.derive.drawing import datum
from tests.derive.meaning import Meaning, Undefined
from tests.derive.proposals import PROPOSALS, NoProposal

KERNEL = ("use", "specialise", "chain", "sym", "trans")
WORLDS = st.lists(
    st.tuples(st.fixed_dictionaries({"n": st.integers(1, 4), "s": st.integers(1, 3)}), st.integers(0, 9)),
    min_size=3,
    max_size=3,
)
EXAMPLES = 200


def test_every_rule_is_proposed():
    assert set(PROPOSALS) == {rule.name for rule in RULES} | set(KERNEL)


def compare(theorem: Theorem, sizes: dict[str, int], salt: int) -> int:
    """Assert that both sides agree everywhere; how often that could be seen.

    A theorem with conditions on values is about numbers for which everything in it exists.
    """
    if not all(g.holds(sizes) for g in theorem.facts):
        return 0
    world = Meaning(sizes, datum(salt), strict=bool(theorem.conditions))
    seen = 0
    for at in world.points(theorem.binders, ()):
        try:
            left, right = world.value(theorem.lhs, at), world.value(theorem.rhs, at)
        except Undefined:
            continue
        assert left == right, f"{theorem!r}: {left} and {right} at {sizes}, {at}, tensors {salt}"
        seen += 1
    return seen


@pytest.mark.parametrize("name", sorted(PROPOSALS))
def test_no_rule_changes_a_value(name, tally):
    counts: Counter[str] = tally.setdefault(name, Counter())

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.data())
    def run(data: st.DataObject) -> None:
        try:
            proposal = data.draw(PROPOSALS[name])
        except NoProposal:
            reject()
        worlds = data.draw(WORLDS)
        try:
            theorem = proposal.apply()
        except ValueError:  # Refused is one; so is what a malformed index raises
            counts["refused"] += 1
            return
        if sum(compare(theorem, sizes, salt) for sizes, salt in worlds):
            counts["accepted"] += 1
        else:
            counts["without a value"] += 1

    run()
    proposed = counts.total()
    assert counts["accepted"] >= EXAMPLES // 3, f"{name}: {dict(counts)}"
    assert counts["accepted"] >= 0.3 * proposed, f"{name}: {dict(counts)}"
