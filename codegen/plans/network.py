"""The plan of a whole network: forward, loss and every gradient, batch innermost from the first layer to the last.

A network is cut into groups that the machine likes to do at once: a convolution with its sigmoid and pooling, a dense
layer with its sigmoid, a flattening.  Each group gives its forward stages and, from the cotangent of what it made, its
backward stages; the cotangents meet in the order of the chain rule.  Layouts are chosen once: the input is copied to
batch innermost, everything after it stays so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

from codegen.plan import Matrix, Plan, PlanError, Stage
from codegen.plans import convolution as conv
from codegen.plans import elementwise as ew
from codegen.plans import innermost as inner
from codegen.plans.elementwise import Cotangent
from derive.indices import Index, index
from derive.layers import Applied, AvgPool, Conv, Flatten, Linear, Sequential, Sigmoid
from derive.terms import Tensor, tensor

BLOCK = 64


@dataclass(frozen=True)
class Join:
    """Where a group meets its neighbours: layers ``first..last``, its output and input stage, and both cotangents."""

    first: int
    last: int
    output: Stage
    down: Cotangent
    input: Stage | None
    up: Cotangent | None


@dataclass
class Builder:
    """The stages so far; ``backward`` holds, for each group, how a cotangent passes through it."""

    inputs: list[Tensor]
    forward: list[Stage] = field(default_factory=list)
    backward: list[Group] = field(default_factory=list)
    matrices: list[Matrix] = field(default_factory=list)
    outputs: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)
    spans: list[tuple[int, int, Stage | None, Stage]] = field(default_factory=list)

    def add(self, *stages: Stage) -> Stage:
        """Append stages; gives the last one."""
        self.forward.extend(stages)
        return stages[-1]

    def owner(self, stage: Stage) -> Stage:
        """The stage whose buffer this one lies in."""
        while stage.into:
            stage = next(s for s in self.forward if s.name == stage.into)
        return stage


class Group:
    """Some layers done at once, with what their backward pass needs."""

    def gradients(self, down: Cotangent, *, first: bool) -> tuple[list[Stage], Cotangent | None]:
        """The backward stages from the cotangent of the output, and the cotangent of the input unless ``first``."""
        raise PlanError(f"{type(self).__name__} has no backward pass")


@dataclass
class ConvolutionGroup(Group):
    """Convolution and sigmoid, with average pooling over tiles that do not overlap or without."""

    w: conv.Windows
    x: Tensor
    applied: Applied
    kernel: tuple[Stage, ...]
    columns: tuple[Stage, Stage]
    s: Stage
    shape: Stage

    def gradients(self, down: Cotangent, *, first: bool) -> tuple[list[Stage], Cotangent | None]:
        """See the class: to z, to the kernel, and back through the windows."""
        weight, bias = self.applied.parameters["weight"], self.applied.parameters.get("bias")
        w = self.w
        share = Fraction(1, w.tile**w.axes)
        stages = list(ew.sigmoid_backward(self.s, down, w.suffix, len(w.slots), share))
        dz = stages[-1]
        gradient = inner.kernel_gradient(dz, *self.columns, w, bias is not None)
        stages += [*gradient, *inner.untile(gradient, weight, bias, w)]
        if first:
            return stages, None
        back = self._in_place(inner.input_gradient(self.kernel[0], dz, self.x, w))
        # The kernel is stored negated for the sigmoid, so what comes back through it is minus the cotangent.
        return [*stages, *back], Cotangent(back[-1], ew.MINUS)

    def _in_place(self, back: tuple[Stage, Stage]) -> tuple[Stage, Stage]:
        """The cotangents in the buffers of what they are the cotangents of, which nothing reads any more."""
        windows, image = back
        # A margin has to stay zero for the next image, and windows reach into it.
        margin = any(e != index(0) for pair in image.margin for e in pair)
        into = "" if margin else self.x.name
        return replace(windows, into=self.columns[0].name), replace(image, into=into)


@dataclass
class DenseGroup(Group):
    """A dense layer, with or without a sigmoid."""

    layer: ew.Dense
    applied: Applied
    a: Stage | None
    suffix: str

    def gradients(self, down: Cotangent, *, first: bool) -> tuple[list[Stage], Cotangent | None]:
        """See the class."""
        weight, bias = self.applied.parameters["weight"], self.applied.parameters["bias"]
        stages: list[Stage] = []
        dz = down.stage
        if self.a is not None:
            stages += ew.dense_sigmoid_backward(self.a, down, self.suffix)
            dz = stages[-1]
        elif down.scale != 1:
            raise PlanError(f"dense layer {self.suffix}: its cotangent has the scale {down.scale}")
        stages += ew.dense_backward(dz, self.layer, weight, bias, self.suffix)
        if first:
            return stages, None
        stages.append(ew.dense_input_gradient(dz, weight, self.suffix))
        return stages, Cotangent(stages[-1])


@dataclass
class FlattenGroup(Group):
    """Fewer axes, the same cells."""

    p: Stage
    suffix: str

    def gradients(self, down: Cotangent, *, first: bool) -> tuple[list[Stage], Cotangent | None]:
        """See the class."""
        back = ew.unflattened(down.stage, self.p, self.suffix)
        return [back], Cotangent(back, down.scale)


def network(net: Sequential, input_shape: Sequence[Index], *, block: int = BLOCK) -> Plan:
    """The plan of a network of convolution + sigmoid (+ pooling) groups, a flattening, and dense layers, with its loss.

    Raises PlanError for a network of another form; the text says where it stops.
    """
    return joined(net, input_shape, block=block)[0].check()


def joined(net: Sequential, input_shape: Sequence[Index], *, block: int = BLOCK) -> tuple[Plan, tuple[Join, ...]]:
    """The plan of a network, and where its groups meet, last group first: what a proof goes along."""
    x = tensor("X", *input_shape)
    target = tensor("T", x.box[0][1], net.output_shape(input_shape)[-1])
    steps = net.chain(x)
    made = Builder([x, target])
    at, h = 0, None
    while at < len(steps):
        used, output = _group(made, steps, at, x, h)
        made.spans.append((at, at + used - 1, h, output))
        at, h = at + used, output
    if h is None or h.tensor.rank != 2:
        raise PlanError("the network has to end in a dense layer: its loss is that of classes")
    made.outputs["forward"] = h.name
    *loss, dz = ew.cross_entropy(h, target)
    stages = [*made.forward, *loss, dz]
    made.outputs["loss"] = "L"
    down = Cotangent(dz)
    joins = []
    for group, (first, last, before, output) in zip(reversed(made.backward), reversed(made.spans), strict=True):
        more, up = group.gradients(down, first=first == 0)
        joins.append(Join(first, last, output, down, before, up))
        stages += more
        down = up or down
    gradients = {f"gradient {public}": f"d{name}" for public, name in made.parameters.items()}
    plan = Plan(
        "network", tuple(made.inputs), tuple(stages), {**made.outputs, **gradients}, tuple(made.matrices),
        made.parameters, block,
    )  # fmt: skip
    return plan, tuple(joins)


def _group(made: Builder, steps: Sequence[Applied], at: int, x: Tensor, h: Stage | None) -> tuple[int, Stage]:
    """Plan the group that starts at a layer; gives how many layers it took and its output."""
    layer = steps[at].layer
    following = [step.layer for step in steps[at + 1 : at + 3]]
    if isinstance(layer, Conv) and layer.is_grouped:
        raise PlanError(f"layer {at}: groups={layer.groups}: no plan of a network has grouped convolutions; nearest: 1")
    if isinstance(layer, Conv) and layer.bias:
        _take_parameters(made, steps[at], at)
        return _convolution(made, steps, at, following, x, h)
    if isinstance(layer, Linear) and layer.bias and h is not None:
        _take_parameters(made, steps[at], at)
        return _dense(made, steps[at], at, h, sigmoid=bool(following) and isinstance(following[0], Sigmoid))
    if isinstance(layer, Flatten) and h is not None and h.tensor.rank > 2:
        made.backward.append(FlattenGroup(h, str(at)))
        return 1, made.add(ew.flattened(h, str(at)))
    raise PlanError(
        f"layer {at} is {layer}: the network plan knows convolution + sigmoid, with or without pooling, flatten, and "
        "dense layers with or without sigmoid, each with a bias, the first one a convolution"
    )


def _dense(made: Builder, step: Applied, at: int, h: Stage, *, sigmoid: bool) -> tuple[int, Stage]:
    weight, bias = _weights(step)
    layer = ew.dense(h, weight, bias, str(at), scale=ew.MINUS if sigmoid else Fraction(1))
    made.add(*layer.kernel, layer.one)
    output = made.add(layer.product)
    made.matrices += ew.dense_matrices(layer, made.owner(h), str(at))
    a = made.add(ew.sigmoid_of(output, f"A{at}")) if sigmoid else None
    made.backward.append(DenseGroup(layer, step, a, str(at)))
    return (2 if sigmoid else 1), a or output


def _convolution(
    made: Builder, steps: Sequence[Applied], at: int, following: Sequence[object], x: Tensor, h: Stage | None
) -> tuple[int, Stage]:
    step = steps[at]
    tile, used = pool_of(at, following)
    output = steps[at + used - 1].y
    w = conv.windows_of(step, tile, tuple(hi for _, hi in output.box[2:]), str(at))
    if h is None:
        h = made.add(inner.image(x, w, w.margin()))
    weight, bias = _weights(step)
    kernel = inner.kernel(weight, bias, w, ew.MINUS)
    columns = inner.columns(h.tensor, w)
    made.add(*kernel, *columns)
    made.matrices += inner.matrices(w, bias=True)
    negated = made.add(inner.product(kernel[0], kernel[1], *columns, w, f"Zm{at}"))
    s = made.add(ew.sigmoid_of(negated, f"Sh{at}", shift=-ew.HALF))
    p = made.add(*ew.pooled(s, str(at), tile, w.axes, _next_margin(steps, at + used)))
    made.backward.append(ConvolutionGroup(w, h.tensor, step, kernel, columns, s, p))
    return used, p


def pool_of(at: int, following: Sequence[object]) -> tuple[int, int]:
    """The side of the pool that follows, and how many layers the group has."""
    if not (following and isinstance(following[0], Sigmoid)):
        raise PlanError(f"layer {at}: the network plan needs a sigmoid after a convolution")
    pool = following[1] if len(following) > 1 else None
    if not isinstance(pool, AvgPool):
        return 1, 2
    sides = {*_sides(pool.kernel_size), *_sides(pool.stride)}
    if len(sides) != 1:
        raise PlanError(f"layer {at + 2}: the network plan needs a pool whose sides and strides are equal, not {pool}")
    return sides.pop(), 3


def _sides(dims: object) -> list[int]:
    return [d for d in dims if isinstance(d, int)] if isinstance(dims, tuple) else []


def _next_margin(steps: Sequence[Applied], at: int) -> tuple[tuple[Index, Index], ...]:
    """The margin that the layer after a group needs around its input."""
    none = ((index(0), index(0)),)
    step = steps[at] if at < len(steps) else None
    if step is None or not isinstance(step.layer, Conv):
        return none * (len(steps[at - 1].y.box))
    tile, used = pool_of(at, [s.layer for s in steps[at + 1 : at + 3]])
    output = steps[at + used - 1].y
    return conv.windows_of(step, tile, tuple(hi for _, hi in output.box[2:]), str(at)).margin()


def _take_parameters(made: Builder, step: Applied, at: int) -> None:
    for key, t in step.parameters.items():
        made.inputs.append(t)
        made.parameters[f"{at}.{key}"] = t.name


def _weights(step: Applied) -> tuple[Tensor, Tensor]:
    return step.parameters["weight"], step.parameters["bias"]
