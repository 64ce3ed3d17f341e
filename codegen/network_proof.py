"""That a network's plan computes the network: its logits, its loss, and the derivative of its loss by each parameter.

The proof goes from group to group and never opens the whole network.  Forwards, each group's output stage equals the
layer's output, given that its input stage does.  Backwards, the chain rule of the kernel says how the derivative by a
group's output gives those by its parameters and its input; the group's stages are shown to compute just that.  The
sizes are those of the network, the batch size stays free.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from codegen import proofs
from codegen.architecture import Architecture
from codegen.committed import Claim
from codegen.plan import Plan, Stage
from codegen.plans.elementwise import Cotangent
from codegen.plans.network import Join, joined
from derive import kernel, tactics
from derive.indices import Guard, variables
from derive.kernel import Theorem
from derive.layers import Applied, CrossEntropyLoss
from derive.rules import Unfold
from derive.terms import Derivative, Expr, Read, Tensor, shift, tensor, term


@dataclass
class NetworkProof:
    """The network's layers on its input, its plan, and the theorems found so far."""

    steps: tuple[Applied, ...]
    plan: Plan
    joins: tuple[Join, ...]
    boundary: dict[str, Theorem] = field(default_factory=dict)

    @staticmethod
    def of(architecture: Architecture) -> NetworkProof:
        """The proof of an architecture's plan, for all its sizes."""
        plan, joins = joined(architecture.net, architecture.input_shape)
        return NetworkProof(architecture.net.chain(tensor("X", *architecture.input_shape)), plan, joins)

    @cached_property
    def loss(self) -> Applied:
        """The loss as a layer on the logits."""
        target = next(t for t in self.plan.inputs if t.name == "T")
        return CrossEntropyLoss().on(self.steps[-1].y, "Loss", {"target": target})

    @cached_property
    def facts(self) -> tuple[Guard, ...]:
        """What the sizes satisfy: with numbers for all but the batch, that the batch is not negative."""
        facts = [g for step in (*self.steps, self.loss) for g in step.facts]
        return tuple({g.text: g for g in facts if any(e.symbols for e in g.indices())}.values())

    def prove(self) -> Iterator[tuple[str, Theorem]]:
        """Every output of the plan with its theorem, as they are found."""
        self.boundary.clear()
        for join in reversed(self.joins):
            self.boundary[join.output.name] = self._forward(join)
        yield "forward", self.boundary[self.plan.outputs["forward"]]
        yield "loss", self._loss()
        self._first_cotangent()
        for join in self.joins:
            yield from self._backward(join)

    def claims(self) -> dict[str, Claim]:
        """What the theorems say, by output, without their proofs: quick, and without a solver."""
        found: dict[str, Claim] = {}
        for output, name in self.plan.outputs.items():
            stage = self.plan.by_name[name].tensor
            left = term(stage.rank, stage[variables(0, stage.rank)])
            if output == "forward":
                right = self._layer_read(self.steps[-1].y)
            elif output == "loss":
                right = term(0, self.loss.y[()])
            else:
                right = self._derivative(self._parameter(output.removeprefix("gradient ")))
            found[output] = Claim(self.facts, stage.box, left, right)
        return found

    def _parameter(self, public: str) -> Tensor:
        name = self.plan.parameters[public]
        return next(t for t in self.plan.inputs if t.name == name)

    def _derivative(self, target: Tensor) -> Expr:
        """``d loss / d target[h]`` in the variables h."""
        whole = shift(term(0, self.loss.y[()]), target.rank)
        return term(target.rank, Derivative(whole, target, variables(0, target.rank)))

    # --- forwards -------------------------------------------------------------------------------------------------

    def _forward(self, join: Join) -> Theorem:
        stage, y = join.output, self.steps[join.last].y
        rank = stage.tensor.rank
        above = proofs.worked_out(self._layer_read(y), self.facts, stage.tensor.box, self._definitions(join))
        return proofs.meet(self._opened(term(rank, stage.tensor[variables(0, rank)]), stage), above)

    def _definitions(self, join: Join) -> list[str]:
        return [step.y.name for step in self.steps[join.first : join.last + 1]]

    @staticmethod
    def _layer_read(y: Tensor) -> Expr:
        """The layer's tensor at the element that the stage holds: its batch comes first, the stage's last."""
        at = variables(0, y.rank)
        return term(y.rank, y[(at[-1], *at[:-1])])

    def _opened(self, e: Expr, stage: Stage, within: str = "") -> Theorem:
        """``e`` with every stage opened down to inputs and to boundaries, which are then rewritten by what is known.

        ``within`` names the output of the group at hand, which its own backward stages may read and which is opened.
        """
        names = [s.name for s in self.plan.stages if s.name not in self.boundary or s.name == within]
        theorem = kernel.begin(e, facts=self.facts, over=stage.tensor.box)
        theorem = tactics.open_and_solve(theorem, names)
        return proofs.normal(self._known(theorem))

    def _known(self, theorem: Theorem) -> Theorem:
        """Rewrite reads of boundary stages by their theorems."""

        def wanted(f: object) -> bool:
            return isinstance(f, Read) and f.tensor.name in self.boundary

        while (found := tactics.find(theorem.rhs, wanted)) is not None:
            read = kernel.place(theorem, found[0]).factor(found[1])
            assert isinstance(read, Read)
            theorem = kernel.use(theorem, found[0], self.boundary[read.tensor.name], read.at)
        return theorem

    # --- the loss -------------------------------------------------------------------------------------------------

    def _loss(self) -> Theorem:
        stage = self.plan.by_name[self.plan.outputs["loss"]]
        above = proofs.worked_out(term(0, self.loss.y[()]), self.facts, (), [self.loss.y.name])
        below = self._relative(term(0, stage.tensor[()]), stage)
        return proofs.meet(below, above)

    def _relative(self, e: Expr, stage: Stage) -> Theorem:
        """``e`` opened but for the row's maximum, from which the laws of exp and log then free it."""
        names = [s.name for s in self.plan.stages if s.name not in self.boundary and s.name != "M"]
        theorem = kernel.begin(e, facts=self.facts, over=stage.tensor.box)
        theorem = self._known(tactics.open_and_solve(theorem, names))
        return proofs.normal(proofs.free_of(theorem, "M"))

    def _first_cotangent(self) -> None:
        """The stage that holds the derivative by the logits is that derivative."""
        down = self.joins[0].down
        logits = self.steps[-1].y
        theorem = self._cotangent_read(logits, self._cotangent(logits))
        theorem = proofs.normal(tactics.contract_simple(tactics.differentiate_all(self._opened_loss(theorem))))
        stage = down.stage
        below = self._relative(term(2, stage.tensor[variables(0, 2)]), stage)
        self.boundary[stage.name] = proofs.meet(below, theorem)

    def _opened_loss(self, theorem: Theorem) -> Theorem:
        return tactics.open_and_solve(theorem, [self.loss.y.name])

    # --- backwards ------------------------------------------------------------------------------------------------

    def _cotangent(self, y: Tensor) -> Tensor:
        """``dL/dY`` as a defined tensor: what the chain rule calls the cotangent of Y."""
        return Tensor(f"d{y.name}", y.box, self._derivative(y))

    def _cotangent_read(self, y: Tensor, cotangent: Tensor) -> Theorem:
        """The cotangent at the element that a stage holds, unfolded to the derivative it is."""
        at = variables(0, y.rank)
        over = (*y.box[1:], y.box[0])
        theorem = kernel.begin(term(y.rank, cotangent[(at[-1], *at[:-1])]), facts=self.facts, over=over)
        return kernel.rewrite(theorem, (0,), Unfold(0))

    def _product(self, join: Join, target: Tensor) -> Theorem:
        """``d(Sum G Y)/d target`` for the group's output Y and a free cotangent G."""
        y = self.steps[join.last].y
        free = Tensor("Free", y.box)
        e = kernel.vector_jacobian(free, y, target)
        return proofs.worked_out(e, self.facts, target.box, self._definitions(join))

    def _chained(self, join: Join, target: Tensor) -> Theorem:
        y = self.steps[join.last].y
        product = self._product(join, target)
        return kernel.chain(term(0, self.loss.y[()]), f"d{y.name}", product, facts=self.facts)

    def _backward(self, join: Join) -> Iterator[tuple[str, Theorem]]:
        for step in self.steps[join.first : join.last + 1]:
            for t in step.parameters.values():
                stage = self.plan.by_name[f"d{t.name}"]
                below = self._opened(term(t.rank, stage.tensor[variables(0, t.rank)]), stage, join.output.name)
                public = next(key for key, name in self.plan.parameters.items() if name == t.name)
                yield f"gradient {public}", proofs.meet(below, self._chained(join, t))
        if join.up is not None:
            self.boundary[join.up.stage.name] = self._cotangent_of_input(join, join.up)

    def _cotangent_of_input(self, join: Join, up: Cotangent) -> Theorem:
        """``scale * stage = dL/dY`` for the input Y of a group."""
        y = self.steps[join.first - 1].y
        above = self._cotangent_read(y, self._cotangent(y))
        at = variables(0, y.rank)
        above = kernel.use(above, (0,), self._chained(join, y), (at[-1], *at[:-1]))
        stage = up.stage
        below = self._opened(term(y.rank, stage.tensor[at], coefficient=up.scale), stage, join.output.name)
        return proofs.meet(below, proofs.normal(above))
