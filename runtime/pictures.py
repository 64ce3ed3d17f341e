"""Pictures for the report, as `data:` addresses that an HTML page can hold: no display, no file, no network.

Every function takes plain numbers and returns one address. Line drawings are SVG, whose letters are outlines;
photographs of numbers (kernels, digits) are PNG. The same numbers give the same bytes: Matplotlib's own settings
are replaced by the ones below, whatever a user's `matplotlibrc` says, identifiers in SVG are hashed with a fixed
salt, and no date or version is written. `Figure` is used without pyplot, so nothing global is touched.

Matplotlib takes half a second to import; therefore only the writing of a report imports this module.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import matplotlib.image
import matplotlib.style
import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PatchCollection
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

Matrix = Sequence[Sequence[float]]

INK = "#1f2328"
GRID = "#d8dee4"
RULE = "#6e7781"
_MISSING = "#b8bec5"
_GAMMA = 0.25
_UNSIGNED: dict[str, Any] = {"Software": None}  # no version of Matplotlib in a PNG
# Blue, vermilion, green, purple of Okabe and Ito: told apart in every common form of colour blindness. The strokes
# differ too, for print in grey.
_SERIES = (("#0072b2", "-", "o"), ("#d55e00", "--", "s"), ("#007a5a", "-.", "^"), ("#9c4f80", ":", "D"))

_STYLE: dict[str, object] = {
    "svg.hashsalt": "certiconv",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",  # comes with Matplotlib
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": RULE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
}


def label_colour(label: int) -> str:
    """The colour of a parameter: a function of its label alone, so that it is the same in every picture.

    Label 0, a structural zero, is white. The others step round the hues of OKLCH on five levels of lightness. Step
    and levels were searched for: labels close to each other, and those of 3 x 3 neighbouring offsets, lie far apart
    in OKLab, no two of the first 256 coincide, and dark letters stay readable on all of them.

    Args:
        label: an integer >= 0.

    >>> label_colour(0)
    '#ffffff'
    """
    if label == 0:
        return "#ffffff"
    lightness = (0.815, 0.758, 0.7, 0.93, 0.872)[label % 5]
    return _oklch(lightness, 0.125, math.radians(label * 110.65 % 360))


def _oklch(lightness: float, chroma: float, hue: float) -> str:
    # B. Ottosson, "A perceptual color space for image processing" (2020): OKLab to linear sRGB, then the sRGB curve.
    a, b = chroma * math.cos(hue), chroma * math.sin(hue)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )
    clipped = (min(max(v, 0.0), 1.0) for v in linear)
    curved = (12.92 * v if v <= 0.0031308 else 1.055 * v ** (1 / 2.4) - 0.055 for v in clipped)
    return "#" + "".join(f"{round(255 * v):02x}" for v in curved)


def weight_matrix(labels: Sequence[Sequence[int]], block: int = 0) -> str:
    """The matrix of a linear layer with each entry in the colour of the parameter that it holds.

    Args:
        labels: rows of labels >= 0 of one length; 0 is a structural zero.
        block: a heavier line after every so many rows and columns; 0 draws none.

    Returns:
        A `data:` address of an SVG picture.
    """
    grid = np.asarray(labels, dtype=np.int64)
    rows, columns = grid.shape
    colours = [[_rgb(label_colour(int(label))) for label in row] for row in grid]
    with style():
        figure = Figure(figsize=(4.4, 4.4 * (rows + 1.6) / (columns + 1.6)))
        axes = figure.add_subplot()
        axes.pcolormesh(np.asarray(colours), edgecolors=GRID, linewidth=0.4)
        _write_labels(axes, grid)
        _heavier_lines(axes, rows, columns, block)
        _matrix_frame(axes, "input pixel, row by row", "output, row by row")
        return _svg(figure)


def _write_labels(axes: Axes, grid: npt.NDArray[np.int64]) -> None:
    # A number in the cell says what the colour says, to those who do not see the colour.
    size = min(6.5, 90 / max(grid.shape)) * (1.0 if grid.max() < 100 else 0.82)
    for (row, column), label in np.ndenumerate(grid):
        if label:
            axes.text(column + 0.5, row + 0.53, str(label), ha="center", va="center", fontsize=size)


def _heavier_lines(axes: Axes, rows: int, columns: int, block: int) -> None:
    if block > 0:
        axes.hlines(range(0, rows + 1, block), 0, columns, colors=RULE, linewidth=0.9)
        axes.vlines(range(0, columns + 1, block), 0, rows, colors=RULE, linewidth=0.9)


def _matrix_frame(axes: Axes, across: str, down: str) -> None:
    axes.invert_yaxis()
    axes.set_aspect("equal")
    axes.grid(visible=False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.xaxis.set_label_position("top")
    axes.set_xlabel(across)
    axes.set_ylabel(down)
    for spine in axes.spines.values():
        spine.set_visible(True)


def curves(series: Mapping[str, Sequence[float]], quantity: str, *, percent: bool = False) -> str:
    """One line for each series, over the epochs 1, 2, ...; a value that is no number leaves a gap.

    Args:
        series: values after each epoch, by the name of the line.
        quantity: what the vertical axis shows.
        percent: values are fractions of one and are shown in per cent.

    Returns:
        A `data:` address of an SVG picture.
    """
    with style():
        figure = Figure(figsize=(5.4, 3.3))
        axes = figure.add_subplot()
        for k, (name, values) in enumerate(series.items()):
            colour, stroke, marker = _SERIES[k % len(_SERIES)]
            finite = [value if math.isfinite(value) else math.nan for value in values]
            epochs = range(1, len(finite) + 1)
            axes.plot(epochs, finite, stroke, color=colour, marker=marker, markersize=3, linewidth=1.6, label=name)
        axes.set_xlabel("epoch")
        axes.set_ylabel(quantity)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if percent:
            axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, symbol=" %"))
        if len(series) > 1:
            axes.legend(loc="best")
        return _svg(figure)


def confusion_matrix(counts: Sequence[Sequence[int]]) -> str:
    """Counts of images by true label (down) and predicted label (across), darker where there are more.

    The shade grows with the fourth root of the count: a single mistake is to be seen beside hundreds of hits.

    Returns:
        A `data:` address of an SVG picture.
    """
    grid = np.asarray(counts, dtype=np.int64)
    full = 1.6 * max(int(grid.max()), 1)  # the darkest blues are left out: letters stand on the cells
    with style():
        figure = Figure(figsize=(5.2, 5.2))
        axes = figure.add_subplot()
        shade = PowerNorm(_GAMMA, vmin=0, vmax=full)
        axes.pcolormesh(grid, cmap="Blues", norm=shade, edgecolors="white", linewidth=0.8)
        for (true, predicted), count in np.ndenumerate(grid):
            if count:
                colour = "white" if (count / full) ** _GAMMA > 0.6 else INK
                axes.text(predicted + 0.5, true + 0.52, f"{count:,}", ha="center", va="center", color=colour)
        _matrix_frame(axes, "predicted", "true")
        centres = np.arange(len(grid)) + 0.5
        axes.set_xticks(centres, [str(k) for k in range(len(grid))])
        axes.set_yticks(centres, [str(k) for k in range(len(grid))])
        axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
        return _svg(figure)


def kernel_grid(weights: Sequence[Sequence[Matrix]]) -> str:
    """Kernels of a convolution as images: a column for each output channel, a row for each input channel.

    One diverging colour map serves all of them: white is 0, red positive, blue negative, grey not a number.

    Args:
        weights: nested sequences of shape (output channels, input channels, height, width).

    Returns:
        A `data:` address of a PNG picture.
    """
    kernels = np.asarray(weights, dtype=np.float64)
    outputs, inputs, height, width = kernels.shape
    reach = largest(kernels)
    scale = ScalarMappable(Normalize(-reach, reach), colormaps["RdBu_r"].with_extremes(bad=_MISSING))
    cell = min(1.7, 10.2 / outputs)
    with style():
        figure = Figure(figsize=(cell * outputs + 1.3, cell * inputs * height / width + 0.6))
        axes = figure.add_subplot()
        # One image of all kernels, a cell apart: an Axes for each of them would take seconds.
        down, across = height + 1, width + 1
        mosaic = np.ones((inputs * down - 1, outputs * across - 1, 4))
        frames = []
        for n, c in np.ndindex(outputs, inputs):
            top, left = c * down, n * across
            mosaic[top : top + height, left : left + width] = scale.to_rgba(kernels[n, c])
            frames.append(Rectangle((left - 0.5, top - 0.5), width, height))
        axes.imshow(mosaic, interpolation="nearest")
        axes.add_collection(PatchCollection(frames, facecolor="none", edgecolor=GRID, linewidth=0.8))
        _channels(axes, [n * across + (width - 1) / 2 for n in range(outputs)], across=True)
        _channels(axes, [c * down + (height - 1) / 2 for c in range(inputs)], across=False)
        figure.colorbar(scale, ax=axes, fraction=0.04, pad=0.015, aspect=10 + 4 * inputs)
        return _png(figure)


def _channels(axes: Axes, centres: Sequence[float], *, across: bool) -> None:
    axis = axes.xaxis if across else axes.yaxis
    axis.set_ticks(centres, [str(k + 1) for k in range(len(centres))])
    axis.set_tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    if across:
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
        axes.set_xlabel("output channel")
    else:
        axes.set_ylabel("input channel")


def largest(values: npt.ArrayLike) -> float:
    """The largest finite absolute value; 1 where there is none but zeros, so that it can be a scale.

    >>> largest([[0.5, -2.0], [float("nan"), 1.0]]), largest([0.0])
    (2.0, 1.0)
    """
    array = np.asarray(values, dtype=np.float64)
    finite = np.abs(array[np.isfinite(array)])
    return float(finite.max(initial=0.0)) or 1.0


def digit(image: Matrix) -> str:
    """One grey image, dark ink on white ground, one pixel for each number (the page enlarges it).

    Args:
        image: rows of numbers; the smallest is shown white, the largest black.

    Returns:
        A `data:` address of a PNG picture.
    """
    pixels = np.asarray(image, dtype=np.float64)
    file = io.BytesIO()
    matplotlib.image.imsave(file, pixels, cmap="gray_r", format="png", metadata=_UNSIGNED)
    return _address("image/png", file.getvalue())


# --- From a figure to an address ------------------------------------------------------------------------------------


def style() -> AbstractContextManager[None]:
    """Matplotlib with the settings of this file and no others, while it is open."""
    return matplotlib.style.context(["default", _STYLE])


def _rgb(colour: str) -> tuple[float, float, float]:
    red, green, blue = (int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5))
    return red, green, blue


def _svg(figure: Figure) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return _address("image/svg+xml", file.getvalue())


def _png(figure: Figure) -> str:
    return _address("image/png", png(figure))


def png(figure: Figure) -> bytes:
    """A figure as the content of a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=160, metadata=_UNSIGNED)
    return file.getvalue()


def _address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
