"""A stand-in for what `codegen` emits: small modules, written by hand, that keep the contract of emitted ones.

Tests of the border, of networks, of training and of the command are about what happens around a module, so they run on
this text: it is emitted at once, and a test can look at how often it was asked for.  Nothing about the emitted text
itself is tested with it.
"""

import hashlib
import importlib
from dataclasses import dataclass, field

import pytest

import codegen
from derive.layers import Conv, Layer, Sequential

CONVOLUTION = """
from itertools import product

import numpy as np

STRIDE, PADDING, DILATION, KERNEL = {stride}, {padding}, {dilation}, {kernel}


def _cells(a, sizes):
    return tuple(slice(e * d, e * d + s * (o - 1) + 1, s) for e, d, s, o in zip(a, DILATION, STRIDE, sizes))


def _sizes(padded):
    return [(n - d * (k - 1) - 1) // s + 1 for n, d, k, s in zip(padded, DILATION, KERNEL, STRIDE)]


def _padded(input):
    return np.pad(input, [(0, 0), (0, 0), *((p, p) for p in PADDING)])


def forward(input, weight, bias=None):
    x = _padded(input)
    sizes = _sizes(x.shape[2:])
    out = np.zeros((len(x), len(weight), *sizes), x.dtype)
    for a in product(*map(range, KERNEL)):
        out += np.einsum("bc...,nc->bn...", x[(..., *_cells(a, sizes))], weight[(..., *a)])
    return out if bias is None else out + bias.reshape(-1, *[1] * len(sizes))


def backward(grad_output, input, weight):
    x = _padded(input)
    sizes = grad_output.shape[2:]
    gx, gw = np.zeros_like(x), np.zeros_like(weight)
    for a in product(*map(range, KERNEL)):
        cells = (..., *_cells(a, sizes))
        gx[cells] += np.einsum("bn...,nc->bc...", grad_output, weight[(..., *a)])
        over = [0, *range(2, x.ndim)]
        gw[(..., *a)] = np.tensordot(grad_output, x[cells], (over, over))
    inside = tuple(slice(p, p + n) for p, n in zip(PADDING, input.shape[2:]))
    return gx[(..., *inside)].copy(), gw, grad_output.sum(axis=(0, *range(2, grad_output.ndim)))
"""

