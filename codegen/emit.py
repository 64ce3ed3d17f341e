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
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from codegen.files import write_atomically
from codegen.layout import FIRST, LAYOUTS
from codegen.legal import (
    EmitError,
    check_cuda_algorithm,
    check_dtype,
    check_layer,
    check_numpy_algorithm,
    check_single_algorithm,
    check_tile,
    check_tiles,
    one_of,
)
from codegen.plan import BATCH, Plan, PlanError
from codegen.provenance import provenance_of, spec, told
from derive.indices import Index, index
from derive.layers import Activation, Applied, AvgPool, Conv, Layer, Linear, Sequential
from derive.legality import LayerError
from derive.terms import tensor

ITEMSIZES = {"float32": 4, "float64": 8}


if TYPE_CHECKING:
    from codegen.certificate import Certificate
    from codegen.network_proof import Planner
    from codegen.plans.bands import Bands
    from codegen.templates.cuda.kernels import Kernel


@dataclass(frozen=True)
class Emitted:
    """The text of a module and where it comes from.

    Attributes:
        source: the text; it imports NumPy or CuPy, and of Python's library what it needs.
        plans: the plans it was printed from: one for each result of a convolution, "network" for a network.
        algorithm: the algorithm of a convolution, or of each of its results where they differ; "network" for a network.
        layer, input_shape, dtype: what was asked for; the batch size of the shape stays free.
        theorems: digests of the theorems, proved for all sizes, that these plans are instances of, by result; and
            under "forward in bands" that of the theorem by which bands of rows are what they are put together to.
        backend: "numpy" or "cupy".
        cuda, kernels: for CuPy, the CUDA text in the module and its kernels with their launches.
        bands: the results of large images that are printed for a band of rows at a time, by the plan of a band.
    """

    source: str
    plans: Mapping[str, Plan]
    algorithm: str
    layer: Layer
    input_shape: tuple[int, ...]
    dtype: str
    theorems: Mapping[str, str]
    backend: str = "numpy"
    cuda: str = ""
    kernels: tuple[Kernel, ...] = ()
    bands: Mapping[str, Bands] = field(default_factory=dict)

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
    algorithm: str | Mapping[str, str] = "auto",
    tolerance: float | None = None,
    layout: str = FIRST,
    tiles: Mapping[str, str] | None = None,
) -> Emitted:
    """The text of a standalone module that computes a layer and its gradients.

    Args:
        layer: a convolution, an average pool, Sigmoid, Tanh, ReLU, Linear, or a Sequential of convolution + sigmoid
            (+ average pooling), Flatten and Linear (+ sigmoid), in that order; every dimension a number.
        backend: "numpy" or "cupy".
        input_shape: (batch, channels, spatial axes...), for an activation any that begins with the batch; the text is
            made for it, but the batch size stays free.
        dtype: "float32" or "float64": for which of them buffers are sized.  For CuPy also "float16" and "bfloat16", in
            which products are formed on tensor cores and sums in float32.
        algorithm: for a convolution the name of an algorithm (those of ``codegen.plans.algorithms.ALGORITHMS``) for all
            results, or a mapping from results ("forward", "input_gradient", ...) to names; "auto" takes for each result
            what ``codegen.choose`` predicts to be fastest.  For CuPy "definition", which is "auto", or "tf32": float32
            with products on tensor cores, which round their factors to 11 bits.  For any other layer by itself there is
            one algorithm, which "auto" names, and for Linear in float32 for CuPy also "tf32".
        tolerance: the largest error that "auto" accepts, relative to the largest value a result can have, for a batch
            of 8 images; None: as ``codegen.choose.choose`` says, about 1e-3 in float32.  Where no algorithm is sure to
            be within it, the one with the smallest bound is taken.
        layout: how images will lie in memory, "channels_first" or "channels_last": what "auto" is fastest for.  Any
            text takes arrays with any strides; those that a ``channels_last`` choice is made of mostly give results
            that lie so too, and say which in ``KEEPS_LAYOUT``.
        tiles: for CuPy, for some results of a convolution that are matrix products, how much of it a block computes, as
            ``{"forward": "128x64"}``, rows by columns, or "16x32x4" with four threads a sum; for the others, and with
            None for all, a model decides (``codegen.templates.cuda.choice``).  ``runtime.tune_tiles`` finds the fastest
            on a GPU.

    Returns:
        The ``Emitted`` text.

    Raises:
        LayerError: the layer cannot take the shape, or has a symbol for a dimension.
        EmitError: another argument is not one of those named, or no plan covers the layer.

    >>> from derive.layers import Conv2d
    >>> emitted = emit(Conv2d(6, 16, 5), input_shape=(8, 6, 14, 14))
    >>> list(emitted.plans), emit(Conv2d(6, 16, 5), input_shape=(8, 6, 14, 14), algorithm="gemm").algorithm
    (['forward', 'input_gradient', 'weight_gradient', 'bias_gradient'], 'gemm')
    >>> [kernel.name for kernel in emit(Conv2d(6, 16, 5), input_shape=(8, 6, 14, 14), backend="cupy").kernels]
    ['compute_Z', 'compute_dX', 'compute_dW', 'add_dW', 'compute_du', 'add_du']
    """
    shape = request(layer, backend, input_shape, dtype, algorithm, tolerance, layout)
    check_tiles(tiles)
    if backend == "cupy" and isinstance(layer, Conv):
        return _cupy(layer, shape, dtype, algorithm, dict(tiles or {}))
    if tiles:
        raise EmitError(f"tiles={tiles!r}: there is a choice for a convolution for CuPy only; nearest legal: None")
    if isinstance(layer, Conv):
        return _convolution(layer, shape, dtype, algorithm, tolerance, layout)
    if isinstance(layer, (AvgPool, Activation, Linear)):
        return _single(layer, shape, dtype, algorithm, backend)
    if isinstance(layer, Sequential):
        if not isinstance(algorithm, str) or algorithm not in ("auto", "network"):
            raise EmitError(
                f"algorithm={algorithm!r}: for a network it has to be one of 'auto', 'network'; nearest legal: 'auto'"
            )
        return _network(layer, shape, dtype, backend)
    raise EmitError(
        f"layer={layer!r}: by itself it has no text; convolutions, average pools, activations, Linear and Sequential "
        "can be emitted; nearest legal: a Sequential that it is a part of"
    )


