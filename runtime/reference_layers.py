"""The layers of the reference LeNet, each written straight from its definition, with its gradients.

Explicit loops over output positions, in float64.  Forward, an output is the sum its definition states, over the window
that belongs to it.  Backward, every output position adds, by the product rule, the part of each gradient that passed
through it; nothing is re-indexed, so strides that leave a remainder, dilation and even kernels need no care.

"Convolution" here, as in every deep learning library, means cross-correlation: the kernel is not flipped.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Pair = tuple[int, int]


# --- Convolution --------------------------------------------------------------------------------------------


def conv2d(
    x: npt.ArrayLike,
    w: npt.ArrayLike,
    b: npt.ArrayLike | None = None,
    *,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
) -> Array:
    """Cross-correlation of a batch of images with a bank of kernels (d2l 7.2 to 7.4).

    y[n,o,i,j] = b[o] + Sum_{c,r,q} w[o,c,r,q] x[n, c, i s + r d - p, j s + q d - p], where x is zero outside
    its box. There is one output position for every window that lies inside the padded image, perhaps none.

    Args:
        x: images, shape (N, C, H, W).
        w: kernels, shape (O, C, K, L).
        b: bias, shape (O,); none is zero.
        stride, padding, dilation: one integer for both axes or a pair (rows, columns).

    Returns:
        Shape (N, O, H', W').

    Raises:
        ValueError: shapes that do not fit, stride or dilation < 1, padding < 0, an empty kernel.

    >>> conv2d([[[[1, 2, 3], [4, 5, 6]]]], [[[[10, 1]]]], [100]).tolist()
    [[[[112.0, 123.0], [145.0, 156.0]]]]
    """
    x, w = _checked_images_and_kernels(x, w)
    b = np.zeros(len(w)) if b is None else checked_float64("b", b, (len(w),))
    rows, columns = _windows(x.shape[2:], w.shape[2:], stride, padding, dilation)
    padded = _padded(x, padding)
    y = np.zeros((len(x), len(w), len(rows), len(columns)))
    for n in range(len(x)):
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                window = padded[n, :, row, column]
                for o in range(len(w)):
                    y[n, o, i, j] = b[o] + np.sum(w[o] * window)
    return y


def conv2d_gradients(
    grad_output: npt.ArrayLike,
    x: npt.ArrayLike,
    w: npt.ArrayLike,
    *,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
) -> tuple[Array, Array, Array]:
    """Gradients of <grad_output, conv2d(x, w, b)> with respect to x, w and b.

    Output y[n,o,i,j] is the inner product of w[o] and one window of x, plus b[o]: its cotangent times w[o]
    goes to that window, its cotangent times the window to w[o], its cotangent to b[o]. What falls on the
    padding is dropped: the padding is no input.

    Args:
        grad_output: cotangent, of the shape of the output.
        x, w, stride, padding, dilation: as for `conv2d`.

    Returns:
        (gradient of x, gradient of w, gradient of b), with the shapes of x, w and (O,).

    Raises:
        ValueError: as `conv2d`, or `grad_output` has not the shape of the output.

    >>> gx, gw, gb = conv2d_gradients([[[[2, 3]]]], [[[[1, 4, 6]]]], [[[[10, 1]]]])
    >>> gx.tolist(), gw.tolist(), gb.tolist()
    ([[[[20.0, 32.0, 3.0]]]], [[[[14.0, 26.0]]]], [5.0])
    """
    x, w = _checked_images_and_kernels(x, w)
    rows, columns = _windows(x.shape[2:], w.shape[2:], stride, padding, dilation)
    grad_output = checked_float64("grad_output", grad_output, (len(x), len(w), len(rows), len(columns)))
    padded = _padded(x, padding)
    grad_padded, grad_w, grad_b = np.zeros_like(padded), np.zeros_like(w), np.zeros(len(w))
    for n in range(len(x)):
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                window = padded[n, :, row, column]
                for o in range(len(w)):
                    g = grad_output[n, o, i, j]
                    grad_padded[n, :, row, column] += g * w[o]
                    grad_w[o] += g * window
                    grad_b[o] += g
    top, left = _pair("padding", padding, at_least=0)
    return grad_padded[:, :, top : top + x.shape[2], left : left + x.shape[3]].copy(), grad_w, grad_b


def _checked_images_and_kernels(x: npt.ArrayLike, w: npt.ArrayLike) -> tuple[Array, Array]:
    kernels = checked_float64("w", w, (None, None, None, None))
    if min(kernels.shape[2:]) < 1:
        raise ValueError(f"w has shape {kernels.shape}: a kernel needs at least one row and one column")
    return checked_float64("x", x, (None, kernels.shape[1], None, None)), kernels


def _windows(
    image: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: int | Pair,
    padding: int | Pair,
    dilation: int | Pair,
) -> tuple[list[slice], list[slice]]:
    """For each axis, the cells of the padded image that each window covers, for every window inside it."""
    s, p, d = (
        _pair("stride", stride, at_least=1),
        _pair("padding", padding, at_least=0),
        _pair("dilation", dilation, at_least=1),
    )
    rows, columns = (
        [
            slice(start, start + d[axis] * (kernel[axis] - 1) + 1, d[axis])
            for start in range(0, image[axis] + 2 * p[axis] - d[axis] * (kernel[axis] - 1), s[axis])
        ]
        for axis in (0, 1)
    )
    return rows, columns


def _padded(x: Array, padding: int | Pair) -> Array:
    """The images with `padding` zeros on either side."""
    top, left = _pair("padding", padding, at_least=0)
    n, c, height, width = x.shape
    padded = np.zeros((n, c, height + 2 * top, width + 2 * left))
    padded[:, :, top : top + height, left : left + width] = x
    return padded


# --- The other layers ---------------------------------------------------------------------------------------


def avg_pool2d(x: npt.ArrayLike, kernel_size: int | Pair, *, stride: int | Pair | None = None) -> Array:
    """The mean of every window (d2l 7.5), without padding; a remainder that fills no window is left out.

    Args:
        x: images, shape (N, C, H, W).
        kernel_size: height and width of a window, an integer or a pair.
        stride: distance of windows, an integer or a pair; by default the kernel size.

    Returns:
        Shape (N, C, H', W').

    Raises:
        ValueError: x has not four axes, kernel size or stride < 1.

    >>> avg_pool2d([[[[1, 2, 3, 4, 100], [5, 6, 7, 8, 100]]]], 2).tolist()
    [[[[3.5, 5.5]]]]
    """
    x = checked_float64("x", x, (None, None, None, None))
    kernel = _pair("kernel_size", kernel_size, at_least=1)
    rows, columns = _windows(x.shape[2:], kernel, kernel if stride is None else stride, 0, 1)
    y = np.zeros((*x.shape[:2], len(rows), len(columns)))
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            for i, row in enumerate(rows):
                for j, column in enumerate(columns):
                    y[n, c, i, j] = np.sum(x[n, c, row, column]) / (kernel[0] * kernel[1])
    return y


def avg_pool2d_gradient(
    grad_output: npt.ArrayLike, x: npt.ArrayLike, kernel_size: int | Pair, *, stride: int | Pair | None = None
) -> Array:
    """Gradient of <grad_output, avg_pool2d(x)> with respect to x: a cotangent, spread over its window.

    Args:
        grad_output: cotangent, of the shape of the output.
        x, kernel_size, stride: as for `avg_pool2d`.

    Returns:
        The gradient, of the shape of x.

    Raises:
        ValueError: as `avg_pool2d`, or `grad_output` has not the shape of the output.

    >>> avg_pool2d_gradient([[[[8.0]]]], np.zeros((1, 1, 2, 3)), 2).tolist()
    [[[[2.0, 2.0, 0.0], [2.0, 2.0, 0.0]]]]
    """
    x = checked_float64("x", x, (None, None, None, None))
    kernel = _pair("kernel_size", kernel_size, at_least=1)
    rows, columns = _windows(x.shape[2:], kernel, kernel if stride is None else stride, 0, 1)
    grad_output = checked_float64("grad_output", grad_output, (*x.shape[:2], len(rows), len(columns)))
    grad_x = np.zeros_like(x)
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            for i, row in enumerate(rows):
                for j, column in enumerate(columns):
                    grad_x[n, c, row, column] += grad_output[n, c, i, j] / (kernel[0] * kernel[1])
    return grad_x


def sigmoid(x: npt.ArrayLike) -> Array:
    """1 / (1 + exp(-x)) of every element (d2l 5.1), without overflow for any finite x.

    Args:
        x: an array of any shape.

    Returns:
        An array of that shape, in [0, 1].

    >>> sigmoid([0.0, 1000.0, -1000.0]).tolist()
    [0.5, 1.0, 0.0]
    """
    x = checked_float64("x", x)
    # exp of a number <= 0 cannot overflow; for x < 0 the fraction is expanded by exp(x).
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, e) / (1.0 + e)


def sigmoid_gradient(grad_output: npt.ArrayLike, x: npt.ArrayLike) -> Array:
    """Gradient of <grad_output, sigmoid(x)> with respect to x: grad_output s (1 - s), s = sigmoid(x).

    Args:
        grad_output: cotangent, of the shape of x.
        x: what the sigmoid was given.

    Returns:
        The gradient, of the shape of x.

    Raises:
        ValueError: the shapes differ.

    >>> sigmoid_gradient([8.0], [0.0]).tolist()
    [2.0]
    """
    x = checked_float64("x", x)
    # 1 - sigmoid(x) is sigmoid(-x), which does not cancel for large x.
    return checked_float64("grad_output", grad_output, x.shape) * sigmoid(x) * sigmoid(-x)


def linear(x: npt.ArrayLike, w: npt.ArrayLike, b: npt.ArrayLike) -> Array:
    """The dense layer y[n,o] = b[o] + Sum_i w[o,i] x[n,i] (d2l 3.1).

    Args:
        x: rows of features, shape (N, I).
        w: weights, shape (O, I).
        b: bias, shape (O,).

    Returns:
        Shape (N, O).

    Raises:
        ValueError: shapes that do not fit.

    >>> linear([[1, 2]], [[3, 4], [5, 6]], [100, 200]).tolist()
    [[111.0, 217.0]]
    """
    w = checked_float64("w", w, (None, None))
    x = checked_float64("x", x, (None, w.shape[1]))
    b = checked_float64("b", b, (len(w),))
    y = np.zeros((len(x), len(w)))
    for n in range(len(x)):
        for o in range(len(w)):
            y[n, o] = b[o] + np.sum(w[o] * x[n])
    return y


def linear_gradients(grad_output: npt.ArrayLike, x: npt.ArrayLike, w: npt.ArrayLike) -> tuple[Array, Array, Array]:
    """Gradients of <grad_output, linear(x, w, b)> with respect to x, w and b, by the product rule.

    Args:
        grad_output: cotangent, shape (N, O).
        x, w: as for `linear`.

    Returns:
        (gradient of x, gradient of w, gradient of b), with the shapes of x, w and (O,).

    Raises:
        ValueError: shapes that do not fit.

    >>> gx, gw, gb = linear_gradients([[2, 3]], [[1, 4]], [[10, 20], [30, 40]])
    >>> gx.tolist(), gw.tolist(), gb.tolist()
    ([[110.0, 160.0]], [[2.0, 8.0], [3.0, 12.0]], [2.0, 3.0])
    """
    w = checked_float64("w", w, (None, None))
    x = checked_float64("x", x, (None, w.shape[1]))
    grad_output = checked_float64("grad_output", grad_output, (len(x), len(w)))
    grad_x, grad_w, grad_b = np.zeros_like(x), np.zeros_like(w), np.zeros(len(w))
    for n in range(len(x)):
        for o in range(len(w)):
            g = grad_output[n, o]
            grad_x[n] += g * w[o]
            grad_w[o] += g * x[n]
            grad_b[o] += g
    return grad_x, grad_w, grad_b


def cross_entropy(logits: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Softmax cross-entropy, averaged over the batch, in its stable form (d2l 4.1 and 4.5.2).

    The mean over n of log(Sum_k exp(z[n,k] - m[n])) + m[n] - z[n,y[n]], with m[n] the row's largest logit.

    Args:
        logits: z, shape (N, classes).
        y: labels, integers of shape (N,) in 0..classes-1.

    Returns:
        The mean loss; 0.0 for an empty batch, where the mean is sum * recip(N) and recip(0) is 0.

    Raises:
        ValueError: shapes that do not fit, labels that are no integers or out of range.

    >>> cross_entropy([[1000.0, 0.0]], [1])
    1000.0
    """
    logits = checked_float64("logits", logits, (None, None))
    labels = _checked_labels(y, logits)
    total = 0.0
    for z, label in zip(logits, labels, strict=True):
        largest = np.max(z)
        total += float(np.log(np.sum(np.exp(z - largest))) + largest - z[label])
    return total * _reciprocal(len(logits))


