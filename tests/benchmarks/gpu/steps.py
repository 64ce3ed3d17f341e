"""LeNet's training step: ours by calls and as a CUDA graph, PyTorch's by calls and as a CUDA graph of torch.compile.

One step is forward, loss, gradients and plain SGD in place, in float32, from images and labels that lie on the GPU.  A
graph reads its images from fixed arrays, into which each call copies the next batch: both graphs do that.  After some
steps from the same parameters all contestants have to have the same parameters, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

import codegen
from derive.layers import lenet
from runtime.gpu_timing import Call
from runtime.network import glorot
from tests.benchmarks.gpu.contestants import OURS, Load, allow_tf32
from tests.benchmarks.gpu.truth import Disagreement

RATE, CHECKED, CLOSE = 0.1, 4, 1e-4
Array = Any
Parameters = dict[str, Array]


@dataclass(frozen=True)
class Stepper:
    """A name, a step on the k-th batch, and the parameters as they are now, on the host."""

    name: str
    call: Call
    parameters: Callable[[], Parameters]


@dataclass(frozen=True)
class Batches:
    """Batches of images and labels on the host, and the parameters that all start with."""

    images: list[Array]
    labels: list[Array]
    parameters: Parameters

    @staticmethod
    def of(size: int, sets: int) -> Batches:
        """Normal images and labels at random."""
        rng = np.random.default_rng(1)
        images = [rng.standard_normal((size, 1, 28, 28), dtype=np.float32) for _ in range(sets)]
        labels = [rng.integers(0, 10, size) for _ in range(sets)]
        return Batches(images, labels, glorot(lenet(), seed=2, dtype="float32"))


def ours(given: Batches, cupy: Any, load: Load) -> Iterator[Stepper]:
    """The emitted network, by calls and as a graph."""
    size, sets = len(given.labels[0]), len(given.labels)
    module = load(codegen.emit(lenet(), backend="cupy", input_shape=(size, 1, 28, 28)).source)
    x, y = ([cupy.asarray(a) for a in arrays] for arrays in (given.images, given.labels))

    def stepper(name: str, call: Callable[[int, Parameters], None], params: Parameters) -> Stepper:
        return Stepper(
            name,
            lambda k: call(k % sets, params),
            lambda: {key: cupy.asnumpy(a) for key, a in params.items()},
        )

    work = module.Workspace(size)
    called = {key: cupy.asarray(a.copy()) for key, a in given.parameters.items()}
    yield stepper(OURS, lambda k, params: module.sgd_step(x[k], y[k], params, RATE, work), called)
    captured = {key: cupy.asarray(a.copy()) for key, a in given.parameters.items()}
    X, Y, graph = _graph(module, cupy, x[0], y[0], captured)

    def replay(k: int, _: Parameters) -> None:
        X[...] = x[k]
        Y[...] = y[k]
        graph.launch(cupy.cuda.get_current_stream())

    yield stepper(f"{OURS} graph", replay, captured)


def _graph(module: ModuleType, cupy: Any, x: Array, y: Array, params: Parameters) -> tuple[Array, Array, Any]:
    """The arrays that a graph of a step reads, and the graph."""
    X, Y, work = x.copy(), y.copy(), module.Workspace(len(x))
    module.sgd_step(X, Y, {key: a.copy() for key, a in params.items()}, RATE, work)  # compiles
    cupy.cuda.get_current_stream().synchronize()
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        module.sgd_step(X, Y, params, RATE, work)
        graph = stream.end_capture()
    return X, Y, graph


def torch_called(given: Batches, torch: Any, device: str) -> Stepper:
    """PyTorch by calls."""
    allow_tf32(torch, allow=False)
    x, y = _tensors(given, torch, device)
    sets = len(x)
    step = _step(torch, _loss(torch))
    params = _parameters(given, torch, device)
    return Stepper("torch", lambda k: step(x[k % sets], y[k % sets], *params.values()), lambda: _host(params))


def torch_graph(given: Batches, torch: Any, device: str) -> Stepper:
    """A graph of a step whose loss and gradients torch.compile made; without a GPU the step is called instead."""
    allow_tf32(torch, allow=False)
    x, y = _tensors(given, torch, device)
    sets = len(x)
    captured = _parameters(given, torch, device)
    compiled = _step(torch, torch.compile(_loss(torch), backend="inductor" if device == "cuda" else "eager"))
    X, Y = x[0].clone(), y[0].clone()
    replay = _captured(torch, compiled, X, Y, captured) if device == "cuda" else None

    def call(k: int) -> None:
        X.copy_(x[k % sets])
        Y.copy_(y[k % sets])
        if replay is None:
            compiled(X, Y, *captured.values())
        else:
            replay()

    return Stepper("torch compiled graph", call, lambda: _host(captured))


def _tensors(given: Batches, torch: Any, device: str) -> tuple[list[Array], list[Array]]:
    x, y = ([torch.from_numpy(a).to(device) for a in arrays] for arrays in (given.images, given.labels))
    return x, y


def _loss(torch: Any) -> Callable[..., Array]:
    """The loss of LeNet, its parameters in the order of ``state_dict``."""
    f = torch.nn.functional

    def loss(x: Array, y: Array, *p: Array) -> Array:
        h = f.avg_pool2d(torch.sigmoid(f.conv2d(x, p[0], p[1], padding=2)), 2)
        h = f.avg_pool2d(torch.sigmoid(f.conv2d(h, p[2], p[3])), 2).flatten(1)
        h = torch.sigmoid(f.linear(h, p[4], p[5]))
        h = torch.sigmoid(f.linear(h, p[6], p[7]))
        return f.cross_entropy(f.linear(h, p[8], p[9]), y)

    return loss


def _step(torch: Any, loss: Callable[..., Array]) -> Callable[..., Array]:
    """A step of SGD in place."""

    def step(x: Array, y: Array, *p: Array) -> Array:
        found = loss(x, y, *p)
        gradients = torch.autograd.grad(found, p)
        with torch.no_grad():
            torch._foreach_add_(p, gradients, alpha=-RATE)
        return found.detach()

    return step


def _captured(torch: Any, step: Callable[..., Array], X: Array, Y: Array, params: Parameters) -> Callable[[], None]:
    """The replay of a CUDA graph of a step, after warming up on copies, as PyTorch's manual asks."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    before = {key: a.detach().clone() for key, a in params.items()}
    with torch.cuda.stream(side):
        for _ in range(3):
            step(X, Y, *params.values())
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(X, Y, *params.values())
    with torch.no_grad():
        for key, a in params.items():
            a.copy_(before[key])
    return graph.replay


def _parameters(given: Batches, torch: Any, device: str) -> Parameters:
    made = {key: torch.from_numpy(a.copy()).to(device) for key, a in given.parameters.items()}
    return {key: a.requires_grad_() for key, a in made.items()}


def _host(params: Parameters) -> Parameters:
    return {key: a.detach().cpu().numpy().copy() for key, a in params.items()}


def check(steppers: list[Stepper], given: Batches) -> None:
    """Let every contestant take some steps; all have to come to the same parameters, and away from the first ones.

    Raises Disagreement.
    """
    for stepper in steppers:
        for k in range(CHECKED):
            stepper.call(k)
    first = steppers[0].parameters()
    for key, a in first.items():
        if np.array_equal(a, given.parameters[key]):
            raise Disagreement(f"{steppers[0].name} leaves {key} as it was")
    for other in steppers[1:]:
        for key, a in other.parameters().items():
            off = float(np.max(abs(a - first[key])))
            if not off <= CLOSE * max(1.0, float(np.max(abs(first[key])))):
                raise Disagreement(f"{other.name} and {steppers[0].name} are {off:.3g} apart in {key}")
