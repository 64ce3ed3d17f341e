"""The training step of LeNet in plain NumPy, written by hand to be as fast as its author could make it.

It is what the emitted step is held against (`tests.benchmarks.by_hand`), so nothing in it comes from a plan.  Its
ideas:

- The batch is the innermost axis of everything, and is worked on in blocks that fit a cache.
- A convolution computes 2x2 outputs from a 6x6 window at once, as products of matrices; the tile is what the pooling
  after it takes, so pooling adds four slabs.
- Windows are cut out along the columns only (Cho and Brand, *MEC*, 2017).  Six rows of cuts, one after the other in
  memory, are the matrix of a band of outputs, and the next band begins two rows on: each cut is stored once where
  im2col stores it three times, and the way back adds whole bands.
- Columns are stored by their remainder by 4 or 2, so that the cuts of neighbouring windows are neighbours in memory:
  what is copied and added are long runs.
- The second convolution needs six products for two neighbouring outputs instead of twelve (Toom-Cook F(2, 5) along the
  columns); its matrices are evaluated where the first one's are copied.
- Weights are negated, so that the sigmoid of a product is 1 / (1 + exp(product)); those after a pooling carry its
  factor 1/4 too, so that no pass over the images multiplies by it.
- Every array is made once.

Names: ``k`` is the matrix made of a weight, ``x`` what it multiplies, ``z`` their product and then the activation, and
``g_`` the gradient of what follows.  By z, s = 1 / (1 + exp(z)) changes by s*s - s.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

Array = np.ndarray[Any, np.dtype[Any]]
Parameters = dict[str, Array]

KIND = np.float32
BLOCK = 64
CLASSES = 10
ONE, TWO, THREE, FOUR = (np.array(value, KIND) for value in (1, 2, 3, 4))
QUARTER = 1 / 4
AT_POINTS = np.array(
    [
        [1 / 4, 0, 0, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6, 1 / 3, 2 / 3],
        [1 / 24, -1 / 12, 1 / 6, -1 / 3, 2 / 3],
        [0, 0, 0, 0, 1],
    ]
)
"""The values of five taps at the points 0, 1, -1, 2, -2 and infinity, over what interpolation divides by."""


class Step:
    """A step of plain SGD on a batch of that many images, by ``step(images, labels, parameters, lr)``."""

    def __init__(self, batch: int, *, block: int = BLOCK) -> None:
        self.batch = batch
        self.kernels = Kernels()
        self.spans = [(low, min(low + block, batch)) for low in range(0, batch, block)]
        self.blocks = {size: Block(size) for size in {high - low for low, high in self.spans}}

    def __call__(self, images: Array, labels: Array, parameters: Parameters, lr: float) -> float:
        """Change the parameters in place; the mean cross entropy before that."""
        self.kernels.fill(parameters)
        total = 0.0
        for low, high in self.spans:
            block = self.blocks[high - low]
            total += block.forward(images[low:high], labels[low:high], self.kernels)
            block.backward(self.kernels)
        self.kernels.descend(parameters, lr / self.batch)
        return total / self.batch


# --- The parameters as matrices -----------------------------------------------------------------------------


class Kernels:
    """The matrices of every layer and their gradients."""

    def __init__(self) -> None:
        self.first, self.second = TileKernel(6), ToomKernel(16, 6)
        self.dense = {
            "7": DenseKernel(120, 400, scale=QUARTER),
            "9": DenseKernel(84, 120),
            "11": DenseKernel(CLASSES, 84),
        }
        self.all: dict[str, TileKernel | ToomKernel | DenseKernel] = {"0": self.first, "3": self.second, **self.dense}

    def fill(self, parameters: Parameters) -> None:
        """Take the parameters, and set the gradients to zero."""
        for name, kernel in self.all.items():
            kernel.fill(parameters[f"{name}.weight"], parameters[f"{name}.bias"])

    def descend(self, parameters: Parameters, lr: float) -> None:
        """Change the parameters by the gradients."""
        for name, kernel in self.all.items():
            kernel.descend(parameters[f"{name}.weight"], parameters[f"{name}.bias"], lr)


class DenseKernel:
    """A negated weight (n, m), scaled, and its bias in a column after it."""

    def __init__(self, n: int, m: int, *, scale: float = 1) -> None:
        self.k, self.g_k = np.empty((2, n, m + 1), KIND)
        self.part = np.empty((n, m + 1), KIND)
        self.factor = KIND(-scale)

    def fill(self, weight: Array, bias: Array) -> None:
        np.multiply(weight, self.factor, out=self.k[:, :-1])
        np.negative(bias, out=self.k[:, -1])
        self.g_k.fill(0)

    def descend(self, weight: Array, bias: Array, lr: float) -> None:
        np.multiply(self.g_k, KIND(lr), out=self.g_k)
        np.add(bias, self.g_k[:, -1], out=bias)
        np.multiply(self.g_k, self.factor, out=self.g_k)
        np.subtract(weight, self.g_k[:, :-1], out=weight)


class TileKernel:
    """A negated weight (n, 1, 5, 5) at the four places where it fits in 6x6: (4 n, 3 pairs of rows of 6 and a bias)."""

    def __init__(self, n: int) -> None:
        self.k, self.g_k = np.zeros((2, 4 * n, 39), KIND)
        self.square = np.zeros((2, 2, n, 6, 6), KIND)
        self.rows = self.square.reshape(4 * n, 3, 12)
        self.places = [
            self.square[row, column, :, row : row + 5, column : column + 5] for row in range(2) for column in range(2)
        ]

    def fill(self, weight: Array, bias: Array) -> None:
        pairs = self.k.reshape(-1, 3, 13)
        self.square.fill(0)  # the gradient was there
        for place in self.places:
            np.negative(weight[:, 0], out=place)
        np.copyto(pairs[:, :, :-1], self.rows)
        np.negative(bias, out=pairs[:, 0, -1].reshape(4, -1))
        self.g_k.fill(0)

    def descend(self, weight: Array, bias: Array, lr: float) -> None:
        pairs = self.g_k.reshape(-1, 3, 13)
        np.multiply(pairs, KIND(lr), out=pairs)
        np.copyto(self.rows, pairs[:, :, :-1])
        for place in self.places:
            np.add(weight[:, 0], place, out=weight[:, 0])
        np.add(bias, np.add.reduce(pairs[:, 0, -1].reshape(4, -1), axis=0), out=bias)


class ToomKernel:
    """The values at each point of the rows of a weight (n, c, 5, 5), at the two places where they fit in six rows.

    ``k`` is (point, 2 n, 6 rows of c channels), negated and a quarter of the weight; the bias is by itself.
    """

    def __init__(self, n: int, c: int) -> None:
        self.k, self.g_k = np.zeros((2, 6, 2 * n, 6 * c), KIND)
        self.places, self.g_places = (
            [a.reshape(6, 2, n, 6, c)[:, row, :, row : row + 5] for row in range(2)] for a in (self.k, self.g_k)
        )
        self.bias, self.g_bias = np.empty((n, 1), KIND), np.empty(n, KIND)
        self.at_points = (-QUARTER * AT_POINTS).astype(KIND)

    def fill(self, weight: Array, bias: Array) -> None:
        values = np.matmul(weight, self.at_points.T).transpose(3, 0, 2, 1)
        for place in self.places:
            np.copyto(place, values)
        np.negative(bias, out=self.bias[:, 0])
        self.g_k.fill(0)
        self.g_bias.fill(0)

    def descend(self, weight: Array, bias: Array, lr: float) -> None:
        values = (self.g_places[0] + self.g_places[1]).transpose(1, 3, 2, 0)
        np.subtract(weight, np.matmul(values, KIND(lr) * self.at_points), out=weight)
        np.add(bias, KIND(lr) * self.g_bias, out=bias)


# --- Convolution, sigmoid and the sum of 2x2 -------------------------------------------------------------------


class TileConvolution:
    """From images (b, 1, 28, 28) to (14 rows, 6 channels, parity of the column, 7, b).

    ``padded`` is (row, column % 4, column // 4, b).  ``cuts`` is (pair of rows, 2 * 6 columns of a window and a row of
    ones for the bias, windows of a row): three pairs, one after the other, are what a row of tiles is computed from.
    """

    def __init__(self, b: int) -> None:
        self.padded = np.zeros((32, 4, 8, b), KIND)
        self.cuts = np.ones((16, 13, 14 * b), KIND)
        self.x = as_strided(self.cuts, (14, 39, 14 * b), self.cuts.strides, writeable=False)
        self.z = np.empty((14, 24, 14 * b), KIND)
        self.q = np.empty_like(self.z)
        self.slabs = self.z.reshape(14, 4, 6 * 14 * b)
        self.sum = np.empty((14, 6 * 14 * b), KIND)
        self.parts, self.part = np.empty((14, 24, 39), KIND), np.empty((24, 39), KIND)
        self.copies = self._copies(b)

    def _copies(self, b: int) -> list[tuple[Array, Array]]:
        """Column 2 h + p of window 2 j + q is column 4 j + 2 (h + q) + p of the image, for h < 3 and p, q < 2."""
        cuts = self.cuts[:, :-1].reshape(16, 2, 3, 2, 2, 7, b)  # pair, row, h, p, q, j
        padded = self.padded.reshape(16, 2, 4, 8, b)
        found = []
        for h in range(3):
            for q in range(2):
                j, odd = divmod(h + q, 2)
                found.append((cuts[:, :, h, :, q], padded[:, :, 2 * odd : 2 * odd + 2, j : j + 7]))
        return found

    def forward(self, images: Array, kernel: TileKernel, total: Array) -> None:
        source = images.reshape(-1, 28, 7, 4).transpose(1, 3, 2, 0)
        np.copyto(self.padded[2:30, 2:4, 0:7], source[:, 0:2])  # the padding is two columns wide
        np.copyto(self.padded[2:30, 0:2, 1:8], source[:, 2:4])
        for target, cut in self.copies:
            np.copyto(target, cut)
        np.matmul(kernel.k, self.x, out=self.z)
        sigmoid(self.z)
        np.add(self.slabs[:, 0], self.slabs[:, 1], out=self.sum)
        np.add(self.sum, self.slabs[:, 2], out=self.sum)
        np.add(self.sum, self.slabs[:, 3], out=total.reshape(self.sum.shape))

    def backward(self, g_total: Array, kernel: TileKernel) -> None:
        z, q = self.z, self.q
        np.multiply(z, z, out=q)
        np.subtract(q, z, out=z)
        np.multiply(self.slabs, g_total.reshape(14, 1, -1), out=self.slabs)
        np.matmul(z, self.x.swapaxes(1, 2), out=self.parts)
        np.add.reduce(self.parts, axis=0, out=self.part)
        np.add(kernel.g_k, self.part, out=kernel.g_k)


class ToomConvolution:
    """From ``source`` (14 rows, 6 channels, parity of the column, 7, b) to (5 rows, 16 channels, 5 * b).

    ``x`` is (point, 14 rows of 6 channels, 5 * b): the values at each point of the six columns of a window.  Six rows
    are what a row of tiles is computed from.
    """

    def __init__(self, b: int) -> None:
        self.source, self.g_source = np.empty((2, 14, 6, 2, 7, b), KIND)
        self.taps, self.g_taps = (
            [a.reshape(84, 2, 7, b)[:, tap % 2, tap // 2 : tap // 2 + 5] for tap in range(6)]
            for a in (self.source, self.g_source)
        )
        self.x, self.g_x = np.empty((2, 6, 84, 5 * b), KIND)
        self.scratch = np.empty((2, 84, 5, b), KIND)
        point, row, place = self.x.strides
        self.bands = as_strided(self.x, (6, 5, 36, 5 * b), (point, 12 * row, row, place), writeable=False)
        self.g_band = np.empty((6, 36, 5 * b), KIND)
        self.m = np.empty((6, 5, 32, 5 * b), KIND)
        self.q, self.r = np.empty((2, 5, 32, 5 * b), KIND)
        self.parts, self.part = np.empty((6, 5, 32, 36), KIND), np.empty((6, 32, 36), KIND)

    def forward(self, kernel: ToomKernel, total: Array) -> None:
        self._evaluate()
        np.matmul(kernel.k[:, None], self.bands, out=self.m)
        m, q, r = self.m, self.q, self.r
        np.add(pairs(m[1]), kernel.bias, out=pairs(m[1]))  # the value at 1 counts once in either output
        np.add(m[1], m[2], out=q)
        np.add(m[3], m[4], out=r)
        np.add(m[0], q, out=m[0])
        np.add(m[0], r, out=m[0])
        np.subtract(m[1], m[2], out=q)
        np.subtract(m[3], m[4], out=r)
        np.multiply(r, TWO, out=r)
        np.add(m[5], q, out=m[5])
        np.add(m[5], r, out=m[5])
        sigmoid(m[0])
        sigmoid(m[5])
        np.add(m[0], m[5], out=q)
        np.add(pairs(q)[:, 0], pairs(q)[:, 1], out=total)

    def backward(self, g_total: Array, kernel: ToomKernel) -> None:
        m, q = self.m, self.q
        for z in (m[0], m[5]):
            np.multiply(z, z, out=q)
            np.subtract(q, z, out=z)
            np.multiply(pairs(z), g_total[:, None], out=pairs(z))
        np.add(m[0], m[5], out=m[1])
        np.subtract(m[0], m[5], out=m[2])
        np.multiply(m[5], TWO, out=q)
        np.add(m[0], q, out=m[3])
        np.subtract(m[0], q, out=m[4])
        kernel.g_bias += np.add.reduce(pairs(m[1]), axis=(0, 1, 3))
        np.matmul(m, self.bands.swapaxes(2, 3), out=self.parts)
        np.add.reduce(self.parts, axis=1, out=self.part)
        np.add(kernel.g_k, self.part, out=kernel.g_k)
        self.g_x.fill(0)
        for row in range(5):
            np.matmul(kernel.k.swapaxes(1, 2), m[:, row], out=self.g_band)
            band = self.g_x[:, 12 * row : 12 * row + 36]
            np.add(band, self.g_band, out=band)
        self._evaluate_back()

    def _evaluate(self) -> None:
        """The six values of six taps."""
        x0, x1, x2, x3, x4, x5 = self.taps
        t, u = self.scratch
        x = self.x.reshape(6, *t.shape)
        np.multiply(x2, FOUR, out=t)
        np.subtract(x4, t, out=t)
        np.multiply(x1, FOUR, out=u)
        np.subtract(x3, u, out=u)
        np.add(t, u, out=x[1])  # (x4 - 4 x2) + (x3 - 4 x1)
        np.subtract(t, u, out=x[2])
        np.subtract(x4, x2, out=t)
        np.subtract(x3, x1, out=u)
        np.multiply(u, TWO, out=u)
        np.add(t, u, out=x[3])  # (x4 - x2) + 2 (x3 - x1)
        np.subtract(t, u, out=x[4])
        np.subtract(x0, x2, out=x[0])
        np.multiply(x[0], FOUR, out=x[0])
        np.add(x[0], t, out=x[0])  # 4 x0 - 5 x2 + x4
        np.subtract(x5, x3, out=x[5])
        np.multiply(u, TWO, out=u)
        np.subtract(x[5], u, out=x[5])  # 4 x1 - 5 x3 + x5

    def _evaluate_back(self) -> None:
        """The transpose of `_evaluate`: the gradient of the source from those of the values."""
        to = self.g_taps
        t, u = self.scratch
        g = self.g_x.reshape(6, *t.shape)
        self.g_source.fill(0)
        np.add(g[1], g[2], out=t)
        np.add(g[3], g[4], out=u)
        np.add(u, t, out=u)
        np.add(u, g[0], out=u)
        np.add(to[4], u, out=to[4])  # g0 + (g1 + g2) + (g3 + g4)
        np.multiply(t, THREE, out=t)
        np.add(u, t, out=u)
        np.multiply(g[0], FOUR, out=g[0])
        np.add(to[0], g[0], out=to[0])  # 4 g0
        np.add(u, g[0], out=u)
        np.subtract(to[2], u, out=to[2])  # -5 g0 - 4 (g1 + g2) - (g3 + g4)
        np.subtract(g[1], g[2], out=t)
        np.subtract(g[3], g[4], out=u)
        np.multiply(u, TWO, out=u)
        np.subtract(g[5], t, out=t)
        np.add(to[5], g[5], out=to[5])  # g5
        np.multiply(g[5], FOUR, out=g[5])
        np.subtract(u, t, out=g[0])
        np.subtract(g[0], g[5], out=g[0])
        np.add(to[3], g[0], out=to[3])  # (g1 - g2) + 2 (g3 - g4) - 5 g5
        np.multiply(t, FOUR, out=t)
        np.subtract(t, u, out=t)
        np.add(to[1], t, out=to[1])  # -4 (g1 - g2) - 2 (g3 - g4) + 4 g5


def pairs(z: Array) -> Array:
    """A view of (5 rows, 2 * 16, places) with the two rows of a tile apart: (5, 2, 16, places)."""
    return z.reshape(5, 2, 16, -1)


def sigmoid(z: Array) -> None:
    """1 / (1 + exp(z)), in place; where exp overflows it is 0."""
    np.exp(z, out=z)
    np.add(z, ONE, out=z)
    np.divide(ONE, z, out=z)


# --- The network ----------------------------------------------------------------------------------------------


class Block:
    """The arrays for ``b`` images, and the way through them."""

    def __init__(self, b: int) -> None:
        self.first, self.second = TileConvolution(b), ToomConvolution(b)
        widths = {"7": 400, "9": 120, "11": 84}
        self.x = {name: np.ones((width + 1, b), KIND) for name, width in widths.items()}
        self.g_x = {name: np.empty((width, b), KIND) for name, width in widths.items()}
        self.q = {name: np.empty((width, b), KIND) for name, width in widths.items()}
        self.pooled, self.g_pooled = (
            a.reshape(16, 5, 5 * b).transpose(1, 0, 2) for a in (self.x["7"][:-1], self.g_x["7"])
        )
        self.logits, self.chances = np.empty((2, CLASSES, b), KIND)  # the logits are negated
        self.least, self.sum = np.empty((2, b), KIND)
        self.places = np.arange(b)

    def forward(self, images: Array, labels: Array, kernels: Kernels) -> float:
        """The sum of the losses."""
        x, dense = self.x, kernels.dense
        with np.errstate(over="ignore"):
            self.first.forward(images, kernels.first, self.second.source)
            self.second.forward(kernels.second, self.pooled)
            for name, after in (("7", "9"), ("9", "11")):
                np.matmul(dense[name].k, x[name], out=x[after][:-1])
                sigmoid(x[after][:-1])
            np.matmul(dense["11"].k, x["11"], out=self.logits)
        return self._loss(labels)

    def _loss(self, labels: Array) -> float:
        """The sum of the losses, and in ``chances`` its gradient by the negated logits."""
        np.minimum.reduce(self.logits, axis=0, out=self.least)
        np.subtract(self.least, self.logits, out=self.logits)
        np.exp(self.logits, out=self.chances)
        np.add.reduce(self.chances, axis=0, out=self.sum)
        np.divide(self.chances, self.sum, out=self.chances)
        np.negative(self.chances, out=self.chances)
        self.chances[labels, self.places] += ONE
        np.log(self.sum, out=self.sum)
        np.subtract(self.sum, self.logits[labels, self.places], out=self.sum)
        return float(np.add.reduce(self.sum))

    def backward(self, kernels: Kernels) -> None:
        """Add the gradients of the kernels."""
        g_z = self.chances
        for name in ("11", "9", "7"):
            kernel, x, g_x = kernels.dense[name], self.x[name], self.g_x[name]
            np.matmul(g_z, x.T, out=kernel.part)
            np.add(kernel.g_k, kernel.part, out=kernel.g_k)
            np.matmul(kernel.k[:, :-1].T, g_z, out=g_x)
            if name != "7":  # what it takes is a sigmoid
                np.multiply(x[:-1], x[:-1], out=self.q[name])
                np.subtract(self.q[name], x[:-1], out=self.q[name])
                np.multiply(g_x, self.q[name], out=g_x)
            g_z = g_x
        self.second.backward(self.g_pooled, kernels.second)
        self.first.backward(self.second.g_source, kernels.first)
