"""That a network's plan computes the network: its logits, its loss, and the derivative of its loss by each parameter.

The proof goes from group to group and never opens the whole network.  Forwards, each group's output stage equals the
layer's output, given that its input stage does.  Backwards, the chain rule of the kernel says how the derivative by a
group's output gives those by its parameters and its input; the group's stages are shown to compute just that.  The
sizes are those of the network, the batch size stays free.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from codegen import proofs
from codegen.architecture import Architecture
from codegen.committed import Claim
from codegen.plan import Plan, Stage, is_batch, reads_of
from codegen.plans.elementwise import Cotangent
from codegen.plans.network import Join, joined
from derive import kernel, tactics
from derive.indices import Guard, Index, Zero, var, variables
from derive.kernel import Theorem, Where
from derive.layers import Applied, AvgPool, CrossEntropyLoss, Sequential
from derive.rules import Contract, Unfold
from derive.terms import Derivative, Expr, Monomial, Read, Tensor, expression, shift, tensor, term
from derive.tiles import joined as joined_tiles

FREE = "Free"  # a cotangent that stands for any
Planner = Callable[[Sequential, Sequence[Index]], tuple[Plan, tuple[Join, ...]]]


@dataclass
class NetworkProof:
    """The network's layers on its input, its plan, and the theorems found so far."""

    steps: tuple[Applied, ...]
    plan: Plan
    joins: tuple[Join, ...]
    boundary: dict[str, Theorem] = field(default_factory=dict)

    @staticmethod
    def of(architecture: Architecture, planner: Planner = joined) -> NetworkProof:
        """The proof of an architecture's plan, for all its sizes; by default of the plan with the batch innermost."""
        plan, joins = planner(architecture.net, architecture.input_shape)
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
                right = self._layer_read(self.steps[-1].y, stage)
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
        above = proofs.worked_out(
            self._layer_read(y, stage.tensor), self.facts, stage.tensor.box, self._definitions(join)
        )
        return proofs.meet(self._opened(term(rank, stage.tensor[variables(0, rank)]), stage), above)

    def _definitions(self, join: Join) -> list[str]:
        return [step.y.name for step in self.steps[join.first : join.last + 1]]

    @staticmethod
    def _layer_read(y: Tensor, stage: Tensor) -> Expr:
        """The layer's tensor at the element that the stage holds."""
        return term(y.rank, y[_element(stage)])

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
        theorem = self._cotangent_read(logits, down.stage.tensor)
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

    def _cotangent_read(self, y: Tensor, stage: Tensor) -> Theorem:
        """The cotangent of Y at the element that a stage holds, unfolded to the derivative it is."""
        read = term(y.rank, self._cotangent(y)[_element(stage)])
        theorem = kernel.begin(read, facts=self.facts, over=stage.box)
        return kernel.rewrite(theorem, (0,), Unfold(0))

    def _product(self, join: Join, target: Tensor) -> Theorem:
        """``d(Sum G Y)/d target`` for the group's output Y and a free cotangent G."""
        y = self.steps[join.last].y
        free = Tensor(FREE, y.box)
        e = kernel.vector_jacobian(free, y, target)
        product = proofs.worked_out(e, self.facts, target.box, self._definitions(join))
        return self._gathered(product, join) if is_batch(join.output.tensor.box[0]) else product

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
        stage = up.stage
        above = self._cotangent_read(y, stage.tensor)
        at = variables(0, y.rank)
        above = kernel.use(above, (0,), self._chained(join, y), _element(stage.tensor))
        below = self._opened(term(y.rank, stage.tensor[at], coefficient=up.scale), stage, join.output.name)
        return proofs.meet(below, proofs.normal(above))

    # --- where stages gather ----------------------------------------------------------------------------------------

    def _gathered(self, product: Theorem, join: Join) -> Theorem:
        """The product as a plan that gathers has it: tiles of a pool joined, equations solved for the output."""
        last = self.steps[join.last]
        if isinstance(last.layer, AvgPool):
            for axis, (_, size) in enumerate(last.x.box[2:]):
                while (found := _tiles(product, axis + 2, last.windows[axis].stride)) is not None:
                    product = joined_tiles(product, *found, size)
        while (solving := _equation(product)) is not None:
            product = kernel.rewrite(product, *solving)
        return tactics.tidy(product)


def _element(stage: Tensor) -> tuple[Index, ...]:
    """Where a layer's tensor, which has the batch first, holds the element that a stage holds at its variables."""
    at = variables(0, stage.rank)
    return at if is_batch(stage.box[0]) else (at[-1], *at[:-1])


def _equation(theorem: Theorem) -> tuple[Where, Contract] | None:
    """The address of a monomial, and an equation in it to be solved for a place that the cotangent is read at."""
    for where, m, depth in tactics.scopes(theorem.rhs):
        for read in (f for f in m.factors if isinstance(f, Read) and f.tensor.name == FREE):
            places = {v - depth for e in read.at for v in e.variables if v >= depth}
            for guard in (g for g in m.guards if isinstance(g, Zero)):
                for place in sorted(places):
                    if guard.e.slope(place + depth) != 0:
                        return where, Contract(place, guard)
    return None


def _tiles(theorem: Theorem, axis: int, size: Index) -> tuple[Where, tuple[int, int]] | None:
    """A monomial that sums over tiles of that axis of the cotangent, and the numbers of its variables tile and cell."""
    for where, m, depth in tactics.scopes(theorem.rhs):
        for read in (f for f in m.factors if isinstance(f, Read) and f.tensor.name == FREE):
            for tile in range(len(m.binders)):
                cell = _cell(m, depth, tile, size) if read.at[axis] == var(depth + tile) else None
                if cell is not None:
                    return where, (tile, cell)
    return None


def _cell(m: Monomial, depth: int, tile: int, size: Index) -> int | None:
    """The variable that occurs in ``size * tile + cell``, or a multiple of that, and nowhere else."""
    indices = [e for g in m.guards for e in g.indices()]
    indices += [e for read in reads_of(expression(depth, [m])) for e in read.at]
    for cell in (k for k, (_, high) in enumerate(m.binders) if high == size and k != tile):
        found = [(_coefficient(e, depth + tile), _coefficient(e, depth + cell)) for e in indices]
        within = [(t, c) for t, c in found if c is None or c.terms]
        if within and all(c is not None and t == c * size for t, c in within):
            return cell
    return None


def _coefficient(e: Index, level: int) -> Index | None:
    """What a variable is multiplied by; None where the index is not linear in it."""
    parts = e.linear_in(level)
    return None if parts is None else parts[0]
