"""The plan of a whole network on a GPU: the batch outermost, arrays as they come, as few stages as possible.

    forward     A[b,n,i] = sigmoid(u[n] + Sum_{c,a} W[n,c,a] H[b,c, i s + a d - p]),  P = the mean of A's tiles
    loss        L = Sum_b (log Sum_n exp(Z - M) + M - Sum_n T Z) / N                for M the row's largest
    backward    dZ[b,n,i] = 1/t^2 dP[b,n, i // t] (A - A^2)                         through pooling and sigmoid at once
                dH[b,c,h] = Sum_{n,a} [s | h + p - a d] W[n,c,a] dZ[b,n, (h + p - a d) // s]
                dW[n,c,a] = Sum_{b,i} dZ[b,n,i] H[b,c, i s + a d - p]               and du[n], the same without H

No window is stored, every gradient is gathered, and a sigmoid's slope comes from what the sigmoid gave.  The rest is
what a machine does at once: a *local* stage is formed in the threads that read it, an *epilogue* where a product has
its sum in a register (the product itself is then not stored), a mean is *pooled* where a product has a tile in
registers, a product is *spread* to the cells of the tiles that were averaged, a *column* is a bias gradient beside that
of the weight, and an *alias* has the memory of what it reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

from codegen.plan import ADJACENT, Plan, PlanError, Stage, Template, reads_of
from codegen.plans.definition import axis_letters, input_gradient, is_product, weight_gradient
from codegen.plans.elementwise import Cotangent
from codegen.plans.network import Join, pool_of
from derive.indices import Index, index, variables
from derive.layers import Applied, Conv, Flatten, Linear, Sequential, Sigmoid
from derive.terms import Apply, Expr, Maximum, Substitution, Tensor, define, tensor, term

CLASSES = 64  # up to so many classes every thread of a row forms the row's maximum and sum itself


@dataclass(frozen=True)
class Group:
    """Some layers done at once: the first of them, what it reads, what they give, and which tiles are averaged.

    ``activated`` is the stage of the sigmoid, None where there is none.
    """

    first: Applied
    last: int
    at: int
    x: Tensor
    activated: Stage | None
    output: Stage
    tile: int = 1


@dataclass
class Builder:
    """The stages so far, and how the layers were cut into groups."""

    inputs: list[Tensor]
    stages: list[Stage] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    parameters: dict[str, str] = field(default_factory=dict)
    legend: list[tuple[tuple[str, ...], str]] = field(default_factory=list)

    def tell(self, meaning: str, *names: str) -> None:
        """Say what tensors are."""
        self.legend.append((names, meaning))

    def add(self, stage: Stage, meaning: str) -> Stage:
        """Append a stage, as a matrix product where that pays."""
        self.tell(meaning, stage.name)
        made = replace(stage, template="cells") if stage.template == "product" and not is_product(stage) else stage
        self.stages.append(made)
        return made

    def take(self, step: Applied, at: int) -> None:
        """Take up the parameters of a layer."""
        for key, t in step.parameters.items():
            self.inputs.append(t)
            self.parameters[f"{at}.{key}"] = t.name
        names = [t.name for t in step.parameters.values()]
        self.tell(f"{' and '.join(step.parameters)} of {_layer(step, at)}", *names)


def device_network(net: Sequential, input_shape: Sequence[Index]) -> Plan:
    """The plan of a network of the form that ``codegen.plans.network`` knows, for a GPU.

    Raises PlanError for a network of another form; the text says where it stops.

    >>> from codegen.plan import BATCH
    >>> from derive.layers import Conv1d
    >>> net = Sequential(Conv1d(1, 8, 9), Sigmoid(), Flatten(), Linear(32, 9), Sigmoid(), Linear(9, 8))
    >>> [(s.name, s.template) for s in device_network(net, (BATCH, index(1), index(12))).stages][-9:-4]
    [('dX5', 'product'), ('dZ3', 'epilogue'), ('dW3', 'product'), ('du3', 'column'), ('dX3', 'product')]
    """
    return joined(net, input_shape)[0].check()


def joined(net: Sequential, input_shape: Sequence[Index]) -> tuple[Plan, tuple[Join, ...]]:
    """The plan of a network, and where its groups meet, last group first: what a proof goes along."""
    x = tensor("X", *input_shape)
    target = tensor("T", x.box[0][1], net.output_shape(input_shape)[-1])
    steps = net.chain(x)
    made = Builder([x, target])
    made.tell("the images", x.name)
    made.tell("1 at the class that is an image's label, else 0", target.name)
    at, h = 0, x
    while at < len(steps):
        group = _group(made, steps, at, h)
        made.groups.append(group)
        at, h = group.last + 1, group.output.tensor
    if h.rank != 2:
        raise PlanError("the network has to end in a dense layer: its loss is that of classes")
    down = _loss(made, h, target)
    joins = []
    for k, group in reversed(list(enumerate(made.groups))):
        before = made.groups[k - 1].output if k else None
        up = _backward(made, group, down, first=k == 0)
        above = None if up is None else Cotangent(up)
        joins.append(Join(group.at, group.last, group.output, Cotangent(down), before, above))
        down = up or down
    gradients = {f"gradient {public}": f"d{name}" for public, name in made.parameters.items()}
    outputs = {"forward": h.name, "loss": "L", **gradients}
    plan = Plan("network", tuple(made.inputs), _fused(made.stages), outputs, parameters=made.parameters,
                labels=(target.name,), legend=tuple(made.legend))  # fmt: skip
    return plan, tuple(_renewed(join, plan) for join in joins)


# --- forwards -----------------------------------------------------------------------------------------------------


def _group(made: Builder, steps: Sequence[Applied], at: int, h: Tensor) -> Group:
    """Plan the group that starts at a layer, on the tensor that holds its input."""
    step = steps[at]
    layer, following = step.layer, [s.layer for s in steps[at + 1 : at + 3]]
    if isinstance(layer, Conv) and layer.is_grouped:
        raise PlanError(f"layer {at}: groups={layer.groups}: no plan of a network has grouped convolutions; nearest: 1")
    if isinstance(layer, Conv) and layer.bias:
        made.take(step, at)
        tile, used = pool_of(at, following)
        a = made.add(_activated(step, h, at), _output(steps, at + 1))
        output = a if used == 2 else made.add(_pooled(steps[at + 2], a, at, tile), _output(steps, at + 2))
        return Group(step, at + used - 1, at, h, a, output, tile)
    if isinstance(layer, Linear) and layer.bias and h is not made.inputs[0]:
        made.take(step, at)
        if following and isinstance(following[0], Sigmoid):
            a = made.add(_activated(step, h, at), _output(steps, at + 1))
            return Group(step, at + 1, at, h, a, a)
        z = define(f"Z{at}", list(step.y.box), _on(step, h))
        return Group(step, at, at, h, None, made.add(Stage(z, "product", "b n k"), _output(steps, at)))
    if isinstance(layer, Flatten) and h is not made.inputs[0] and h.rank > 2:
        flat = define(f"F{at}", list(step.y.box), _on(step, h))
        return Group(step, at, at, h, None, made.add(Stage(flat, "alias", "b k"), _output(steps, at)))
    raise PlanError(
        f"layer {at} is {layer}: the network plan knows convolution + sigmoid, with or without pooling, flatten, and "
        "dense layers with or without sigmoid, each with a bias, the first one a convolution"
    )


def _layer(step: Applied, at: int) -> str:
    return f"layer {at} ({type(step.layer).__name__})"


def _output(steps: Sequence[Applied], at: int) -> str:
    return f"output of {_layer(steps[at], at)}"


def _on(step: Applied, h: Tensor) -> Expr:
    """What a layer says, on the tensor that holds its input."""
    assert step.y.body is not None
    return Substitution(0, (), 0, {}, lambda t: h if t == step.x else t).expr(step.y.body)


def _activated(step: Applied, h: Tensor, at: int) -> Stage:
    """A layer and its sigmoid in one stage."""
    rank = step.y.rank
    body = term(rank, Apply("sigmoid", _on(step, h)))
    axes = rank - 2
    letters = f"b n {axis_letters('i', axes)} c {axis_letters('a', axes)}" if axes else "b n k"
    return Stage(define(f"A{at}", list(step.y.box), body), "product", letters)


def _pooled(step: Applied, a: Stage, at: int, tile: int) -> Stage:
    """The mean over tiles, in the kernel of the product where a thread has all cells of a tile."""
    axes = step.y.rank - 2
    template: Template = "pooled" if a.template == "product" and ADJACENT % tile**axes == 0 else "cells"
    pool = define(f"P{at}", list(step.y.box), _on(step, a.tensor))
    return Stage(pool, template, f"b n {axis_letters('j', axes)} {axis_letters('r', axes)}")


# --- the loss -----------------------------------------------------------------------------------------------------


def _loss(made: Builder, z: Tensor, target: Tensor) -> Stage:
    """The loss and its cotangent of the logits, everything relative to the row's maximum; gives the cotangent.

    ``dL = (exp(z - M) / Sum exp(z - M) - T) / N`` and ``L = Sum_b (log Sum_n exp(z - M) + M - Sum_n T z) / N``.
    """
    batch, classes = z.box
    (b,), (n,) = variables(0, 1), variables(1, 1)
    few = classes[1].constant is None or classes[1].constant <= CLASSES
    row: dict[str, Tensor] = {}

    def rows(name: str, body: Expr, letters: str, meaning: str) -> None:
        stage = Stage(define(name, [batch], body), "local" if few else "cells", letters)
        row[name] = made.add(stage, meaning).tensor

    def relative(depth: int) -> Apply:
        top = term(depth, row["M"][(b,)])
        return Apply("exp", term(depth, z[b, n]) - top)

    rows("M", term(1, Maximum((classes,), (), term(2, z[b, n]))), "b n", "an image's largest logit")
    rows("Se", term(1, relative(2), over=[classes]), "b n", "sum of the exponentials of its logits, relative to that")
    one = term(0, Apply("recip", term(0, over=[batch])))
    share = made.add(Stage(define("Share", [], one), "local"), "1 over the number of images").tensor
    total = term(1, Apply("log", term(1, row["Se"][(b,)]))) + term(1, row["M"][(b,)])
    rows("Le", total - term(1, target[b, n], z[b, n], over=[classes]), "b n", "an image's loss")
    mean = term(0, row["Le"][(b,)], share[()], over=[batch])
    made.add(Stage(define("L", [], mean), "reduce", "b"), "the loss: the mean of those")
    soft = term(2, relative(2), Apply("recip", term(2, row["Se"][(b,)])), share[()])
    body = soft - term(2, target[b, n], share[()])
    return made.add(Stage(define("dL", list(z.box), body), "cells", "b n"), f"gradient of the loss by {z.name}")


# --- backwards ----------------------------------------------------------------------------------------------------


def _backward(made: Builder, group: Group, down: Stage, *, first: bool) -> Stage | None:
    """The backward stages from the cotangent of a group's output; gives the cotangent of its input unless ``first``."""
    to_input = f"gradient of the loss by {group.x.name}"
    if isinstance(group.first.layer, Flatten):
        return made.add(_unflattened(down.tensor, group), to_input)
    to_sum = f"gradient of the loss by the output of {_layer(group.first, group.at)}"
    dz = down if group.activated is None else made.add(_to_sum(group, group.activated, down.tensor), to_sum)
    _parameters(made, group, dz)
    return None if first else made.add(_to_input(group, dz.tensor), to_input)