def cross_entropy_gradient(logits: npt.ArrayLike, y: npt.ArrayLike) -> Array:
    """Gradient of `cross_entropy` with respect to the logits: (softmax - one-hot) / N (d2l 4.1.2).

    Args:
        logits, y: as for `cross_entropy`.

    Returns:
        The gradient, of the shape of the logits.

    Raises:
        ValueError: as `cross_entropy`.

    >>> cross_entropy_gradient([[0.0, 0.0], [7.0, 7.0]], [0, 1]).tolist()
    [[-0.25, 0.25], [0.25, -0.25]]
    """
    logits = checked_float64("logits", logits, (None, None))
    labels = _checked_labels(y, logits)
    gradient = np.zeros_like(logits)
    for n, z in enumerate(logits):
        e = np.exp(z - np.max(z))
        gradient[n] = e / np.sum(e)
        gradient[n, labels[n]] -= 1.0
    return gradient * _reciprocal(len(logits))


def _reciprocal(n: int) -> float:
    """1 / n, and 0 for n = 0: the convention that makes the mean over an empty batch 0."""
    return 1.0 / n if n else 0.0


# --- Checks -------------------------------------------------------------------------------------------------


def checked_float64(name: str, value: npt.ArrayLike, shape: tuple[int | None, ...] | None = None) -> Array:
    """`value` as float64 where that loses nothing, with the given shape; None stands for any size."""
    array = np.asarray(value)
    if not np.can_cast(array.dtype, np.float64, "safe"):
        raise ValueError(f"{name} has dtype {array.dtype}, which float64 cannot hold; nearest legal: float64")
    if shape is not None and (
        array.ndim != len(shape) or any(want not in (None, size) for want, size in zip(shape, array.shape, strict=True))
    ):
        expected = ", ".join("any" if want is None else str(want) for want in shape)
        comma = "," if len(shape) == 1 else ""
        raise ValueError(f"{name} has shape {array.shape}, expected ({expected}{comma})")
    return array.astype(np.float64, copy=False)


