"""Who is timed: the emitted module, PyTorch in both layouts, SciPy, and textbook NumPy, behind one face.

A *peer* builds a *contestant* for a case, which is the call that is timed and a way to learn what it computed; or it
builds none, where the case is not for it.  What belongs to the call and what does not is decided here:

- certiconv: arrays of shape (batch, channels, ...) come in and go out in one layout, C-contiguous or, where the emitted
  text gives such a result, channels last in memory; every change of layout inside is timed.  Its workspace is made
  before and used again, as a training loop does.  On two threads, or in two processes if that is asked for, the batch
  is split (`runtime.parallel`), where that pays; handing over and adding up are timed.
- PyTorch: eager, without autograd for a convolution, only the gradient that is asked for.  In the layout channels_last
  the arrays, weight and all, lie in that layout before the call and stay in it: no conversion is timed, which favours
  PyTorch.  In a training step the images come as (batch, 1, 28, 28), and autograd and the optimiser are timed.
- SciPy: one `scipy.signal.correlate` for each output channel, by the method it chooses itself; only forward, stride 1,
  one group, and at most ``SCIPY_MOST`` multiply-adds, since it would take minutes otherwise.
- textbook NumPy: `runtime.textbook`.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np

from codegen.functions import passed, workspace
from codegen.layout import FIRST, LAST, Layout
from derive.layers import Sequential
from runtime import parallel, textbook
from runtime.arrays import Array, with_channels_last
from runtime.bench_cases import Case, Convolution
from runtime.bench_data import Data, LayerData, StepData
from runtime.compile import emit, load_text
from runtime.crew import Crew, crew_for
from runtime.parallel import Steps, seconds, step_seconds

CERTICONV = ("certiconv NCHW", "certiconv channels_last")
RESULTS = {"forward": "forward", "input": "input_gradient", "weight": "weight_gradient"}
SCIPY_MOST = 100_000_000


@dataclass(frozen=True)
class Contestant:
    """What a peer does for a case.

    Attributes:
        call: what is timed.
        outcome: calls it once, and gives what it computed by name.
    """

    call: Callable[[], Any]
    outcome: Callable[[], dict[str, Array]]


@dataclass(frozen=True)
class Peer:
    """One implementation.

    Attributes:
        name: as it is shown.
        build: the contestant for a case and its arrays; None where the case is not for this peer.
        package: what must be installed besides the base; "" for nothing.
    """

    name: str
    build: Callable[[Case, Data], Contestant | None]
    package: str = ""

    @property
    def installed(self) -> bool:
        """Whether it can be used here."""
        return not self.package or importlib.util.find_spec(self.package) is not None


def _pure(case: Case, call: Callable[[], Array]) -> Contestant:
    """A call that returns the result."""
    return Contestant(call, lambda: {case.part: np.asarray(call())})


def _stepping(call: Callable[[], object], params: dict[str, Array]) -> Contestant:
    """A call that changes the parameters."""

    def outcome() -> dict[str, Array]:
        call()
        return {name: array.copy() for name, array in params.items()}

    return Contestant(call, outcome)


# --- certiconv ----------------------------------------------------------------------------------------------


def emitted(case: Case, layout: Layout = FIRST) -> ModuleType:
    """The module that `codegen` prints for a case and arrays that lie so in memory.

    Raises:
        LayerError, EmitError: there is none.
    """
    layer, shape = case.work.layer(), case.work.input_shape
    text = emit(layer, backend="numpy", input_shape=shape, dtype="float32", layout=layout)
    return load_text(text.source)


MakeCrew = Callable[[ModuleType], Crew]


def crew_maker(threads: int, *, processes: bool = False) -> MakeCrew | None:
    """Who runs the parts of a call, for a module; None for one thread, which splits nothing."""
    if threads == 1:
        return None
    counts = (1, threads) if processes else (threads, 1)
    return lambda module: crew_for(module, np.float32, *counts)


def _ours(make_crew: MakeCrew | None, layout: Layout, case: Case, data: Data) -> Contestant | None:
    if isinstance(data, StepData):
        return _our_step(emitted(case), make_crew, case, data) if layout == FIRST else None
    if layout == LAST and data.x.ndim != 4:
        return None  # that layout is of images
    module = emitted(case, layout)
    if layout == LAST:
        if not (case.part == "weight" or RESULTS[case.part] in module.KEEPS_LAYOUT):
            return None  # the result would not have that layout
        data = replace(data, x=with_channels_last(data.x), g=with_channels_last(data.g))
    return _on_one(module, case, data) if make_crew is None else _on_several(make_crew(module), case, data)


def _our_step(module: ModuleType, make_crew: MakeCrew | None, case: Case, data: StepData) -> Contestant:
    layer, params = case.work.layer(), data.copies()
    assert isinstance(layer, Sequential)
    if make_crew is None:
        work = module.Workspace(len(data.x), np.float32)
        return _stepping(lambda: module.sgd_step(data.x, data.y, params, data.lr, work), params)
    steps = Steps(make_crew(module), image=step_seconds(layer, case.work.input_shape))
    return _stepping(lambda: steps.step(data.x, data.y, params, data.lr), params)


def _on_several(crew: Crew, case: Case, data: LayerData) -> Contestant:
    conv = parallel.Convolution(crew, image=seconds(case.work.layer(), case.work.input_shape))
    if case.part == "forward":
        return _pure(case, lambda: conv.forward(data.x, data.w, data.b))
    if case.part == "weight":
        return _pure(case, lambda: conv.weight_gradient(data.g, data.x))
    return _pure(case, lambda: conv.input_gradient(data.g, data.w))


def _on_one(module: ModuleType, case: Case, data: LayerData) -> Contestant:
    result = RESULTS[case.part]
    given = passed(result, {"input": data.x, "weight": data.w, "bias": data.b, "grad_output": data.g})
    work = getattr(module, workspace(result))(len(data.x), np.float32)
    return _pure(case, functools.partial(getattr(module, result), *given, work))


# --- PyTorch ------------------------------------------------------------------------------------------------


def _pytorch(layout: str) -> Callable[[Case, Data], Contestant | None]:
    def build(case: Case, data: Data) -> Contestant | None:
        import torch

        memory = getattr(torch, layout)
        if isinstance(data, StepData):
            return _torch_step(data, memory)
        if layout == LAST and data.x.ndim != 4:
            return None  # that layout is of images
        return _torch_convolution(case, data, memory)

    return build


def _torch_convolution(case: Case, data: LayerData, memory: Any) -> Contestant:
    import torch

    assert isinstance(case.work, Convolution)
    x, w, g = (
        torch.from_numpy(a).contiguous(memory_format=memory) if a.ndim == 4 else torch.from_numpy(a)
        for a in (data.x, data.w, data.g)
    )
    b, setting = torch.from_numpy(data.b), case.work.setting
    stride, padding = list(setting.stride), list(setting.padding)
    ones, zeros = [1] * len(stride), [0] * len(stride)
    mask = [case.part == "input", case.part == "weight", False]
    operators = torch.ops.aten

    def forward() -> Any:
        return operators.convolution(x, w, b, stride, padding, ones, False, zeros, setting.groups)

    def gradient() -> Any:
        found = operators.convolution_backward(
            g, x, w, [len(b)], stride, padding, ones, False, zeros, setting.groups, mask
        )
        return found[mask.index(True)]

    return _pure(case, forward if case.part == "forward" else gradient)


def _torch_step(data: StepData, memory: Any) -> Contestant:
    import torch
    from torch import nn

    images, labels = torch.from_numpy(data.x), torch.from_numpy(data.y)
    net = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Sigmoid(), nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5), nn.Sigmoid(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.Sigmoid(), nn.Linear(120, 84), nn.Sigmoid(), nn.Linear(84, 10),
    )  # fmt: skip
    net.load_state_dict({name: torch.from_numpy(array) for name, array in data.copies().items()})
    net = net.to(memory_format=memory)
    optimiser, loss = torch.optim.SGD(net.parameters(), lr=data.lr), nn.CrossEntropyLoss()

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        loss(net(images.contiguous(memory_format=memory)), labels).backward()
        optimiser.step()

    return _stepping(step, {name: value.detach().numpy() for name, value in net.state_dict().items()})


# --- SciPy and textbook NumPy -------------------------------------------------------------------------------


def _scipy(case: Case, data: Data) -> Contestant | None:
    work = case.work
    if not isinstance(work, Convolution) or not isinstance(data, LayerData) or case.part != "forward":
        return None
    if work.stride != 1 or work.groups != 1 or work.cost().operations / 2 > SCIPY_MOST:
        return None
    from scipy import signal

    margin = [(0, 0), (0, 0), *[(work.padding, work.padding)] * len(work.image)]
    kernels = [kernel[None] for kernel in data.w]
    method = signal.choose_conv_method(np.pad(data.x, margin), kernels[0], mode="valid")

    def call() -> Array:
        x = np.pad(data.x, margin)
        result = np.empty(work.output_shape, np.float32)
        for k, kernel in enumerate(kernels):
            result[:, k : k + 1] = signal.correlate(x, kernel, mode="valid", method=method) + data.b[k]
        return result

    return _pure(case, call)


def _textbook(case: Case, data: Data) -> Contestant:
    if isinstance(data, StepData):
        params = data.copies()
        return _stepping(lambda: textbook.lenet_step(data.x, data.y, params, data.lr), params)
    assert isinstance(case.work, Convolution)
    x, w, b, g, setting = data.x, data.w, data.b, data.g, case.work.setting
    if case.part == "forward":
        return _pure(case, lambda: textbook.forward(x, w, b, setting))
    if case.part == "weight":
        return _pure(case, lambda: textbook.weight_gradient(g, x, w.shape[2:], setting))
    return _pure(case, lambda: textbook.input_gradient(g, w, x.shape, setting))


PYTORCH = ("PyTorch NCHW", "PyTorch channels_last")
SCIPY = "SciPy"
TEXTBOOK = "textbook NumPy"


def peers(threads: int = 1, *, processes: bool = False) -> tuple[Peer, ...]:
    """Everybody; that many threads, or processes, are ours to use, where the others take threads of their libraries."""
    make_crew = crew_maker(threads, processes=processes)
    return (
        Peer(CERTICONV[0], functools.partial(_ours, make_crew, FIRST)),
        Peer(CERTICONV[1], functools.partial(_ours, make_crew, LAST)),
        Peer(PYTORCH[0], _pytorch("contiguous_format"), "torch"),
        Peer(PYTORCH[1], _pytorch("channels_last"), "torch"),
        Peer(SCIPY, _scipy, "scipy"),
        Peer(TEXTBOOK, _textbook),
    )


PEERS = peers()