def request(
    layer: Layer,
    backend: str,
    input_shape: Sequence[int],
    dtype: str,
    algorithm: str | Mapping[str, str] = "auto",
    tolerance: float | None = None,
    layout: str = FIRST,
) -> tuple[int, ...]:
    """The shape as plain integers, once everything that ``emit`` is asked for has been looked at.

    Raises LayerError or EmitError, as ``emit``.
    """
    check_layer(layer)
    one_of("backend", backend, ("numpy", "cupy"))
    check_dtype(dtype, backend, layer)
    _check_tolerance(tolerance, algorithm, layer)
    if backend == "numpy" and isinstance(layer, Conv):
        one_of("layout", layout, LAYOUTS)
    else:
        kind = "a network" if isinstance(layer, Sequential) else type(layer).__name__
        one_of("layout", layout, LAYOUTS[:1], of=f"for {kind}" if backend == "numpy" else f"for backend={backend!r}")
    if tolerance is not None and backend == "cupy":
        raise EmitError(f"tolerance={tolerance!r}: for backend='cupy' nothing is chosen by it; leave it out")
    return _numbers(layer, input_shape)


def _check_tolerance(tolerance: object, algorithm: str | Mapping[str, str], layer: Layer) -> None:
    """A tolerance is a positive number, and there is something to choose by it."""
    if tolerance is None:
        return
    if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)) or not 0 < tolerance < float("inf"):
        raise EmitError(f"tolerance={tolerance!r}: it has to be a finite number above 0, such as 1e-3")
    if not isinstance(layer, Conv):
        raise EmitError(f"tolerance={tolerance!r}: there is a choice for one convolution only; leave it out")
    if isinstance(algorithm, str) and algorithm != "auto":
        raise EmitError(
            f"tolerance={tolerance!r}: nothing is chosen by it where the algorithm is fixed, to {algorithm!r}"
        )


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


