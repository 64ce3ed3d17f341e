"""How a matrix product lies among the blocks of its kernel, and what its text calls rows, columns and terms.

A row, a column or a term that is one variable alone has that variable's letter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal

from codegen.contraction import Contraction
from codegen.templates.cuda.declarations import Declaration, flat_name, gathered, unflattened
from codegen.templates.cuda.fetching import Fetch, fetching
from codegen.templates.cuda.kernels import ceil_of, times
from codegen.templates.cuda.shares import is_split
from codegen.templates.cuda.text import Scope, cells, kind_of
from codegen.templates.cuda.tiling import AnyTile
from codegen.wording import wrapped
from derive.indices import Index

SideName = Literal["left", "right"]


@dataclass(frozen=True)
class Layout:
    """A product and its tile, with what its text calls the place of a row, a column, a term and a product of a batch.

    ``places`` declare a column's variables where they are not simply those of ``column`` in order, ``inside`` are the
    conditions that such a column is one; with ``ones`` a column of ones comes after the last.  ``size``: the bytes of
    an element.
    """

    c: Contraction
    scope: Scope
    tile: AnyTile
    ones: bool = False
    total: Index | None = None
    places: Sequence[Declaration] = ()
    inside: Sequence[str] = ()
    size: int = 4

    @property
    def row(self) -> str:
        """A row."""
        return flat_name(self.scope, self.c.rows, "row")

    @property
    def column(self) -> str:
        """A column."""
        return "column" if self.places else flat_name(self.scope, self.c.columns, "column")

    @property
    def term(self) -> str:
        """A term of the sum."""
        return flat_name(self.scope, self.c.depth, "term")

    @property
    def which(self) -> str:
        """One of several products."""
        return flat_name(self.scope, self.c.batch, "product")

    @property
    def split(self) -> bool:
        """Whether the sum is cut into shares."""
        return is_split(self.scope, self.c.depth)

    def count(self, levels: Iterable[int]) -> Index:
        """How many combinations of these variables there are."""
        return cells(self.scope.intervals[v] for v in levels)

    @property
    def columns(self) -> Index:
        """How many columns."""
        return (self.total or self.count(self.c.columns)) + int(self.ones)

    @property
    def column_places(self) -> Sequence[Declaration]:
        """The variables of a column."""
        return self.places or unflattened(self.scope, self.c.columns, self.column)

    def fetch(self, name: SideName) -> Fetch:
        """How a factor is fetched."""
        c = self.c
        side, group = (c.left, c.rows) if name == "left" else (c.right, c.columns)
        ordered = name == "left" or not self.places
        return fetching(side.read, side.guards, self.scope, group, c.depth, size=self.size, ordered=ordered)

    @property
    def end(self) -> str:
        """Behind the last term of a block."""
        return "end" if self.split else self.scope.text(self.count(self.c.depth))

    @property
    def row_tiles(self) -> int:
        """How many blocks the rows take."""
        return ceil((self.count(self.c.rows).constant or 0) / self.tile.rows)

    @property
    def blocks(self) -> str:
        """How many blocks the product takes, as Python; where the sum is split, how many for each share."""
        columns = ceil_of(self.scope.text(self.columns), self.tile.columns)
        return times(str(self.row_tiles), columns, self.scope.text(self.count(self.c.batch)))

    @property
    def columns_text(self) -> str:
        """The number of columns, under the name that a kernel gives it where it has to be computed."""
        text = self.scope.text(self.columns)
        return text if text.isdigit() or text.isidentifier() else "columns"


def scope_of(c: Contraction) -> Scope:
    """Every variable of the stage, those of the sum last."""
    names = c.stage.names
    box = (*c.stage.tensor.box, *c.monomial.binders)
    return Scope(names[: len(box)], box)


def told(layout: Layout) -> list[str]:
    """The product in words."""
    c, scope = layout.c, layout.scope
    rows, depth, batches = (scope.text(layout.count(g)) for g in (c.rows, c.depth, c.batch))
    times_ = f", {batches} times" if c.batch and batches != "1" else ""
    sizes = f"{rows} rows, {scope.text(layout.columns)} columns, a sum of {depth} terms{times_}"
    return [*wrapped(f"As a matrix product: {sizes}."), f"A {layout.tile.told()}."]


def of_block(layout: Layout) -> tuple[list[str], str, str]:
    """What is declared of a block, and the texts of its first row and first column.

    Blocks are counted with the tiles of the rows innermost, then those of the columns, shares, and products of a batch.
    """
    c, scope, tile = layout.c, layout.scope, layout.tile
    kind, count, columns = kind_of(layout.columns), scope.text(layout.columns), layout.columns_text
    lines = [f"const {kind} columns = {count};"] if columns != count else []
    first_row = first_column = "0"
    rest = "block"
    several = c.batch and scope.text(layout.count(c.batch)) != "1"
    if layout.row_tiles > 1:
        first_row = "first_row"
        lines.append(f"const int first_row = block % {layout.row_tiles} * {tile.rows};")
        rest += f" / {layout.row_tiles}"
    column_tiles = str(-(-int(count) // tile.columns)) if count.isdigit() else "column_tiles"
    last = not layout.split and not several
    if column_tiles != "1":
        first_column = "first_column"
        if not last and column_tiles == "column_tiles":
            lines.append(f"const {kind} column_tiles = ({columns} + {tile.columns - 1}) / {tile.columns};")
        own = rest if last else f"{rest} % {column_tiles}"
        lines.append(f"const {kind} first_column = {own} * {tile.columns};")
        if layout.columns.symbols:
            left = f"{columns} - first_column"
            lines.append(f"const int here = {left} < {tile.columns} ? {left} : {tile.columns};  // columns of the tile")
        rest += f" / {column_tiles}"
    if layout.split:
        depth = scope.text(layout.count(c.depth))
        lines += [
            f"const INDEX split = {rest}{' % splits' if several else ''}, depth = {depth};",
            "const INDEX begin = split * share, end = begin + share < depth ? begin + share : depth;",
        ]
        rest += " / splits"
    if several:
        if layout.which == "product":
            lines.append(f"const INDEX product = {rest};")
        lines += gathered(unflattened(scope, c.batch, rest if layout.which != "product" else "product"))
    return lines, first_row, first_column
