"""The roofline as a picture: on the left the roof of this machine and how high each case comes, on the right how near.

On the left both axes are logarithmic: operations a byte across, operations a second up.  The parts of a convolution
have one intensity, so they stand on one line, which carries the family's name.  On the right each case has a row, with
PyTorch's better layout as a ring beside it.  What reaches more than 100 % does fewer operations than the defining sum,
or works on data that stays in a cache.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, PercentFormatter

from runtime.pictures import GRID, INK, RULE, png, style
from runtime.roofline import Cost, Roof

_MARKS = {"forward": "o", "weight": "s", "input": "^", "step": "D"}
_LONG = {"forward": "forward", "weight": "weight gradient", "input": "input gradient", "step": "training step"}
# Ten hues of about equal lightness, warm and cold in turn, so that neighbours in the table differ most.
_HUES = (
    "#0072b2", "#d55e00", "#007a5a", "#9c4f80", "#8a6d00", "#3b6fd4", "#c0392b", "#2a8c8c", "#7a52c7", "#5d6b2d",
)  # fmt: skip


@dataclass(frozen=True)
class Point:
    """One case: its family and part, what it costs, our seconds, and PyTorch's where it was timed."""

    family: str
    part: str
    name: str
    cost: Cost
    seconds: float
    pytorch: float | None = None


def draw(roof: Roof, points: Sequence[Point], *, title: str = "") -> bytes:
    """The picture as the content of a PNG file.

    Args:
        roof: the rates of the machine.
        points: what was timed, at least one.
        title: stands above it.

    Raises:
        ValueError: there is no point.
    """
    if not points:
        raise ValueError("points is empty; at least one case must have been timed")
    families = list(dict.fromkeys(point.family for point in points))
    hues = {family: _HUES[k % len(_HUES)] for k, family in enumerate(families)}
    with style():
        figure = Figure(figsize=(13, 3.6 + 0.155 * max(len(points), 18)))
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        _draw_roof(left, roof, points)
        _draw_points(left, points, hues)
        _draw_shares(right, roof, points, hues)
        if title:
            figure.suptitle(title, fontsize=12, x=0.01, ha="left")
        return png(figure)


def _draw_roof(axes: Axes, roof: Roof, points: Sequence[Point]) -> None:
    intensities = [point.cost.intensity for point in points]
    low, high = min(*intensities, roof.ridge) / 3, max(*intensities, roof.ridge) * 2.5
    rates = [point.cost.operations / point.seconds for point in points]
    across = [low, roof.ridge, high]
    axes.plot(across, [roof.at(i) for i in across], color=INK, linewidth=2.2, solid_joinstyle="miter")
    bottom, top = min(*rates, roof.at(low)), max(*rates, roof.gemm)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    axes.set_ylim(bottom / 5, top * 1.7)
    axes.text(high / 1.08, top * 1.6, f"matrix product, {roof.gemm / 1e9:.3g} GFLOP/s", ha="right", va="top", color=INK)
    middle = math.sqrt(low * roof.ridge)
    axes.annotate(
        f"copy, {roof.copy / 1e9:.3g} GB/s",
        (middle, roof.at(middle)),
        xytext=(9, -9), textcoords="offset points", ha="left", color=INK,
    )  # fmt: skip
    axes.set_xlabel("arithmetic intensity, operations a byte")
    axes.set_ylabel("rate, GFLOP/s")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate / 1e9:g}"))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda intensity, _: f"{intensity:g}"))


def _draw_points(axes: Axes, points: Sequence[Point], hues: Mapping[str, str]) -> None:
    for point in points:
        rate = point.cost.operations / point.seconds
        axes.plot(
            point.cost.intensity, rate, _MARKS[point.part],
            color=hues[point.family], markersize=7.5, markeredgecolor="white", markeredgewidth=0.8, zorder=3,
        )  # fmt: skip
    _name_families(axes, points, hues)
    shown = [part for part in _MARKS if any(point.part == part for point in points)]
    keys = [Line2D([], [], color=RULE, marker=_MARKS[p], linestyle="", markersize=7, label=_LONG[p]) for p in shown]
    axes.legend(handles=keys, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=len(keys), columnspacing=1.2)


def _name_families(axes: Axes, points: Sequence[Point], hues: Mapping[str, str]) -> None:
    """A name below each family's points, at the lowest height where it touches no other name."""
    paths = {family: _path(points, family) for family in hues}
    low, high = axes.get_xlim()
    bottom, _ = axes.get_ylim()
    decade = 1 / math.log(high / low)  # the width of a factor e, as a part of the axis
    ends: list[float] = []
    for family, (across, up) in sorted(paths.items(), key=lambda item: item[1]):
        intensity = across[0]
        at = math.log(intensity / low) * decade
        half = 0.0085 * len(family) + 0.012
        level = next((k for k, end in enumerate(ends) if end < at - half), len(ends))
        ends[level : level + 1] = [at + half]
        height = bottom * 1.12 * 1.2**level
        axes.plot([intensity, *across], [height * 1.1, *up], color=hues[family], linewidth=0.9, alpha=0.6, zorder=1)
        axes.text(intensity, height, family, color=hues[family], ha="center", va="center", fontsize=9,
                  bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8}, zorder=4)  # fmt: skip


def _path(points: Sequence[Point], family: str) -> tuple[list[float], list[float]]:
    """The points of a family, from the least intensity on."""
    own = sorted((p.cost.intensity, p.cost.operations / p.seconds) for p in points if p.family == family)
    return [intensity for intensity, _ in own], [rate for _, rate in own]


def _draw_shares(axes: Axes, roof: Roof, points: Sequence[Point], hues: Mapping[str, str]) -> None:
    for row, point in enumerate(points):
        ours, hue = roof.share(point.cost, point.seconds), hues[point.family]
        if point.pytorch is not None:
            theirs = roof.share(point.cost, point.pytorch)
            axes.plot([ours, theirs], [row, row], color=GRID, linewidth=3, zorder=1, solid_capstyle="round")
            axes.plot(theirs, row, "o", color="white", markeredgecolor=RULE, markersize=6.5, markeredgewidth=1.4)
        axes.plot(ours, row, _MARKS[point.part], color=hue, markersize=7.5, markeredgecolor="white", zorder=3)
    axes.axvline(1, color=INK, linewidth=2.2, zorder=0)
    axes.set_yticks(range(len(points)), [point.name for point in points])
    for label, point in zip(axes.get_yticklabels(), points, strict=True):
        label.set_color(hues[point.family])
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_ylim(len(points) - 0.4, -0.6)
    axes.set_xlim(0, 1.03 * max(1.0, axes.get_xlim()[1]))
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1, symbol=" %"))
    axes.set_xlabel("share of the roof")
    keys = [Line2D([], [], color=RULE, marker="o", linestyle="", markersize=7, label="certiconv")]
    if any(point.pytorch is not None for point in points):
        ring = Line2D([], [], color=RULE, marker="o", linestyle="", markersize=6.5, label="PyTorch's better layout")
        ring.set_markerfacecolor("white")
        ring.set_markeredgewidth(1.4)
        keys.append(ring)
    axes.legend(handles=keys, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
