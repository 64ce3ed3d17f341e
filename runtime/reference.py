"""The reference LeNet, written straight from the definitions of its layers (`runtime.reference_layers`).

This is the oracle that generated code is compared with, so it is written to be obviously right, not fast: float64,
loops over output positions, no import of `derive` or `codegen`.  The network is the LeNet of d2l 7.6, with sigmoids and
average pooling, for images of any channels and size that fit its parameters.  An image takes about 0.1 s.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from runtime.reference_layers import (
    Array,
    Labels,
    avg_pool2d,
    avg_pool2d_gradient,
    checked_float64,
    conv2d,
    conv2d_gradients,
    cross_entropy,
    cross_entropy_gradient,
    linear,
    linear_gradients,
    sigmoid,
    sigmoid_gradient,
)

__all__ = [
    "PARAMETER_NAMES",
    "Array",
    "Labels",
    "avg_pool2d",
    "avg_pool2d_gradient",
    "backward",
    "conv2d",
    "conv2d_gradients",
    "cross_entropy",
    "cross_entropy_gradient",
    "forward",
    "gradients",
    "linear",
    "linear_gradients",
    "loss",
    "sgd_step",
    "sigmoid",
    "sigmoid_gradient",
]

PARAMETER_NAMES = (
    *("0.weight", "0.bias"),  # convolution, then sigmoid (1) and pooling (2)
    *("3.weight", "3.bias"),  # convolution, then sigmoid (4), pooling (5) and flatten (6)
    *("7.weight", "7.bias"),  # dense, then sigmoid (8)
    *("9.weight", "9.bias"),  # dense, then sigmoid (10)
    *("11.weight", "11.bias"),  # dense: the logits
)
"""The names in torch's `state_dict` of a `Sequential` of these layers, in its order."""


def forward(x: npt.ArrayLike, params: Mapping[str, npt.ArrayLike]) -> Array:
    """Logits of LeNet, one row an image (d2l 7.6).

    Convolution with padding 2, sigmoid, average pooling 2x2; convolution without padding, sigmoid, average
    pooling 2x2; flatten; three dense layers with a sigmoid after the first and the second.

    Args:
        x: images, shape (N, C, H, W); N may be 0.
        params: the arrays named in `PARAMETER_NAMES`. Shapes for d2l's LeNet: (6, 1, 5, 5) and (6,),
            (16, 6, 5, 5) and (16,), (120, 400) and (120,), (84, 120) and (84,), (10, 84) and (10,).

    Returns:
        Logits, shape (N, classes).

    Raises:
        ValueError: a parameter is missing or unknown, or a shape does not fit the layer before it.

    >>> shapes = (6, 1, 5, 5), 6, (16, 6, 5, 5), 16, (120, 400), 120, (84, 120), 84, (10, 84), 10
    >>> params = dict(zip(PARAMETER_NAMES, map(np.zeros, shapes)))
    >>> forward(np.zeros((1, 1, 28, 28)), params).shape
    (1, 10)
    """
    return _layer_values(x, _checked_parameters(params))[-1]


def loss(x: npt.ArrayLike, y: npt.ArrayLike, params: Mapping[str, npt.ArrayLike]) -> float:
    """Softmax cross-entropy of LeNet's logits, averaged over the batch.

    Args:
        x: images, shape (N, C, H, W).
        y: labels, integers of shape (N,) in 0..classes-1.
        params: as for `forward`.

    Returns:
        The mean loss; 0.0 for an empty batch, where the mean is sum * recip(N) and recip(0) is 0.

    Raises:
        ValueError: as `forward` and `cross_entropy`.

    >>> shapes = (1, 1, 1, 1), 1, (1, 1, 1, 1), 1, (1, 4), 1, (1, 1), 1, (10, 1), 10
    >>> params = dict(zip(PARAMETER_NAMES, map(np.zeros, shapes)))
    >>> round(loss(np.ones((1, 1, 4, 4)), [3], params), 12)  # ten equal logits: log(10)
    2.302585092994
    """
    return cross_entropy(forward(x, params), y)


