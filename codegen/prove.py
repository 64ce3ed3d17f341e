"""``python -m codegen.prove``: prove every plan's theorem for all sizes and commit the derivations.

Each file in ``codegen/plans/proofs`` holds one plan's theorems.  Without arguments the files are written anew; with
``--check`` they are compared with what is proved now, and the exit status is 1 where one is stale.  It takes less than
a minute: Z3 discharges some hundreds of side conditions.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from codegen.architecture import forget
from codegen.committed import file_text
from codegen.network_proof import NetworkProof
from codegen.plan import BATCH
from codegen.plans import claims
from derive.indices import index
from derive.kernel import Theorem
from derive.layers import lenet

FOLDER = Path(__file__).parent / "plans" / "proofs"


def prove_lenet() -> Mapping[str, Theorem]:
    """The network plan of LeNet's architecture: logits, loss, and the derivative of the loss by each parameter."""
    shape = (BATCH, index(1), index(28), index(28))
    return dict(NetworkProof.of(forget(lenet(), shape)).prove())


PLANS: Mapping[str, tuple[str, Callable[[], Mapping[str, Theorem]]]] = {
    "lenet": ("The network plan, for every network of LeNet's architecture", prove_lenet),
    **{f"conv{n}d": (f"The plans of a convolution over {n} axes", partial(claims.prove, n)) for n in (1, 2, 3)},
    **{
        f"groups{n}d": (
            f"The plans of a grouped convolution over {n} axes",
            partial(claims.prove, n, groups=True),
        )
        for n in (1, 2, 3)
    },
}


def text_of(name: str) -> str:
    """The file of that name, proved afresh."""
    title, prove = PLANS[name]
    return file_text(title, prove())


def main(arguments: Iterable[str]) -> int:
    """Write or check the files; gives the exit status."""
    given = list(arguments)
    check = "--check" in given
    names = [a for a in given if not a.startswith("-")] or list(PLANS)
    stale = []
    for name in names:
        path, text = FOLDER / f"{name}.json", text_of(name)
        if check and (not path.is_file() or path.read_text(encoding="utf-8") != text):
            stale.append(name)
        elif not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        sys.stderr.write(f"{name}: {'stale' if name in stale else 'proved'}\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