def _convolution(
    layer: Conv,
    shape: tuple[int, ...],
    dtype: str,
    asked: str | Mapping[str, str],
    tolerance: float | None,
    layout: str,
) -> Emitted:
    from codegen.layer_module import layer_source
    from codegen.plans.algorithms import ALGORITHMS as PLANNERS
    from codegen.plans.band_claims import theorems_of
    from codegen.plans.bands import fitting
    from codegen.plans.claims import proof_digests

    applied = layer.on(tensor("X", *_free_batch(shape)), "Y")
    algorithms = _algorithms(layer, applied, shape, dtype, asked, tolerance, layout)
    plans: dict[str, Plan] = {}
    theorems: dict[str, str] = {}
    bands: dict[str, Bands] = {}
    for name in dict.fromkeys(algorithms.values()):
        every = PLANNERS[name].plan(applied, itemsize=ITEMSIZES[dtype])
        own = {result: plan for result, plan in every.items() if algorithms[result] == name}
        plans |= own
        theorems |= proof_digests(applied, name, own)
        bands |= {
            result: cut
            for result, plan in own.items()
            if (cut := fitting(applied, name, result, plan, itemsize=ITEMSIZES[dtype]))
        }
    plans = {result: plans[result] for result in algorithms}
    theorems = {result: theorems[result] for result in algorithms if result in theorems}
    theorems |= theorems_of(applied, bands, theorems)
    names = told(algorithms)
    title = f"{type(layer).__name__} from {layer.in_channels} to {layer.out_channels} channels, and its gradients."
    provenance = provenance_of(layer, shape, dtype, algorithms, theorems)
    source = layer_source(applied, plans, title, provenance, dtype=dtype, bands=bands)
    return Emitted(source, plans, names, layer, shape, dtype, theorems, bands=bands)


def _cupy(
    layer: Conv, shape: tuple[int, ...], dtype: str, asked: str | Mapping[str, str], tiles: dict[str, str]
) -> Emitted:
    """A convolution for CuPy: each result as its definition, by the template that suits its sizes."""
    from codegen.cupy_module import cupy_source, legal_tiles
    from codegen.plans.claims import proof_digests
    from codegen.plans.definition import definition

    check_cuda_algorithm(asked, dtype)
    applied = layer.on(tensor("X", *_free_batch(shape)), "Y")
    plans = definition(applied)
    legal = legal_tiles(plans, dtype, tf32=asked == "tf32")
    if tiles and not legal:
        raise EmitError(f"tiles={tiles!r}: no result of this layer is a matrix product; nearest legal: None")
    for result, tile in tiles.items():
        one_of("tiles", result, tuple(legal))
        check_tile(result, tile, legal[result])
    tiles = {result: tiles[result] for result in plans if result in tiles}
    theorems: dict[str, str] = {}
    for result, plan in plans.items():
        theorems |= proof_digests(applied, plan.algorithm, {result: plan})
    title = (
        f"{type(layer).__name__} from {layer.in_channels} to {layer.out_channels} channels, and its gradients, in CUDA."
    )
    name = "tf32" if asked == "tf32" else "definition"
    named = dict.fromkeys(plans, name)
    provenance = provenance_of(layer, shape, dtype, named, theorems, backend="cupy", tiles=tiles)
    try:
        made = cupy_source(applied, plans, title, provenance, dtype=dtype, tf32=asked == "tf32", tiles=tiles)
    except PlanError as error:
        raise EmitError(f"layer={spec(layer)}: {error}") from error
    return Emitted(made.source, plans, name, layer, shape, dtype, theorems, "cupy", made.cuda, made.kernels)