def gradients(x: npt.ArrayLike, y: npt.ArrayLike, params: Mapping[str, npt.ArrayLike]) -> dict[str, Array]:
    """Gradient of `loss` with respect to every parameter.

    Args:
        x: images, shape (N, C, H, W).
        y: labels, integers of shape (N,) in 0..classes-1.
        params: as for `forward`.

    Returns:
        A dict with the names and shapes of `params`, in the order of `PARAMETER_NAMES`; all zero for an empty
        batch.

    Raises:
        ValueError: as `loss`.

    >>> shapes = (1, 1, 1, 1), 1, (1, 1, 1, 1), 1, (1, 4), 1, (1, 1), 1, (2, 1), 2
    >>> params = dict(zip(PARAMETER_NAMES, map(np.zeros, shapes)))
    >>> gradients(np.ones((1, 1, 4, 4)), [1], params)["11.bias"].tolist()  # softmax less the truth
    [0.5, -0.5]
    """
    checked = _checked_parameters(params)
    values = _layer_values(x, checked)
    return _layer_gradients(cross_entropy_gradient(values[-1], y), values, checked)


def backward(grad_logits: npt.ArrayLike, x: npt.ArrayLike, params: Mapping[str, npt.ArrayLike]) -> dict[str, Array]:
    """Vector-Jacobian product of `forward`: the gradient of <grad_logits, forward(x, params)>.

    Args:
        grad_logits: any cotangent of the logits, shape (N, classes).
        x: images, shape (N, C, H, W).
        params: as for `forward`.

    Returns:
        A dict with the names and shapes of `params`, in the order of `PARAMETER_NAMES`.

    Raises:
        ValueError: as `forward`, or `grad_logits` has not the shape of the logits.

    >>> shapes = (1, 1, 1, 1), 1, (1, 1, 1, 1), 1, (1, 4), 1, (1, 1), 1, (2, 1), 2
    >>> params = dict(zip(PARAMETER_NAMES, map(np.zeros, shapes)))
    >>> backward([[3.0, -5.0]], np.ones((1, 1, 4, 4)), params)["11.bias"].tolist()
    [3.0, -5.0]
    """
    checked = _checked_parameters(params)
    values = _layer_values(x, checked)
    return _layer_gradients(checked_float64("grad_logits", grad_logits, values[-1].shape), values, checked)


def sgd_step(x: npt.ArrayLike, y: npt.ArrayLike, params: Mapping[str, Array], lr: float) -> None:
    """One step of plain stochastic gradient descent, in place: p becomes p - lr * (gradient of p).

    All gradients are taken at the parameters as they were before the step (d2l 12.4).

    Args:
        x: images, shape (N, C, H, W).
        y: labels, integers of shape (N,) in 0..classes-1.
        params: as for `forward`, but NumPy arrays of dtype float64, which are overwritten.
        lr: the learning rate.

    Raises:
        ValueError: as `loss`, or a parameter is not a float64 array that can be overwritten.

    >>> shapes = (1, 1, 1, 1), 1, (1, 1, 1, 1), 1, (1, 4), 1, (1, 1), 1, (2, 1), 2
    >>> params = dict(zip(PARAMETER_NAMES, map(np.zeros, shapes)))
    >>> sgd_step(np.ones((1, 1, 4, 4)), [1], params, lr=0.5)
    >>> params["11.bias"].tolist()
    [-0.25, 0.25]
    """
    for name, parameter in params.items():
        dtype = getattr(parameter, "dtype", None)
        if dtype != np.float64:
            kind = type(parameter).__name__ if dtype is None else dtype
            raise ValueError(f"params[{name!r}] is {kind}; a step in place needs a NumPy array of float64")
        if not parameter.flags.writeable:
            raise ValueError(f"params[{name!r}] is read-only; a step in place needs an array it may overwrite")
    for name, gradient in gradients(x, y, params).items():
        params[name][...] -= lr * gradient


