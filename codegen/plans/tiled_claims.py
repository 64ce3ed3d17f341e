"""How plans that work on tiles are proved: opened like others, then the matrices folded and the tiles joined.

Opened down to the inputs, such a plan is a sum over points t of products of the three matrices of Toom-Cook, inside
sums over tiles.  ``derive.folding`` replaces the matrices by what their theorem says, ``derive.tiles`` the tiles by the
whole axis; what is left is the definition, but for the direction in which the input gradient runs through the kernel.
"""

from __future__ import annotations

from dataclasses import dataclass

from codegen.claims import Claim
from codegen.proofs import meet, opened, worked_out
from derive import tactics
from derive.folding import through_identity
from derive.indices import Index, Interval
from derive.kernel import Theorem, Where
from derive.terms import Monomial, Read
from derive.tiles import flipped, gathered, joined
from derive.toomcook import ToomCook


@dataclass(frozen=True)
class TiledClaim(Claim):
    """A claim about a plan on tiles of ``size`` outputs an axis, ``outputs`` the spatial axes of the layer's output.

    ``schemes`` are those of its axes, none for tiles without fewer multiplications.  With ``turned`` the plan runs
    through the kernel from its end, as the input gradient of Toom-Cook does.  ``pieces`` are the spatial axes of a
    kernel that is cut into pieces of that size.
    """

    size: int
    outputs: tuple[Interval, ...]
    schemes: tuple[ToomCook, ...] = ()
    turned: bool = False
    pieces: tuple[Interval, ...] = ()

    def prove(self) -> Theorem:
        """The theorem.  Raises Refused where the two sides do not meet."""
        matrices = {t for f in self.schemes for t in (f.A, f.G, f.B)}
        stages = [s for s in self.stages if s.tensor not in matrices]
        below = opened(self.lhs, self.facts, self.over, stages)
        if any(f.A in t.reads_of_body for t in self.lhs.tensors for f in self.schemes):
            below = through_identity(below, *dict.fromkeys(self.schemes))
        below = self._joined(gathered(below))
        above = worked_out(self.rhs, self.facts, self.over, self.definitions)
        if self.turned:
            axes = range(1, 1 + len(self.outputs))
            above = tactics.tidy(tactics.contract_all(above, prefer=list(axes)))
            for variable in _backwards(below):
                below = flipped(below, (0,), variable)
        return meet(below, above)

    def _joined(self, theorem: Theorem) -> Theorem:
        """Sums over tiles of the output and the cells in each as sums over the output."""
        for _ in (*self.outputs, *self.pieces):
            found = self._tiles(theorem)
            if found is None:
                return theorem
            where, pair, end = found
            theorem = joined(theorem, where, pair, end)
        return theorem

    def _tiles(self, theorem: Theorem) -> tuple[Where, tuple[int, int], Index] | None:
        """A monomial, the numbers of its variables for a tile and the cell in it, and the size of their axis."""
        for where, m, depth in tactics.scopes(theorem.rhs):
            for axis in (*self.outputs, *self.pieces):
                pair = _pair(m, depth, self.size, axis)
                if pair is not None:
                    return where, pair, axis[1]
        return None


def _backwards(theorem: Theorem) -> list[int]:
    """The variables of the first monomial by which a factor is read from its end."""
    _, m, depth = next(found for found in tactics.scopes(theorem.rhs) if found[0] == (0,))
    indices = [e for f in m.factors if isinstance(f, Read) for e in f.at]
    return [k for k in range(len(m.binders)) if any(e.slope(depth + k) == -1 for e in indices)]


def _pair(m: Monomial, depth: int, size: int, output: Interval) -> tuple[int, int] | None:
    """The variables of ``size * j + i`` where a read has it for an index, j counting the tiles of this axis."""
    tiles = (output[1] + size - 1) // size
    for read in (f for f in m.factors if isinstance(f, Read)):
        for e in read.at:
            for j in (k for k, (_, high) in enumerate(m.binders) if high == tiles):
                for i in (k for k, (_, high) in enumerate(m.binders) if high.constant == size):
                    if (e.slope(depth + j), e.slope(depth + i)) == (size, 1):
                        return j, i
    return None
