"""How a matrix product is cut up among blocks, warps and threads; ``choice`` says which way suits which sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from codegen.templates.cuda.fetching import Fetch

OWN_BYTES = 256  # of sums in the registers of a thread


@dataclass(frozen=True)
class Tile:
    """Rows and columns of a block, rows and columns of a thread, and how many terms are in shared memory at a time.

    ``parts``: how many threads share the terms of a sum.  A tile with few sums has few threads otherwise, and a warp by
    itself waits most of the time.
    """

    rows: int
    columns: int
    own_rows: int
    own_columns: int
    depth: int = 8
    parts: int = 1
    rate: ClassVar[int] = 1

    @property
    def name(self) -> str:
        """Rows x columns of a block, x parts if there are any: no two tiles of a kind of numbers share it."""
        return f"{self.rows}x{self.columns}{f'x{self.parts}' if self.parts > 1 else ''}"

    @property
    def threads(self) -> int:
        """Of a block."""
        return (self.rows // self.own_rows) * (self.columns // self.own_columns) * self.parts

    @property
    def own_bytes(self) -> int:
        """Bytes of a thread's sums, for numbers of one byte."""
        return self.own_rows * self.own_columns

    def cuda(self) -> str:
        """What it is in CUDA text: an instance of the template of ``tile.cu``."""
        parts = f", {self.parts}" if self.parts > 1 else ""
        return f"Tile<{self.rows}, {self.columns}, {self.own_rows}, {self.own_columns}, {self.depth}{parts}>"

    def along(self, left: Fetch, right: Fetch) -> str:
        """How its factors are fetched: along the terms or their other axis, and how many elements at a time."""
        return f"<{_along(left, right)}>"

    def told(self) -> str:
        """In words."""
        shared = f", {self.parts} threads a sum" if self.parts > 1 else ""
        return (
            f"block of {self.threads} threads forms {self.rows} x {self.columns} of it, a thread {self.own_rows} x "
            f"{self.own_columns}, {self.depth} terms at a time{shared}"
        )


@dataclass(frozen=True)
class TensorTile:
    """The same for tensor cores: rows and columns of a warp, and how many pairs of terms are in shared memory.

    ``rate``: how many times as many terms they multiply in the same time.
    """

    rows: int
    columns: int
    own_rows: int
    own_columns: int
    pairs: int = 16
    rate: int = 8
    parts: ClassVar[int] = 1

    @property
    def name(self) -> str:
        """As ``Tile.name``."""
        return f"{self.rows}x{self.columns}"

    @property
    def depth(self) -> int:
        """Terms in shared memory at a time."""
        return 2 * self.pairs

    @property
    def threads(self) -> int:
        """Of a block."""
        return 32 * (self.rows // self.own_rows) * (self.columns // self.own_columns)

    @property
    def own_bytes(self) -> int:
        """Bytes of a thread's sums, for numbers of one byte."""
        return self.own_rows * self.own_columns // 32

    def cuda(self) -> str:
        """As ``Tile.cuda``, of the template of ``tensor_tile.cu``."""
        return f"TensorTile<{self.rows}, {self.columns}, {self.own_rows}, {self.own_columns}, {self.pairs}>"

    def along(self, left: Fetch, right: Fetch) -> str:
        """As ``Tile.along``; what is fetched one by one is fetched in one way."""
        return f"<{_along(left, right)}>" if max(left.width, right.width) > 1 else ""

    def told(self) -> str:
        """In words."""
        return (
            f"block of {self.threads} threads forms {self.rows} x {self.columns} of it, a warp {self.own_rows} x "
            f"{self.own_columns}, {self.depth} terms at a time"
        )


def _along(left: Fetch, right: Fetch) -> str:
    """Arguments of the template ``multiply``."""
    ways = ["TERMS" if factor.deep else "SIDE" for factor in (left, right)]
    widths = [factor.width for factor in (left, right)]
    return ", ".join([*ways, *(map(str, widths) if max(widths) > 1 else ())])


AnyTile = Tile | TensorTile

TILES: tuple[AnyTile, ...] = (
    Tile(128, 128, 8, 8), Tile(64, 128, 8, 8), Tile(128, 64, 8, 8), Tile(64, 64, 8, 4), Tile(32, 128, 8, 4),
    Tile(128, 32, 4, 8), Tile(32, 64, 4, 4), Tile(64, 32, 4, 4), Tile(16, 256, 4, 4), Tile(16, 128, 4, 4),
    Tile(32, 32, 4, 4), Tile(16, 32, 4, 4), Tile(8, 256, 4, 4, 4), Tile(8, 128, 4, 4, 4),
    Tile(32, 64, 4, 4, 16, 2), Tile(32, 32, 4, 4, 16, 4), Tile(16, 32, 4, 4, 32, 4), Tile(8, 64, 4, 4, 16, 4),
    Tile(8, 32, 4, 4, 32, 8),
)  # fmt: skip
HALVES: tuple[AnyTile, ...] = (
    TensorTile(128, 128, 64, 32), TensorTile(64, 128, 32, 32), TensorTile(128, 64, 32, 32), TensorTile(64, 64, 32, 32),
    TensorTile(32, 128, 32, 32), TensorTile(16, 128, 16, 32), TensorTile(32, 32, 16, 16), TensorTile(16, 32, 16, 16),
)  # fmt: skip
TF32: tuple[AnyTile, ...] = tuple(
    TensorTile(t.rows, t.columns, t.own_rows, t.own_columns, pairs=8, rate=4) for t in HALVES
)


def fitting(candidates: Sequence[AnyTile], itemsize: int) -> tuple[AnyTile, ...]:
    """The tiles whose sums stay in registers, for numbers of so many bytes: larger numbers need smaller tiles."""
    return tuple(tile for tile in candidates if tile.own_bytes * itemsize <= OWN_BYTES)