def _layer_values(x: npt.ArrayLike, p: Mapping[str, Array]) -> list[Array]:
    """What flows between the layers: layer i of the Sequential reads entry i and gives entry i + 1."""
    v = [checked_float64("x", x, (None, p["0.weight"].shape[1], None, None))]
    v.append(conv2d(v[0], p["0.weight"], p["0.bias"], padding=2))
    v.append(sigmoid(v[1]))
    v.append(avg_pool2d(v[2], 2))
    v.append(conv2d(v[3], p["3.weight"], p["3.bias"]))
    v.append(sigmoid(v[4]))
    v.append(avg_pool2d(v[5], 2))
    v.append(_flatten(v[0], v[6], p["7.weight"]))
    v.append(linear(v[7], p["7.weight"], p["7.bias"]))
    v.append(sigmoid(v[8]))
    v.append(linear(v[9], p["9.weight"], p["9.bias"]))
    v.append(sigmoid(v[10]))
    v.append(linear(v[11], p["11.weight"], p["11.bias"]))
    return v


def _layer_gradients(grad_logits: Array, v: list[Array], p: Mapping[str, Array]) -> dict[str, Array]:
    """The chain rule from the last layer; g is the gradient of what a layer gave, then of what it read."""
    found: dict[str, Array] = {}
    g, found["11.weight"], found["11.bias"] = linear_gradients(grad_logits, v[11], p["11.weight"])
    g = sigmoid_gradient(g, v[10])
    g, found["9.weight"], found["9.bias"] = linear_gradients(g, v[9], p["9.weight"])
    g = sigmoid_gradient(g, v[8])
    g, found["7.weight"], found["7.bias"] = linear_gradients(g, v[7], p["7.weight"])
    g = g.reshape(v[6].shape)
    g = avg_pool2d_gradient(g, v[5], 2)
    g = sigmoid_gradient(g, v[4])
    g, found["3.weight"], found["3.bias"] = conv2d_gradients(g, v[3], p["3.weight"])
    g = avg_pool2d_gradient(g, v[2], 2)
    g = sigmoid_gradient(g, v[1])
    g, found["0.weight"], found["0.bias"] = conv2d_gradients(g, v[0], p["0.weight"], padding=2)
    return {name: found[name] for name in PARAMETER_NAMES}


def _flatten(image: Array, pooled: Array, weight: Array) -> Array:
    """Rows of channels * height * width features, refused unless the dense layer `weight` takes as many."""
    channels, height, width = pooled.shape[1:]
    features = channels * height * width
    if weight.shape[1] != features:
        raise ValueError(
            f"params['7.weight'] has shape {weight.shape}, but an image of {image.shape[2]}x{image.shape[3]} "
            f"gives {channels} channels of {height}x{width} = {features} features after the second pooling; "
            f"for this image size it must have shape {(weight.shape[0], features)}"
        )
    return pooled.reshape(len(pooled), features)


def _checked_parameters(params: Mapping[str, npt.ArrayLike]) -> dict[str, Array]:
    """The parameters as float64, once their names and the shapes of neighbouring layers fit."""
    missing = [name for name in PARAMETER_NAMES if name not in params]
    unknown = [name for name in params if name not in PARAMETER_NAMES]
    if missing or unknown:
        raise ValueError(f"params lacks {missing} and has unknown {unknown}; LeNet has {list(PARAMETER_NAMES)}")
    checked: dict[str, Array] = {}
    inputs: int | None = None  # what the next weight must take: channels or features; None: not decided yet
    for layer, axes in ((0, 4), (3, 4), (7, 2), (9, 2), (11, 2)):
        weight_name, bias_name = f"{layer}.weight", f"{layer}.bias"
        if layer == 7:
            inputs = None  # decided by the image size: `_flatten` compares them
        shape = (None, inputs, None, None)[:axes]
        weight = checked_float64(f"params[{weight_name!r}]", params[weight_name], shape)
        checked[weight_name] = weight
        checked[bias_name] = checked_float64(f"params[{bias_name!r}]", params[bias_name], (len(weight),))
        inputs = len(weight)
    return checked
