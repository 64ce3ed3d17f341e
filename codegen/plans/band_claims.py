"""That bands are rows of the whole result: the theorem that every plan in bands rests on, for all sizes.

    forward         Yb[b,n,i] = Y[b,n,r+i]                  for the output Yb of the band's convolution on Xb
    input gradient  d(Sum Gb Yb) / dXb[b,c,i] = d(Sum G Y) / dX[b,c,r+i]

for every first row r and number of rows R with 0 <= r, 1 <= R and r + R at most the rows of the result; Xb and Gb are
the rows that ``codegen.plans.bands`` says.  What the stages of a band compute is another theorem, that of its
algorithm: it holds for every input and padding, so for these.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from codegen.architecture import holds
from codegen.claims import Claim
from codegen.committed import committed
from codegen.plan import Stage
from codegen.plans.algorithms import KINDS
from codegen.plans.bands import RESULTS, Band, Bands, band, rows_of, theorem
from codegen.plans.claims import proof_digests, sizes_of
from codegen.plans.convolution import cotangent_of
from codegen.proofs import meet, normal, worked_out
from derive import kernel, tactics
from derive.indices import Guard, Index, at_least, index, symbol, variables
from derive.kernel import Theorem
from derive.layers import Applied, symbolic
from derive.terms import Tensor, instantiate, resized, tensor, term

FILE = "bands"
FIRST, ROWS = symbol("r"), symbol("R")


@dataclass(frozen=True)
class BandClaim(Claim):
    """A claim about a band; its one stage holds the rows that are read, ``inner`` is the output of its convolution."""

    inner: Tensor

    def prove(self) -> Theorem:
        """The theorem.  Raises Refused where the two sides do not meet."""
        names = [s.name for s in self.stages]
        below = worked_out(self.lhs, self.facts, self.over, (self.inner.name,))
        below = normal(tactics.open_and_solve(tactics.tidy(tactics.contract_all(below)), names))
        above = worked_out(self.rhs, self.facts, self.over, self.definitions)
        return meet(below, tactics.tidy(tactics.contract_all(above)))


def claim_of(applied: Applied, result: str, own: Band | None = None) -> BandClaim:
    """What is claimed of bands, by default the right ones, of a convolution with symbols for sizes."""
    own = band(applied, result, ROWS) if own is None else own
    rows, inner, x = _band(own, result, FIRST, ROWS)
    whole = applied.y if result == "forward" else applied.x
    facts = (*applied.facts, at_least(FIRST, 0), at_least(ROWS, 1), at_least(whole.box[2][1], FIRST + ROWS))
    at = variables(0, whole.rank)
    there = (*at[:2], at[2] + FIRST, *at[3:])
    lhs, rhs = term(len(at), inner[at]), term(len(at), applied.y[there])
    if result == "input_gradient":
        lhs = kernel.vector_jacobian(rows, inner, x)
        rhs = instantiate(kernel.vector_jacobian(cotangent_of(applied), applied.y, applied.x), there, len(at))
    over = (*whole.box[:2], (index(0), ROWS), *whole.box[3:])
    stages = (Stage(rows, "alias"),)
    return BandClaim(f"bands {result}", lhs, rhs, facts, over, stages, (applied.y.name,), inner)


def _band(own: Band, result: str, first: Index, rows: Index) -> tuple[Tensor, Tensor, Tensor]:
    """The rows that are read, and output and input of the band's convolution."""
    read = own.reading.rows(f"{own.reading.tensor.name}b", first)
    x = read if result == "forward" else Tensor("Xb", own.x.box)
    found = own.layer.on(x, "Yb")
    size = found.windows[0].output
    height = rows if result == "forward" else own.reading.span
    return read, resized(found.y, {size.text: height}), x


def _general(axes: int, result: str, *, bias: bool) -> Applied:
    """The layer with a symbol for every size, but for the stride of an input gradient on its first axis."""
    layer, shape = symbolic(KINDS[axes])
    if result == "input_gradient":
        _, *others = (w.stride for w in layer.windows(shape[2:]))
        layer = replace(layer, stride=(1, *others))
    return replace(layer, bias=bias).on(tensor("X", *shape), "Y")


@lru_cache(maxsize=16)
def _known(axes: int, result: str, bias: bool) -> tuple[Applied, BandClaim]:
    """A layer with symbols and what is claimed of its bands: the same for every shape."""
    applied = _general(axes, result, bias=bias)
    return applied, claim_of(applied, result)


def key(axes: int, result: str, *, bias: bool) -> str:
    """What a theorem is called in the committed file."""
    return f"{result} {axes}d{'' if bias else ', without bias'}"


def claims() -> Iterator[tuple[str, BandClaim]]:
    """Everything that is claimed of bands."""
    for axes in KINDS:
        for result in RESULTS:
            for bias in (True, False):
                yield key(axes, result, bias=bias), _known(axes, result, bias)[1]


def prove() -> dict[str, Theorem]:
    """Every theorem about bands."""
    return {name: claim.prove() for name, claim in claims()}


def proof_digest(applied: Applied, result: str, bands: Bands) -> str | None:
    """The digest of the committed theorem that these bands are an instance of; None where they are of none.

    That its facts hold at every first row, what is read, and that no row is left out is checked by plain arithmetic;
    nothing is proved here.
    """
    axes, bias = len(applied.windows), "bias" in applied.parameters
    general, claim = _known(axes, result, bias)
    file, name = committed(FILE), key(axes, result, bias=bias)
    sizes = {symbol: index(n) for symbol, n in sizes_of(general, applied).items()} | {ROWS.text: index(bands.rows)}
    read, inner, _ = _band(bands.band, result, FIRST, index(bands.rows))
    (stage,) = claim.stages
    cache: dict[Tensor, Tensor] = {}
    same = resized(stage.tensor, sizes, cache) == read and resized(claim.inner, sizes, cache) == inner
    held = all(_hold(claim.facts, {**sizes, FIRST.text: index(row)}) for row in bands.starts)
    ends = (*bands.starts[1:], rows_of(applied, result))
    covered = bands.starts[0] == 0 and all(b <= a + bands.rows for a, b in zip(bands.starts, ends, strict=True))
    if file is None or not (same and held and covered and file.proves(name, claim.statement)):
        return None
    return str(file.outputs[name]["digest"])


def theorems_of(applied: Applied, bands: Mapping[str, Bands], whole: Mapping[str, str]) -> dict[str, str]:
    """The digests of the theorems that bands rest on, for those whose own plan has the theorem of the whole one too."""
    found = {}
    for result, cut in bands.items():
        own = cut.band.layer.on(cut.band.x, "Y")
        digest, stages = proof_digest(applied, result, cut), proof_digests(own, cut.plan.algorithm, {result: cut.plan})
        if digest and stages and stages == {result: whole.get(result)}:
            found[theorem(result)] = digest
    return found


def _hold(facts: tuple[Guard, ...], sizes: dict[str, Index]) -> bool:
    return all(holds(fact, sizes) for fact in facts)


__all__ = ["FILE", "BandClaim", "claim_of", "claims", "key", "proof_digest", "prove", "theorems_of"]