LENET = """
import numpy as np

PARAMETERS = {parameters}


class Workspace:
    def __init__(self, batch, dtype):
        self.batch, self.dtype = batch, np.dtype(dtype)


def _sigmoid(z):
    return 1 / (1 + np.exp(-z))


def _columns(x, k):
    return np.lib.stride_tricks.sliding_window_view(x, (k, k), axis=(2, 3)).transpose(0, 2, 3, 1, 4, 5)


def _convolution(x, w, u):
    col = _columns(x, 5)
    flat = col.reshape(-1, w[0].size)
    z = (flat @ w.reshape(len(w), -1).T + u).reshape(*col.shape[:3], len(w)).transpose(0, 3, 1, 2)
    return _sigmoid(z), flat


def _pool(a):
    n, c, h, w = a.shape
    return a.reshape(n, c, h // 2, 2, w // 2, 2).mean(axis=(3, 5), dtype=a.dtype)


def _unpool(g, a):
    return (g.repeat(2, axis=2).repeat(2, axis=3) / a.dtype.type(4)) * a * (1 - a)


def _values(x, p, work):
    assert work is None or (work.batch, work.dtype) == (len(x), x.dtype)
    a1, c1 = _convolution(np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2))), p["0.weight"], p["0.bias"])
    p1 = _pool(a1)
    a2, c2 = _convolution(p1, p["3.weight"], p["3.bias"])
    f = _pool(a2).reshape(len(x), p["7.weight"].shape[1])
    h1 = _sigmoid(f @ p["7.weight"].T + p["7.bias"])
    h2 = _sigmoid(h1 @ p["9.weight"].T + p["9.bias"])
    return a1, c1, p1, a2, c2, f, h1, h2, h2 @ p["11.weight"].T + p["11.bias"]


def forward(x, params, work=None):
    return _values(x, params, work)[-1]


def _loss(z, y):
    top = z.max(axis=1, keepdims=True, initial=-np.inf)
    terms = np.log(np.exp(z - top).sum(axis=1)) + top[:, 0] - z[np.arange(len(y)), y]
    return float(terms.sum() / len(y)) if len(y) else 0.0


def loss(x, y, params, work=None):
    return _loss(forward(x, params, work), y)


def _both(x, y, p, work):
    a1, c1, p1, a2, c2, f, h1, h2, z = _values(x, p, work)
    g = np.exp(z - z.max(axis=1, keepdims=True, initial=-np.inf))
    g /= g.sum(axis=1, keepdims=True)
    g[np.arange(len(y)), y] -= 1
    g /= max(len(y), 1)
    out = {{"11.weight": g.T @ h2, "11.bias": g.sum(axis=0)}}
    g = (g @ p["11.weight"]) * h2 * (1 - h2)
    out |= {{"9.weight": g.T @ h1, "9.bias": g.sum(axis=0)}}
    g = (g @ p["9.weight"]) * h1 * (1 - h1)
    out |= {{"7.weight": g.T @ f, "7.bias": g.sum(axis=0)}}
    g = _unpool((g @ p["7.weight"]).reshape(len(x), 16, 5, 5), a2)
    flat = g.transpose(0, 2, 3, 1).reshape(-1, 16)
    out |= {{"3.weight": (flat.T @ c2).reshape(16, 6, 5, 5), "3.bias": flat.sum(axis=0)}}
    wide = np.pad(g, ((0, 0), (0, 0), (4, 4), (4, 4)))
    turned = p["3.weight"][:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    g = (_columns(wide, 5).reshape(-1, 400) @ turned.reshape(6, -1).T).reshape(len(x), 14, 14, 6).transpose(0, 3, 1, 2)
    flat = _unpool(g, a1).transpose(0, 2, 3, 1).reshape(-1, 6)
    out |= {{"0.weight": (flat.T @ c1).reshape(6, 1, 5, 5), "0.bias": flat.sum(axis=0)}}
    return _loss(z, y), {{name: out[name] for name in PARAMETERS}}


def gradients(x, y, params, work=None):
    return _both(x, y, params, work)[1]


def sgd_step(x, y, params, lr, work=None):
    before, found = _both(x, y, params, work)
    for name, gradient in found.items():
        params[name] -= params[name].dtype.type(lr) * gradient
    return before
"""


@dataclass(frozen=True)
class Plan:
    stages: tuple[()] = ()


@dataclass(frozen=True)
class Emitted:
    source: str
    plan: Plan = field(default_factory=Plan)
    certificate: None = None

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.source.encode()).hexdigest()


class Standin:
    """`emit`, noting what it was asked for."""

    def __init__(self) -> None:
        self.emitted: list[Layer] = []

    def emit(self, layer: Layer, *, backend: str = "numpy", input_shape: tuple[int, ...], dtype: str) -> Emitted:
        assert backend == "numpy"
        self.emitted.append(layer)
        if isinstance(layer, Sequential):
            return Emitted(LENET.format(parameters=layer.parameter_shapes()))
        assert isinstance(layer, Conv)
        settings = {name: getattr(layer, name) for name in ("stride", "padding", "dilation")}
        return Emitted(CONVOLUTION.format(kernel=layer.kernel_size, **settings))


def install(monkeypatch: pytest.MonkeyPatch) -> Standin:
    """Put the stand-in where `runtime.compile` looks for `codegen`, under a version of its own in the cache."""
    standin = Standin()
    monkeypatch.setattr(importlib.import_module("runtime.compile"), "_generator", lambda: "the stand-in")
    monkeypatch.setattr(codegen, "emit", standin.emit)
    return standin
