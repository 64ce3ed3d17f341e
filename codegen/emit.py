"""``emit``: from a layer and a shape to the text that computes it.

The way is short: describe the layer on its input, plan it, print the plan.  Nothing is proved here and no solver is
imported; theorems that were proved beforehand are quoted by their digests, and only where this very plan is an instance
of them.  The same request gives the same bytes on every machine.
"""

from __future__ import annotations

import hashlib
import operator
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from textwrap import wrap
from typing import TYPE_CHECKING

from codegen.files import write_atomically
from codegen.plan import BATCH, Plan, PlanError
from codegen.version import VERSION
from derive.indices import Index, index
from derive.layers import Conv, Layer, Sequential
from derive.legality import LayerError
from derive.terms import tensor

ITEMSIZES = {"float32": 4, "float64": 8}
ALGORITHMS = ("gemm", "direct", "depthwise")


if TYPE_CHECKING:
    from codegen.certificate import Certificate


class EmitError(ValueError):
    """A request that cannot be met; the text names the argument, its value and what would be possible."""


@dataclass(frozen=True)
class Emitted:
    """The text of a module and where it comes from.

    Attributes:
        source: the text; it imports NumPy and nothing else.
        plans: the plans it was printed from: one for each result of a convolution, "network" for a network.
        algorithm: "gemm", "direct" or "depthwise" for a convolution, "network" for a network.
        layer, input_shape, dtype: what was asked for; the batch size of the shape stays free.
        theorems: digests of the theorems, proved for all sizes, that these plans are instances of, by result.
    """

    source: str
    plans: Mapping[str, Plan]
    algorithm: str
    layer: Layer
    input_shape: tuple[int, ...]
    dtype: str
    theorems: Mapping[str, str]

    @property
    def digest(self) -> str:
        """SHA-256 of the text."""
        return hashlib.sha256(self.source.encode()).hexdigest()

    @property
    def plan(self) -> Plan:
        """The plan of the forward pass; for a network that of everything."""
        return next(iter(self.plans.values()))

    @cached_property
    def certificate(self) -> Certificate:
        """What is known about the text and how; asking for it the first time executes the text exactly.

        Raises codegen.check.Refuted where the text does not compute its stages.
        """
        from codegen.check import check

        return check(self)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the text, whole or not at all: an interrupted write leaves what was there before.

        Raises OSError where the folder does not exist or cannot be written to.
        """
        write_atomically(path, self.source.encode())


def emit(
    layer: Layer,
    *,
    backend: str = "numpy",
    input_shape: Sequence[int],
    dtype: str = "float32",
    algorithm: str = "auto",
) -> Emitted:
    """The text of a standalone module that computes a layer and its gradients.

    Args:
        layer: Conv1d, Conv2d, Conv3d, or a Sequential of convolution + sigmoid (+ average pooling), Flatten and Linear
            (+ sigmoid), in that order; every dimension a number.
        backend: "numpy".
        input_shape: (batch, channels, spatial axes...); the text is made for it, but the batch size stays free.
        dtype: "float32" or "float64": for which of them buffers are sized.
        algorithm: for a convolution without groups, "gemm" or "direct"; "auto" takes direct for a single pair of
            channels, where a matrix product has a matrix of one row, and gemm for all others.  For a grouped one
            "direct"; or, where groups are as many as channels in and out, "depthwise", which "auto" takes there.

    Returns:
        The ``Emitted`` text.

    Raises:
        LayerError: the layer cannot take the shape, or has a symbol for a dimension.
        EmitError: another argument is not one of those named, or no plan covers the layer.

    >>> from derive.layers import Conv2d
    >>> emitted = emit(Conv2d(6, 16, 5), input_shape=(8, 6, 14, 14))
    >>> emitted.algorithm, list(emitted.plans)
    ('gemm', ['forward', 'input_gradient', 'weight_gradient', 'bias_gradient'])
    >>> emit(Conv2d(6, 16, 5), input_shape=(8, 6, 14, 14), backend="cupy")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    codegen.emit.EmitError: backend='cupy': text for CuPy is not printed yet; the only backend is 'numpy'
    """
    if backend == "cupy":
        raise EmitError("backend='cupy': text for CuPy is not printed yet; the only backend is 'numpy'")
    _one_of("backend", backend, ("numpy",))
    _one_of("dtype", dtype, tuple(ITEMSIZES))
    shape = _numbers(layer, input_shape)
    if isinstance(layer, Conv):
        return _convolution(layer, shape, dtype, algorithm)
    if isinstance(layer, Sequential):
        _one_of("algorithm", algorithm, ("auto", "network"))
        return _network(layer, shape, dtype)
    raise EmitError(f"layer={layer!r}: Conv1d, Conv2d, Conv3d and Sequential can be emitted")


def _one_of(argument: str, value: object, legal: Sequence[str]) -> None:
    if value not in legal:
        raise EmitError(f"{argument}={value!r}: it has to be one of {', '.join(map(repr, legal))}")


def _numbers(layer: Layer, input_shape: Sequence[int]) -> tuple[int, ...]:
    """The shape as plain integers, after a check that the layer can take it."""
    try:
        shape = tuple(operator.index(n) for n in input_shape)
    except TypeError:
        raise EmitError(f"input_shape={input_shape!r}: integers are needed, (batch, channels, ...)") from None
    outputs = layer.output_shape(shape)
    dims = [d for dims in layer.parameter_shapes().values() for d in dims]
    if any(index(d).constant is None for d in (*dims, *outputs)):
        raise LayerError(f"{layer}: it has a symbol for a dimension; text is printed for numbers")
    return shape


def _convolution(layer: Conv, shape: tuple[int, ...], dtype: str, algorithm: str) -> Emitted:
    from codegen.convolution_module import convolution_source
    from codegen.plans.claims import ALGORITHMS as PLANNERS
    from codegen.plans.claims import proof_digests

    _one_of("algorithm", algorithm, ("auto", *ALGORITHMS))
    algorithm = _algorithm(layer, algorithm)
    applied = layer.on(tensor("X", *_free_batch(shape)), "Y")
    plans = PLANNERS[algorithm](applied, itemsize=ITEMSIZES[dtype])
    theorems = proof_digests(applied, algorithm, plans)
    provenance = _provenance(layer, shape, dtype, algorithm, theorems)
    title = f"{type(layer).__name__} from {layer.in_channels} to {layer.out_channels} channels, and its gradients."
    source = convolution_source(applied, plans, title, provenance, dtype=dtype)
    return Emitted(source, plans, algorithm, layer, shape, dtype, theorems)


def _algorithm(layer: Conv, asked: str) -> str:
    """The algorithm to use.  EmitError where the one that was asked for has no plan for the groups."""
    legal: tuple[str, ...] = ("gemm", "direct")
    if layer.is_grouped:
        legal = ("depthwise", "direct") if layer.is_depthwise else ("direct",)
    if asked != "auto" and asked not in legal:
        sizes = f"groups={layer.groups}, in_channels={layer.in_channels}, out_channels={layer.out_channels}"
        raise EmitError(f"algorithm={asked!r}: a layer with {sizes} is computed by {' or '.join(map(repr, legal))}")
    if asked != "auto":
        return asked
    return "direct" if layer.in_channels == layer.out_channels == 1 else legal[0]


def _network(layer: Sequential, shape: tuple[int, ...], dtype: str) -> Emitted:
    from codegen.module import network_source
    from codegen.plans.network import network

    try:
        plan = network(layer, _free_batch(shape))
    except PlanError as error:
        raise EmitError(f"layer={spec(layer)}: {error}") from error
    theorems = _network_theorems(layer, shape, plan)
    source = network_source(plan, "A network", _provenance(layer, shape, dtype, "network", theorems))
    return Emitted(source, {"network": plan}, "network", layer, shape, dtype, theorems)


def _network_theorems(layer: Sequential, shape: tuple[int, ...], plan: Plan) -> dict[str, str]:
    """The digests of the committed theorems that the plan is an instance of, by output; empty unless all are."""
    from codegen.architecture import forget, instance
    from codegen.committed import committed
    from codegen.network_proof import NetworkProof

    file = committed("lenet")
    architecture = forget(layer, _free_batch(shape))
    proof = NetworkProof.of(architecture)
    if file is None or instance(plan, proof.plan, proof.facts, architecture.sizes):
        return {}
    claims = proof.claims()
    if not all(file.proves(output, claim) for output, claim in claims.items()):
        return {}
    return {output: str(file.outputs[output]["digest"]) for output in claims}


def _free_batch(shape: Sequence[int]) -> list[Index]:
    return [BATCH, *map(index, shape[1:])]


# --- provenance ---------------------------------------------------------------------------------------------------


def spec(layer: Layer, package: str = "") -> str:
    """A layer as the expression that makes it, every argument written out.

    >>> from derive.layers import Conv1d, Sequential, Sigmoid
    >>> spec(Sequential(Conv1d(1, 2, 3), Sigmoid()))
    'Sequential(Conv1d(1, 2, (3,), stride=(1,), padding=(0,), dilation=(1,), bias=True), Sigmoid())'
    """
    name = package + type(layer).__name__
    if isinstance(layer, Sequential):
        return f"{name}({', '.join(spec(inner, package) for inner in layer.layers)})"
    if isinstance(layer, Conv):
        keys = ("stride", "padding", "dilation", *(("groups",) if layer.is_grouped else ()), "bias")
        sides = "".join(f", {key}={getattr(layer, key)!r}" for key in keys)
        return f"{name}({layer.in_channels}, {layer.out_channels}, {layer.kernel_size!r}{sides})"
    return f"{name}({', '.join(f'{f.name}={getattr(layer, f.name)!r}' for f in fields(layer))})"


def _provenance(layer: Layer, shape: tuple[int, ...], dtype: str, algorithm: str, theorems: Mapping[str, str]) -> str:
    """What a module says of where it comes from: nothing that differs between machines, days or batch sizes."""
    options = f'input_shape={(1, *shape[1:])}, dtype="{dtype}", algorithm="{algorithm}"'
    call = f'codegen.emit({spec(layer, "derive.")}, {options}).write("FILE")'
    known = ["That its stages compute this layer follows from no theorem that comes with this version."]
    if theorems:
        known = ["That its stages compute this layer is proved for all sizes, by the theorems with the SHA-256"]
        known += [f"    {digest}  {result}" for result, digest in theorems.items()]
    lines = [
        f"Made by certiconv {VERSION} with the algorithm {algorithm} for any batch of {dtype}; made again by",
        *wrap(
            f"python -c 'import codegen, derive; {call}'", 112,
            initial_indent="    ", subsequent_indent="        ", break_long_words=False, break_on_hyphens=False,
        ),
        *known,
    ]  # fmt: skip
    return "\n".join(lines)
