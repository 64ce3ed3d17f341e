"""``check_cupy``: a module for CuPy executed exactly, its kernels by an executor that is handed in.

The executor runs the CUDA text as it stands, every thread of every block, and stops at a race, at an access outside
an array, or at a barrier that some threads do not reach (``runtime.simt`` does, on a CPU).  No address or barrier of
the text depends on data, nor a branch around one, so one run at a shape and batch size sees every access that there is
at them.

In the integers modulo p every result has to be what its stage gives; in the dtype itself on integers that are
multiplied and added without rounding.  Sums are cut into several shares, and places are computed with 64 bits as well
as with 32.  Every trial begins with another order of threads, so what depends on their order is wrong in one of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from math import isqrt
from random import Random
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from codegen import layer_data, nearness
from codegen.certificate import Certificate, Row, cases, certificate, digest
from codegen.chance import EVALUATOR, FIELD, HASH, applications, bounded, survival
from codegen.execution import Data, Expected, Finding, Refuted, Text, Trial, run_calls
from codegen.field import Element, Objects, P, array, keyed
from codegen.functions import GIVES, GRADIENTS, passed
from codegen.growth import bounds
from codegen.layer_data import BATCHED_RESULTS, INTO, LayerData, Plans
from codegen.plan import Plan
from codegen.templates.cuda.numbers import NUMBERS

BATCHES = (3, 1)
INTEGER_BATCH = 2
# Short shares, so that sums are cut up at small shapes too, and no more of them than show it; vectors of up
# to eight elements of a share are fetched at once (``codegen.templates.cuda.fetching``).
SHARE, SHARES = 8, 23
CUT = f"sums in at most {SHARES} shares of at least {SHARE} terms, of fewer where there are fewer than {2 * SHARE}"


class _Spread(int):
    """The number of blocks that a sum is spread over, of which every sum gets as many, whatever its results are."""

    def __floordiv__(self, _: int) -> int:
        return SHARES


def cut_short(module: ModuleType) -> ModuleType:
    """A module whose sums over the batch are cut into short shares, by its own function.

    A dense layer's have a term an image, so few that ``SHARE`` of them would be one share.  Vectors of terms that are
    fetched at once are as long as a power of two that divides the number of terms, so the largest such is legal.
    """
    own = module.share

    def share(blocks: int, terms: int, _: int, ahead: int) -> Any:
        return own(blocks, terms, SHARE if terms >= 2 * SHARE else terms & -terms or SHARE, ahead)

    module.__dict__.update(BLOCKS=_Spread(), share=share)
    return module


EXECUTOR = (
    "the executor (runtime.simt): its model of CUDA, and g++, whose flags keep it from merging or copying the calls "
    "that tell barriers apart; that NVRTC and the GPU do as the model does, but that float32 numbers below 2^-126 in "
    "size are zero to them (-ftz=true)"
)
TEMPLATES = (
    "codegen.templates.cuda, none of which computes from data an address, or a condition around an access or a barrier"
)
PTX = (
    "the inline PTX under __CUDACC__ (tensor cores), which no CPU runs: here a function of the executor stands for an "
    "instruction"
)
APART = (
    "No address or barrier depends on data, nor a branch around one, so other data give the same accesses: what does "
    "branch on data, a maximum or the comparison with a label, chooses between numbers."
)


def executing(source: str) -> tuple[str, ...]:
    """What the execution of a text rests on: the executor, and PTX where the text has any."""
    return (EXECUTOR, PTX) if "__CUDACC__" in source else (EXECUTOR,)


class Executor(Protocol):
    """Makes a module out of text; with a key its numbers are elements of the field with that key, as uint64.

    The launches of a module run under one order of threads or another; ``turn`` says with which they begin.
    """

    def __call__(self, source: str, *, key: int | None = None, turn: int = 0) -> ModuleType:
        """See the class."""


@dataclass
class DeviceData(LayerData):
    """Data for functions that take no workspace and, where they are exact, arrays of representatives modulo p."""

    kind: type[Element] | None = None

    def call(self, module: ModuleType, function: str, work: Any) -> dict[str, Any]:
        """See ``Data``."""
        given = {name: self._passed(a) for name, a in self.arrays.items()}
        name = function.removesuffix(INTO)
        arguments = passed(name, given)
        if function == "backward":
            found = dict(zip(map(GIVES.__getitem__, GRADIENTS), module.backward(*arguments), strict=True))
            return {key: self._taken(a) for key, a in found.items() if a is not None}
        ((output, wanted),) = super().expected(name).items()
        if not function.endswith(INTO):
            return {output: self._taken(getattr(module, name)(*arguments))}
        out = module.cupy.zeros(wanted.shape, module.DTYPE)
        return {output: self._taken(out)} if getattr(module, name)(*arguments, out=out) is out else {}

    def expected(self, function: str) -> dict[str, Expected]:
        """See ``Data``; in a dtype, exact sums are rounded once, when they are stored."""
        found = super().expected(function)
        if self.kind is not None:
            return found
        stored = {key: np.array([float(v) for v in e.values]).astype(self.dtype) for key, e in found.items()}
        return {key: Expected(e.shape, stored[key].astype(np.float64).tolist()) for key, e in found.items()}

    def workspace(self, module: ModuleType, function: str, trial: Trial) -> Any:
        """There is none."""
        return None

    def origin(self, function: str) -> None:
        """A result is one stage: there is no first one that is wrong."""
        return

    def _passed(self, a: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return a if self.kind is None else representatives(a)

    def _taken(self, a: Any) -> npt.NDArray[Any]:
        return np.asarray(a).astype(np.float64) if self.kind is None else elements(self.kind, a)


def check_cupy(
    source: str,
    plans: Plans,
    run: Executor,
    *,
    dtype: str,
    tf32: bool = False,
    subject: str = "a layer",
    proofs: Iterable[Row] = (),
) -> Certificate:
    """Execute the text of a convolution for CuPy exactly against its own stages.

    Args:
        source: the text of the module.
        plans: the plans of its results.
        run: makes a module of the text.
        dtype: that of the module.
        tf32: whether factors of products are rounded to TF32.
        subject: what the certificate calls it.
        proofs: rows of what is proved about the plans.

    Returns:
        The certificate.

    Raises:
        Refuted: a function does not give what its stage says, or a kernel does what no kernel may.
    """
    for plan in plans.values():
        plan.check()
    seed = digest(source)
    key = int(seed[:12], 16)
    kind = keyed(key)
    listed = trials(plans)
    for k, trial in enumerate(listed):
        exact = Text(source, partial(made, run, key, turn=k, wide=True), None)
        rng = Random(f"{seed} trial {k}")
        run_calls(exact, trial, [_drawn(plans, kind, trial.batch, rng) for _ in trial.calls])
    real = Text(source, partial(made, run, None, turn=0, wide=False), None)
    polynomial = {name: plan for name, plan in plans.items() if not nearness.has_functions(plan)}
    integers = {name: largest_integer(plan, dtype, tf32=tf32) for name, plan in polynomial.items()}
    largest = {name: bound for name, bound in integers.items() if bound}  # zeros alone would show nothing
    for name, bound in largest.items():
        rng = Random(f"{seed} integers {name}")
        drawn = layer_data.draw_integers(plans, real.module().DTYPE, bound, INTEGER_BATCH, rng)
        run_calls(real, Trial(INTEGER_BATCH, None, (name,)), [_on_device(drawn, None)])
    plain = "weight" not in layer_data.inputs(plans)
    rounded = [name for name in plans if plain and name not in largest]
    for name in rounded:
        for k in range(nearness.RUNS):
            _nearly(real.module(), plans, name, dtype, f"{seed} {name} {k}")
    rows = _rows(listed, largest, dtype, executing(source), plans)
    near = [nearness.row(dtype, rounded, executing(source))] if rounded else []
    return certificate(subject, source, [*proofs, *rows, *near])


def _nearly(module: ModuleType, plans: Plans, name: str, dtype: str, seed: str) -> None:
    """A result once in its dtype from numbers with which it is rounded."""
    arrays = nearness.draw(plans, module.DTYPE, seed)
    where = f"{name}, batch {nearness.BATCH} in {dtype}"
    try:
        result = getattr(module, name)(*passed(name, arrays))
    except Exception as error:  # whatever a wrong text may do is a finding
        raise Refuted(Finding(f"{where}: {type(error).__name__}: {error}", name)) from error
    nearness.compare({GIVES[name]: result}, plans[name], arrays, dtype, NUMBERS[dtype].sum_dtype, where)


EXACT = {"float16": 1 << 11, "bfloat16": 1 << 8}  # integers up to this are stored as they are
HIGHEST = {"float16": 65504}  # what is larger is stored as infinity
TF32 = 1 << 11


def largest_integer(plan: Plan, dtype: str, *, tf32: bool = False) -> int:
    """The largest B so that from integers up to B no sum of a plan is rounded; what is stored of a sum may be."""
    sums = NUMBERS[dtype].sum_dtype
    known = bounds(plan, layer_data.PRECISIONS[sums], batch=INTEGER_BATCH)
    largest = layer_data.largest(known, sums)
    if dtype in HIGHEST:
        largest = min(largest, isqrt(HIGHEST[dtype] // max(int(known.largest), 1)))
    return min(largest, EXACT.get(dtype, largest), TF32 if tf32 else largest)


def trials(plans: Plans) -> tuple[Trial, ...]:
    """Every result for each batch size, those with a batch in a given array too, and all gradients at once."""
    alone = [Trial(batch, None, (name,)) for batch in BATCHES for name in plans]
    into = [Trial(BATCHES[0], None, (name + INTO,)) for name in plans if name in BATCHED_RESULTS]
    if "weight" not in layer_data.inputs(plans):
        return (*alone, *into)
    return (*alone, *into, Trial(BATCHES[1], None, ("backward",)))


def made(run: Executor, key: int | None, source: str, *, turn: int, wide: bool, **_: object) -> ModuleType:
    """The module with its sums in short shares, and with 64-bit places if ``wide``."""
    module = cut_short(run(source, key=key, turn=turn))
    if wide:
        module.__dict__["NARROW"] = 0
    return module


def representatives(a: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    """Elements of the field as the executor takes them."""
    return np.array([e.value % P for e in a.ravel()], dtype=np.uint64).reshape(a.shape)


def elements(kind: type[Element], a: Any) -> Objects:
    """What the executor gives, as elements of the field."""
    return array(kind, (int(v) for v in np.ravel(a)), np.shape(a))


def _drawn(plans: Plans, kind: type[Element], batch: int, rng: Random) -> Data:
    return _on_device(layer_data.draw(plans, kind, batch, rng), kind)


def _on_device(data: LayerData, kind: type[Element] | None) -> DeviceData:
    return DeviceData(data.plans, data.arrays, data.values, data.dtype, kind)


def _rows(
    listed: Iterable[Trial], largest: Mapping[str, int], dtype: str, executor: tuple[str, ...], plans: Plans
) -> list[Row]:
    told = "; ".join(f"batch {trial.batch}: {', '.join(trial.calls)}" for trial in listed)
    count = sum(len(trial.calls) for trial in listed)
    stored = f", but for that of a sum to {dtype}." if NUMBERS[dtype].sum_dtype != dtype else "."
    functions = max(applications(plan, BATCHES[0]) for plan in plans.values())
    bound = bounded(functions, compares=any(map(nearness.has_functions, plans.values())))
    cut = f"{CUT}, " if "weight" in layer_data.inputs(plans) else ""
    integers = ", ".join(f"{name} with B = {bound}" for name, bound in largest.items())
    rows = [
        Row(
            "The CUDA text computes its stages: the output and every gradient are, number for number, what the "
            "expressions of the plans give.",
            cases(count),
            f"{FIELD} Run: {told}; {cut}64-bit places. {bound} Other batch sizes were not run.",
            survival(functions),
            (EVALUATOR, "CPython", *((HASH,) if functions else ()), *executor),
        ),
        Row(
            "At this shape and these batch sizes no kernel reads or writes outside an array, reads what nobody wrote, "
            "or writes an element that another thread reads or writes without a barrier between; all threads of a "
            "block reach the same barriers.",
            cases(count + len(largest)),
            f"Every access of every thread watched in these runs. {APART}",
            0.0,
            (*executor, TEMPLATES),
        ),
    ]
    if not largest:
        return rows
    return [
        *rows,
        Row(
            f"In {dtype} the results of {', '.join(largest)} are exact where no rounding occurs" + stored,
            cases(len(largest)),
            f"Integers uniform from -B to B, with which no number of a stage, nor a sum on the way to it, is rounded; "
            f"batch {INTEGER_BATCH}, 32-bit places; {integers}; every element compared with the stages.",
            max(2 / (2 * bound + 1) for bound in largest.values()),
            (EVALUATOR, *executor),
        ),
    ]


__all__ = ["Executor", "check_cupy"]
