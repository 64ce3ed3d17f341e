"""``python -m codegen.prove``: prove every plan's theorem for all sizes and commit the derivations.

Each file in ``codegen/plans/proofs`` holds one plan's theorems.  Without arguments the files are written anew; with
``--check`` they are compared with what is proved now, and the exit status is 1 where one is stale, as CI asks.
It takes a minute or two: Z3 discharges some thousands of side conditions.  Several files are proved at once, each in a
process of its own, so that what is proved for one does not depend on what was proved before it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from codegen.architecture import forget
from codegen.committed import file_text
from codegen.network_proof import NetworkProof
from codegen.plan import BATCH
from codegen.plans import band_claims, claims, device_network, layer_claims
from derive.indices import index
from derive.kernel import Theorem
from derive.layers import lenet

FOLDER = Path(__file__).parent / "plans" / "proofs"


def prove_lenet() -> Mapping[str, Theorem]:
    """The network plan of LeNet's architecture: logits, loss, and the derivative of the loss by each parameter."""
    shape = (BATCH, index(1), index(28), index(28))
    return dict(NetworkProof.of(forget(lenet(), shape)).prove())


def prove_lenet_device() -> Mapping[str, Theorem]:
    """The same of the plan for a GPU."""
    shape = (BATCH, index(1), index(28), index(28))
    return dict(NetworkProof.of(forget(lenet(), shape), device_network.joined).prove())


PLANS: Mapping[str, tuple[str, Callable[[], Mapping[str, Theorem]]]] = {
    "lenet": ("The network plan, for every network of LeNet's architecture", prove_lenet),
    "lenet_device": ("The network plan for a GPU, for every network of LeNet's architecture", prove_lenet_device),
    **{f"conv{n}d": (f"The plans of a convolution over {n} axes", partial(claims.prove, n)) for n in (1, 2, 3)},
    **{
        f"groups{n}d": (
            f"The plans of a grouped convolution over {n} axes",
            partial(claims.prove, n, groups=True),
        )
        for n in (1, 2, 3)
    },
    **{
        f"residues{n}d": (f"The input gradient by residues over {n} axes", partial(claims.prove_residues, n))
        for n in (1, 2, 3)
    },
    "pools": ("The plans of average pools", partial(layer_claims.prove, "pools")),
    "activations": ("The plans of activations", partial(layer_claims.prove, "activations")),
    "linear": ("The plans of dense layers", partial(layer_claims.prove, "linear")),
    band_claims.FILE: ("Bands of rows of a convolution over one, two and three axes", band_claims.prove),
}


def text_of(name: str) -> str:
    """The file of that name, proved afresh."""
    title, prove = PLANS[name]
    return file_text(title, prove())


def texts_of(names: Sequence[str]) -> Iterator[str]:
    """The files of these names, proved afresh, as many at once as there are processors; what takes longest first."""
    if len(names) < 2:
        yield from map(text_of, names)
        return
    with ProcessPoolExecutor(mp_context=get_context("spawn"), max_tasks_per_child=1) as processes:
        begun = {name: processes.submit(text_of, name) for name in sorted(names, key=lambda name: "conv" not in name)}
        yield from (begun[name].result() for name in names)


def main(arguments: Iterable[str]) -> int:
    """Write or check the files; gives the exit status."""
    given = list(arguments)
    check = "--check" in given
    names = [a for a in given if not a.startswith("-")] or list(PLANS)
    stale = []
    for name, text in zip(names, texts_of(names), strict=True):
        path = FOLDER / f"{name}.json"
        if check and (not path.is_file() or path.read_text(encoding="utf-8") != text):
            stale.append(name)
        elif not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        sys.stderr.write(f"{name}: {'stale' if name in stale else 'proved'}\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