def _pair(name: str, value: int | Pair, *, at_least: int) -> Pair:
    pair = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(pair) != 2 or not all(isinstance(v, int | np.integer) for v in pair):
        raise ValueError(f"{name}={value!r}, expected an integer or a pair of integers, all >= {at_least}")
    if min(pair) < at_least:
        nearest = max(pair[0], at_least), max(pair[1], at_least)
        raise ValueError(f"{name}={value!r}, but {min(pair)} < {at_least}; nearest legal value: {nearest}")
    return int(pair[0]), int(pair[1])


def _checked_labels(y: npt.ArrayLike, logits: Array) -> Labels:
    labels = np.asarray(y)
    count, classes = logits.shape
    if labels.shape != (count,):
        raise ValueError(f"y has shape {labels.shape}, expected ({count},): one label for each row of logits")
    if count == 0:
        return np.zeros(0, np.int64)  # an empty list has a float dtype, but no label that is no integer
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"y has dtype {labels.dtype}; labels are integers in 0..{classes - 1}")
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        n = int(wrong[0])
        nearest = min(max(int(labels[n]), 0), classes - 1)
        raise ValueError(f"y[{n}] = {labels[n]} is not in 0..{classes - 1}; nearest legal label: {nearest}")
    return labels.astype(np.int64)