def _to_sum(group: Group, a: Stage, down: Tensor) -> Stage:
    """``dZ[b,n,i] = 1/t^axes G[b,n, i // t] (A - A^2)``: back through pooling and sigmoid."""
    rank = a.tensor.rank
    at = variables(0, rank)
    there = (*at[:2], *(i // group.tile for i in at[2:])) if group.tile > 1 else at
    share = Fraction(1, group.tile ** (rank - 2))
    body = term(rank, down[there], a.tensor[at], coefficient=share)
    body = body - term(rank, down[there], a.tensor[at], a.tensor[at], coefficient=share)
    letters = " ".join(a.letters.split()[:rank])
    return Stage(define(f"dZ{group.at}", list(a.tensor.box), body), "cells", letters)


def _parameters(made: Builder, group: Group, dz: Stage) -> None:
    """The gradients of weight and bias: sums over the batch."""
    weight, bias = group.first.parameters["weight"], group.first.parameters["bias"]
    axes = weight.rank - 2
    if axes:
        body = weight_gradient(group.first, dz.tensor, group.x)
    else:
        n, k, b = variables(0, 3)
        body = term(2, dz.tensor[b, n], group.x[b, k], over=[dz.tensor.box[0]])
    letters = f"n c {axis_letters('a', axes)} b {axis_letters('i', axes)}" if axes else "n k b"
    dw = Stage(define(f"d{weight.name}", list(weight.box), body), "product", letters)
    dw = replace(dw, template="product" if is_product(dw) else "reduce")
    made.stages.append(dw)
    (n,), (b, *positions) = variables(0, 1), variables(1, 1 + axes)
    summed = term(1, dz.tensor[(b, n, *positions)], over=[dz.tensor.box[0], *dz.tensor.box[2:]])
    du = define(f"d{bias.name}", list(bias.box), summed)
    beside: Template = "column" if dw.template == "product" else "reduce"
    made.stages.append(Stage(du, beside, f"n b {axis_letters('i', axes)}"))
    made.tell(f"gradients of the loss by {weight.name} and {bias.name}", dw.name, du.name)


def _to_input(group: Group, dz: Tensor) -> Stage:
    """The cotangent of what a group reads."""
    axes, name, box = dz.rank - 2, f"dX{group.at}", list(group.x.box)
    if axes:
        letters = f"b c {axis_letters('h', axes)} n {axis_letters('a', axes)}"
        return Stage(define(name, box, input_gradient(group.first, dz)), "product", letters)
    weight = group.first.parameters["weight"]
    b, k, n = variables(0, 3)
    body = term(2, weight[n, k], dz[b, n], over=[weight.box[0]])
    return Stage(define(name, box, body), "product", "b k n")


def _unflattened(down: Tensor, group: Group) -> Stage:
    """``dP[b,c,i,j] = dF[b, (c H + i) W + j]``."""
    rank = group.x.rank
    at = variables(0, rank)
    flat = index(0)
    for v, (_, hi) in zip(at[1:], group.x.box[1:], strict=True):
        flat = flat * hi + v
    body = term(rank, down[at[0], flat])
    return Stage(define(f"dX{group.at}", list(group.x.box), body), "alias", f"b c {axis_letters('h', rank - 2)}")


# --- what is done at once -----------------------------------------------------------------------------------------


def _fused(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """Element-wise stages that are the only reader of a product: its epilogue, or what it is spread to."""
    by_name = {s.name: s for s in stages}
    readers: dict[str, set[str]] = {}
    for s in stages:
        for t in s.body.tensors:
            readers.setdefault(t.name, set()).add(s.name)

    def product(name: str, reader: str) -> str:
        """The product of that name, or of which it is another name, if nothing else reads it."""
        s = by_name.get(name)
        if s is None or readers[name] != {reader} or s.template not in ("product", "alias"):
            return ""
        if s.template == "product":
            return name
        (read,) = reads_of(s.body)
        return product(read.tensor.name, name)

    def fused(s: Stage) -> Stage:
        own = variables(0, s.tensor.rank)
        reads = [r for r in reads_of(s.body) if product(r.tensor.name, s.name)]
        if s.template != "cells" or len({r.tensor.name for r in reads}) != 1:
            return s
        (tensor,) = {r.tensor for r in reads}
        if all(r.at == own for r in reads):
            found = product(tensor.name, s.name)
            return replace(s, template="epilogue", into=found) if found == tensor.name else s
        return replace(s, template="spread") if _leaves_nothing(s.tensor, tensor) else s

    return tuple(fused(s) for s in stages)


def _leaves_nothing(whole: Tensor, tiles: Tensor) -> bool:
    """Whether tiles, as many as another tensor has cells, cover all cells of a tensor."""
    sizes = [
        ((hi - lo).constant, (n - m).constant) for (lo, hi), (m, n) in zip(whole.box[2:], tiles.box[2:], strict=True)
    ]
    return all(size is not None and count and size % count == 0 for size, count in sizes)


def _renewed(join: Join, plan: Plan) -> Join:
    """A join with the stages as they are in the plan."""

    def found(cotangent: Cotangent | None) -> Cotangent | None:
        return None if cotangent is None else Cotangent(plan.by_name[cotangent.stage.name], cotangent.scale)

    return replace(join, down=found(join.down) or join.down, up=found(join.up))
