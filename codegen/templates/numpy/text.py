"""What every NumPy template needs: where tensors are found in the text, and constants."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from codegen.plan import Plan, PlanError, Stage
from derive.terms import Monomial


@dataclass
class Context:
    """The plan being printed; ``arrays`` says how each tensor is reached, the rest is collected for the workspace."""

    plan: Plan
    arrays: dict[str, str]
    constants: set[Fraction] = field(default_factory=set)
    flat: dict[tuple[str, int, int], str] = field(default_factory=dict)
    products: dict[str, str] = field(default_factory=dict)
    scratch: dict[str, tuple[int | None, ...]] = field(default_factory=dict)
    sparse: set[str] = field(default_factory=set)
    views: dict[str, tuple[str, str]] = field(default_factory=dict)
    kept: dict[tuple[str, str], str] = field(default_factory=dict)

    def constant(self, value: Fraction) -> str:
        """The text for a rational number in the dtype of the workspace."""
        self.constants.add(value)
        return f"w.{constant_name(value)}"

    def part(self, stage: Stage, dims: tuple[int | None, ...]) -> str:
        """An array of this shape in which a stage forms one term of its sum at a time."""
        self.scratch[stage.name] = dims
        return f"{self.holder(stage.name)}.{stage.name}_part"

    def holder(self, name: str) -> str:
        """Where what belongs to a stage lies: in the workspace ``w``, or in a block ``v`` as those in the result do."""
        return "v" if name in self.plan.placed else self.arrays[name].split(".")[0]


def constant_name(value: Fraction) -> str:
    """The attribute that holds a rational number: ``c_1_2``, ``c_minus_1_4``."""
    sign = "minus_" if value < 0 else ""
    return f"c_{sign}{abs(value.numerator)}_{value.denominator}"


def only_monomial(stage: Stage) -> Monomial:
    """The one monomial of a stage, for templates that print one."""
    if len(stage.body.monomials) != 1:
        raise PlanError(f"{stage.name}: the template {stage.template} prints one monomial, not {stage.body.text}")
    return stage.body.monomials[0]


def times(ctx: Context, source: str, coefficient: Fraction, target: str) -> str:
    """The statement ``target = coefficient * source``."""
    if coefficient == 1:
        return f"np.copyto({target}, {source})"
    if coefficient == -1:
        return f"np.negative({source}, out={target})"
    return f"np.multiply({source}, {ctx.constant(coefficient)}, out={target})"
