"""A network with every size forgotten: the same kinds of layers, a symbol for each dimension.

What is proved of the architecture holds for every network of it.  ``forget`` gives the architecture of a network with
numbers and the numbers that lead back to it; ``instance`` checks by plain arithmetic that they satisfy the facts of the
theorem, and that the stages of the plan at those numbers are, one by one, the stages of the theorem's plan.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from codegen.plan import BATCH, Plan
from derive.indices import Guard, Index, at_least, constant_truth, index, symbol
from derive.layers import Applied, Conv, Flatten, Layer, Linear, Sequential
from derive.terms import Substitution, Tensor, resized, tensor


@dataclass(frozen=True)
class Architecture:
    """The network in symbols, its input shape, and the value of every symbol for the network it came from."""

    net: Sequential
    input_shape: tuple[Index, ...]
    sizes: Mapping[str, int]


def forget(net: Sequential, input_shape: Sequence[Index]) -> Architecture:
    """The architecture of a network; the batch size stays the symbol it is.

    >>> from derive.layers import lenet
    >>> forget(lenet(), (symbol("N"), index(1), index(28), index(28))).sizes["K"]
    10
    """
    fresh = _Symbols()
    batch, channels, *spatial = input_shape
    shape = [batch, fresh("C", channels), *(fresh(f"n{axis}", n) for axis, n in enumerate(spatial))]
    layers: list[Layer] = []
    for at, layer in enumerate(net.layers):
        so_far = tuple(Sequential(*layers).output_shape(shape)) if layers else tuple(shape)
        last = not any(isinstance(later, (Conv, Linear)) for later in net.layers[at + 1 :])
        layers.append(_forgotten(layer, so_far, fresh, str(at), last=last))
    symbolic = Sequential(*layers)
    sizes = dict(fresh.values)
    numbers = net.chain(tensor("X", *input_shape))
    for ours, theirs in zip(symbolic.chain(tensor("X", *shape)), numbers, strict=True):
        sizes.update(_outputs(ours, theirs))
    return Architecture(symbolic, tuple(shape), sizes)


class _Symbols:
    """Hands out symbols and remembers which number each stands for."""

    def __init__(self) -> None:
        self.values: dict[str, int] = {}

    def __call__(self, name: str, value: object) -> Index:
        number = index(value).constant if isinstance(value, (int, Index)) else None
        if number is None:
            raise ValueError(f"{name}={value!r}: a network with numbers is needed, but for its batch size")
        self.values[name] = number
        return symbol(name)


def _forgotten(layer: Layer, shape: tuple[Index, ...], fresh: _Symbols, at: str, *, last: bool) -> Layer:
    """A layer of the same kind with symbols; pools keep their sides, whose reciprocal has to be a number."""
    if isinstance(layer, Conv):
        if layer.is_grouped:
            raise ValueError(
                f"layer={layer!r}: no architecture of a network has grouped convolutions; groups=1 is legal"
            )
        dims = {}
        for name, letter in (("kernel_size", "k"), ("stride", "s"), ("padding", "p"), ("dilation", "d")):
            values = getattr(layer, name)
            dims[name] = tuple(fresh(f"{letter}{at}_{axis}", v) for axis, v in enumerate(values))
        out = fresh(f"C{at}", layer.out_channels)
        return type(layer)(shape[1], out, dims["kernel_size"], dims["stride"], dims["padding"], dims["dilation"],
                           bias=layer.bias)  # fmt: skip
    if isinstance(layer, Linear):
        return Linear(shape[-1], fresh("K" if last else f"F{at}", layer.out_features), layer.bias)
    return layer


def _outputs(ours: Applied, theirs: Applied) -> Iterator[tuple[str, int]]:
    """The values of the symbols that name output sizes."""
    if isinstance(ours.layer, Flatten):
        return
    for (_, mine), (_, other) in zip(ours.y.box, theirs.y.box, strict=True):
        names = mine.symbols
        if other.constant is not None and len(names) == 1 and mine == symbol(next(iter(names))):
            yield next(iter(names)), other.constant


def instance(plan: Plan, general: Plan, facts: Sequence[Guard], sizes: Mapping[str, int]) -> str:
    """Empty when ``plan`` is the general one with these sizes, and they satisfy the facts; else what differs."""
    if len(plan.stages) != len(general.stages):
        return f"the plan has {len(plan.stages)} stages and the theorem's {len(general.stages)}"
    if plan.outputs != general.outputs or plan.parameters != general.parameters:
        return "the plan's outputs or parameters are not the stages and inputs that the theorem's are"
    values = {name: index(value) for name, value in sizes.items()}
    for fact in facts:
        if not holds(fact, values):
            return f"the fact {fact.text} does not hold at this shape"
    cache: dict[Tensor, Tensor] = {}
    for ours, theirs in zip(plan.stages, general.stages, strict=True):
        if resized(theirs.tensor, values, cache) != ours.tensor:
            return f"the stage {ours.name} is not that of the theorem at these sizes"
        cache[theirs.tensor] = ours.tensor  # equal, and the very object that later stages of the plan read
    return ""


def holds(fact: Guard, values: Mapping[str, Index]) -> bool:
    """Whether a fact holds at these sizes for every batch size; of that, all that is known is that it is >= 0."""
    here = Substitution(0, (), 0, values).guard(fact)
    return constant_truth(here) is True or here == at_least(BATCH, 0)