def _single(layer: Layer, shape: tuple[int, ...], dtype: str, asked: str | Mapping[str, str], backend: str) -> Emitted:
    """A pool, an activation or a dense layer by itself, for which there is one algorithm, besides TF32."""
    from codegen.cupy_module import cupy_source
    from codegen.layer_module import layer_source
    from codegen.plans.layer_claims import kind_of, proof_digests

    kind = kind_of(layer, len(shape), backend)
    assert kind is not None  # these layers have one
    check_single_algorithm(asked, kind.algorithm, layer, backend, dtype)
    tf32 = asked == "tf32"
    name = "tf32" if tf32 else kind.algorithm
    applied = layer.on(tensor("X", *_free_batch(shape)), "Y")
    plans = kind.plan(applied, itemsize=ITEMSIZES.get(dtype, 4))
    theorems = proof_digests(kind, applied, plans)
    gradients = "gradients" if layer.parameter_shapes() else "gradient"
    title = f"{type(layer).__name__}, and its {gradients}" + (", in CUDA." if backend == "cupy" else ".")
    provenance = provenance_of(layer, shape, dtype, dict.fromkeys(plans, name), theorems, backend=backend)
    known = plans, name, layer, shape, dtype, theorems
    if backend == "cupy":
        made = cupy_source(applied, plans, title, provenance, dtype=dtype, tf32=tf32)
        return Emitted(made.source, *known, backend, made.cuda, made.kernels)
    return Emitted(layer_source(applied, plans, title, provenance, dtype=dtype), *known)


def _algorithms(
    layer: Conv,
    applied: Applied,
    shape: tuple[int, ...],
    dtype: str,
    asked: str | Mapping[str, str],
    tolerance: float | None,
    layout: str,
) -> dict[str, str]:
    """The algorithm for each result: the one asked for, or the one that is chosen."""
    from codegen.plans.algorithms import ALGORITHMS as PLANNERS
    from codegen.plans.algorithms import kind_of

    results = ["forward", "input_gradient", *(f"{key}_gradient" for key in applied.parameters)]
    if not isinstance(asked, (str, Mapping)):
        raise EmitError(f"algorithm={asked!r}: a name, or a mapping from results to names, such as 'auto', is needed")
    wanted = dict.fromkeys(results, asked) if isinstance(asked, str) else {**dict.fromkeys(results, "auto"), **asked}
    for result, name in wanted.items():
        one_of("algorithm", result, results)
        check_numpy_algorithm(name, tuple(PLANNERS))
        if name != "auto" and kind_of(applied, name) is None:
            fit = [other for other in PLANNERS if kind_of(applied, other) is not None]
            raise EmitError(
                f"algorithm={name!r}: it has no plan for {spec(layer)}; those that have one: {', '.join(fit)}"
            )
    if "auto" in wanted.values():
        from codegen.choose import choose

        chosen = {c.result: c.algorithm for c in choose(layer, shape, dtype, tolerance=tolerance, layout=layout)}
        wanted = {result: chosen[result] if name == "auto" else name for result, name in wanted.items()}
    return wanted


def _network(layer: Sequential, shape: tuple[int, ...], dtype: str, backend: str) -> Emitted:
    from codegen.cupy_network import network_source as cupy_source
    from codegen.module import network_source
    from codegen.plans import device_network, network

    joined = device_network.joined if backend == "cupy" else network.joined
    try:
        plan = joined(layer, _free_batch(shape))[0].check()
    except PlanError as error:
        raise EmitError(f"layer={spec(layer)}: {error}") from error
    theorems = _network_theorems(layer, shape, plan, joined, "lenet_device" if backend == "cupy" else "lenet")
    provenance = provenance_of(layer, shape, dtype, "network", theorems, backend=backend)
    asked = {"network": plan}, "network", layer, shape, dtype, theorems
    if backend == "cupy":
        made = cupy_source(plan, "A network", provenance, dtype=dtype)
        return Emitted(made.source, *asked, backend, made.cuda, made.kernels)
    return Emitted(network_source(plan, "A network", provenance), *asked)


def _network_theorems(
    layer: Sequential, shape: tuple[int, ...], plan: Plan, joined: Planner, name: str
) -> dict[str, str]:
    """The digests of the committed theorems that the plan is an instance of, by output; empty unless all are."""
    from codegen.architecture import forget, instance
    from codegen.committed import committed
    from codegen.network_proof import NetworkProof

    file = committed(name)
    architecture = forget(layer, _free_batch(shape))
    proof = NetworkProof.of(architecture, joined)
    if file is None or instance(plan, proof.plan, proof.facts, architecture.sizes):
        return {}
    claims = proof.claims()
    if not all(file.proves(output, claim) for output, claim in claims.items()):
        return {}
    return {output: str(file.outputs[output]["digest"]) for output in claims}


def _free_batch(shape: Sequence[int]) -> list[Index]:
    return [BATCH, *map(index, shape[1:])]
