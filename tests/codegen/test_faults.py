"""Deliberate faults, each planted in a template or a plan, and the check that kills it.

Three checks stand between a fault and a user, and none replaces another:

- **proof**: the plan's theorem, for all sizes.  A fault in a plan changes the stages, and text that computes wrong
  stages faithfully passes every execution; but the stages no longer unfold to the layer.
- **rules**: the rules of layout (``Plan.check``) and the templates, which refuse to print what would read outside the
  stored cells or after a buffer was taken over.
- **execution**: the printed text, run exactly against its own stages.  A fault in a template changes the text and
  leaves the stages and their theorem as they were.

Every fault is planted by patching a function of this package.  The last tests show that some faults cannot be seen by
testing at small shapes, however many: what a test compares there is equal.
"""

import importlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt
import pytest

from codegen import module
from codegen.architecture import forget
from codegen.check import check
from codegen.emit import EmitError, emit
from codegen.execution import Refuted
from codegen.layer_module import layer_source
from codegen.loading import load
from codegen.network_proof import NetworkProof
from codegen.plan import BATCH, PlanError, Stage
from codegen.plans import convolution as conv
from codegen.plans import elementwise as ew
from codegen.plans import innermost as inner
from codegen.plans import network
from codegen.plans.claims import Kind, claims
from codegen.plans.gemm import gemm
from codegen.templates import numpy as templates
from derive.indices import Index, index, variables
from derive.kernel import Refused
from derive.layers import AvgPool1d, Conv1d, Flatten, Linear, Sequential, Sigmoid
from derive.terms import constant, define, tensor, term
from tests.codegen.small import emit_small

Patch = pytest.MonkeyPatch
FUSED = Sequential(Conv1d(1, 2, 3, stride=2, padding=1), Sigmoid(), AvgPool1d(2), Flatten(), Linear(6, 3))


# --- the checks ---------------------------------------------------------------------------------------------------


def prove_network() -> None:
    """Convolution, sigmoid and pooling fused, a dense layer, the loss: every theorem, every size a symbol."""
    for _ in NetworkProof.of(forget(FUSED, (BATCH, index(1), index(13)))).prove():
        pass


def prove_convolution() -> None:
    """The four theorems of a convolution over two axes, every size a symbol."""
    for claim in claims(Kind("gemm", 2)).values():
        claim.prove()


def execute_network() -> None:
    """Exact execution of a small network's text."""
    check(emit_small())


def execute_convolution() -> None:
    """Exact execution of a convolution's text, by both algorithms."""
    for algorithm in ("gemm", "direct"):
        check(emit(Conv1d(2, 3, 3, stride=2, padding=1), input_shape=(3, 2, 8), algorithm=algorithm))


def emit_padded() -> None:
    """A plan that shifts an image and multiplies it by a number: built and printed, and not run."""
    emit(Conv1d(1, 1, 3, padding=1), input_shape=(1, 1, 5), algorithm="direct")


# --- the faults: in plans -----------------------------------------------------------------------------------------


def wrong_tile_origin(patch: Patch) -> None:
    """Output r of a tile starts r cells into the window instead of r strides: the same at stride 1."""

    def place(self: conv.Windows, axis: int, r: Index, a: Index) -> Index:
        return a if self.tile == 1 else a * self.windows[axis].dilation + r

    patch.setattr(conv.Windows, "place", place)


def swapped_stride_and_dilation(patch: Patch) -> None:
    """Windows move by the dilation and their cells lie a stride apart: the same where the two are equal."""

    def read(self: conv.Windows, axis: int, j: Index, e: Index) -> Index:
        w = self.windows[axis]
        if self.tile > 1:
            return original(self, axis, j, e)
        return j * w.dilation + e * w.stride - w.before

    original = conv.Windows.read
    patch.setattr(conv.Windows, "read", read)


def dropped_bias(patch: Patch) -> None:
    """The product leaves out the row of ones."""
    original = inner.product
    patch.setattr(inner, "product", lambda t, u, *rest: original(t, None, *rest))


def wrong_pool_divisor(patch: Patch) -> None:
    """The mean over a tile of two cells divides by four."""
    original = ew.pooled

    def pooled(s: Stage, suffix: str, tile: int, axes: int, margin: Any) -> tuple[Stage, Stage]:
        slabs, mean = original(s, suffix, tile, axes, margin)
        at = variables(0, slabs.tensor.rank)
        body = constant(len(at), ew.HALF) + term(
            len(at), slabs.tensor[at], coefficient=2 * ew.HALF / tile ** (axes + 1)
        )
        return slabs, replace(mean, tensor=define(mean.name, list(mean.tensor.box), body))

    patch.setattr(ew, "pooled", pooled)


def transposed_kernel(patch: Patch) -> None:
    """Rows and columns of the kernel are exchanged: the same for a kernel that is symmetric."""
    original = inner.kernel

    def kernel(*arguments: Any) -> tuple[Stage, ...]:
        t, *rest = original(*arguments)
        (m,) = t.body.monomials
        (read,) = m.factors
        turned = replace(read, at=(*read.at[:2], *reversed(read.at[2:])))
        body = term(t.tensor.rank, turned, over=m.binders, guards=m.guards, coefficient=m.coefficient)
        return (replace(t, tensor=define(t.name, list(t.tensor.box), body)), *rest)

    patch.setattr(inner, "kernel", kernel)


def backward_with_the_wrong_sign(patch: Patch) -> None:
    """The slope of a sigmoid that is 1/2 + s as 1/4 + s^2."""
    original = ew.sigmoid_backward

    def sigmoid_backward(t: Stage, *rest: Any) -> tuple[Stage, ...]:
        small, slope, dz = original(t, *rest)
        at = variables(0, t.tensor.rank)
        body = constant(len(at), ew.QUARTER) + term(len(at), t.tensor[at], t.tensor[at])
        slope = replace(slope, tensor=define(slope.name, list(slope.tensor.box), body))
        both = term(len(at), slope.tensor[at], small.tensor[at[t.tensor.rank - small.tensor.rank :]])
        return small, slope, replace(dz, tensor=define(dz.name, list(dz.tensor.box), both))

    patch.setattr(ew, "sigmoid_backward", sigmoid_backward)


def margin_on_one_side(patch: Patch) -> None:
    """Zeros are stored before the image and not after it."""
    original = conv.Windows.margin
    patch.setattr(conv.Windows, "margin", lambda self: tuple((before, index(0)) for before, _ in original(self)))


def windows_taken_over_too_early(patch: Patch) -> None:
    """The cotangents of windows are put where these lie, which the gradient of the kernel still has to read."""
    original = network.ConvolutionGroup.gradients

    def gradients(self: network.ConvolutionGroup, down: ew.Cotangent, *, first: bool) -> Any:
        stages, up = original(self, down, first=first)
        return sorted(stages, key=lambda s: s.name.startswith(("dT", "dut", "dW", "du"))), up

    patch.setattr(network.ConvolutionGroup, "gradients", gradients)


def windows_too_close(patch: Patch) -> None:
    """The windows of neighbouring tiles begin one cell apart, whatever the stride and the tile."""
    windows = importlib.import_module("codegen.templates.numpy.windows")
    original = windows.slopes
    patch.setattr(windows, "slopes", lambda *arguments: [min(slope, 1) for slope in original(*arguments)])


def buffer_taken_over_too_early(patch: Patch) -> None:
    """The logits relative to their maximum are put where the logits lie, which the loss still has to read."""
    original = ew.cross_entropy

    def cross_entropy(z: Stage, target: Any) -> tuple[Stage, ...]:
        return tuple(replace(s, into=z.name) if s.name == "R" else s for s in original(z, target))

    patch.setattr(ew, "cross_entropy", cross_entropy)


# --- the faults: in templates -------------------------------------------------------------------------------------


def without(patch: Patch, name: str, end: str) -> None:
    """The statements of a template that end so are left out."""
    original = getattr(templates, name)
    patch.setattr(templates, name, lambda *a, **k: [line for line in original(*a, **k) if not line.endswith(end)])


def stale_scatter(patch: Patch) -> None:
    """What overlaps are added to is not zeroed before: it holds what the buffer held before it was taken over."""
    without(patch, "overlaps", ".fill(0)")


def stale_sums(patch: Patch) -> None:
    """What is summed over blocks is not zeroed between calls: right on the first use of a workspace."""
    patch.setattr(module, "sums", lambda plan: [])


def last_block_only(patch: Patch) -> None:
    """A sum over the batch keeps the last block: right for every batch that fits into one."""
    original = templates.matmul
    patch.setattr(templates, "matmul", lambda ctx, stage, **_: original(ctx, stage, accumulate=False))


def missing_last_iteration(patch: Patch) -> None:
    """Loops end one too early, so the last row and column of a window stay out."""
    windows = importlib.import_module("codegen.templates.numpy.windows")
    original = windows.looped

    def looped(*arguments: Any) -> list[str]:
        lines = original(*arguments)
        return [_one_less(line) if line.lstrip().startswith("for e") else line for line in lines]

    patch.setattr(windows, "looped", looped)


def _one_less(line: str) -> str:
    head, end = line.removesuffix("):").split("range(")
    return f"{head}range({int(end) - 1}):"


def shifted_slices(patch: Patch) -> None:
    """Every slice with a step begins and ends one cell too late."""
    views = importlib.import_module("codegen.templates.numpy.views")
    original = views._token

    def token(*arguments: Any) -> tuple[str, int | None]:
        text, level = original(*arguments)
        parts = text.split(":")
        return (f"{parts[0]} + 1:{parts[1]} + 1:{parts[2]}" if len(parts) == 3 else text), level

    patch.setattr(views, "_token", token)


def no_row_of_ones(patch: Patch) -> None:
    """The constant that takes the bias along is never filled in: the bias is dropped in the text."""
    original = templates._filled
    patch.setattr(templates, "_filled", lambda stage: [] if stage.template == "constant" else original(stage))


def margin_never_zeroed(patch: Patch) -> None:
    """A buffer with a margin is made without zeros: right wherever fresh memory happens to be zero."""
    original = templates._own_buffer
    patch.setattr(templates, "_own_buffer", lambda *a, **k: original(*a, **k).replace("np.zeros(", "np.empty("))


def maximum_without_the_last_class(patch: Patch) -> None:
    """The maximum of the logits leaves out the last class: wrong only where that class is the largest."""
    original = templates.reduce
    patch.setattr(
        templates,
        "reduce",
        lambda *a, **k: [line.replace("np.max(v.Z9,", "np.max(v.Z9[:-1],") for line in original(*a, **k)],
    )


def skeleton(patch: Patch, old: str, new: str) -> None:
    """The templates of whole modules, with one piece replaced where they have it."""
    original = jinja2.PackageLoader.get_source

    def get_source(self: jinja2.PackageLoader, environment: jinja2.Environment, name: str) -> Any:
        source, *rest = original(self, environment, name)
        return (source.replace(old, new), *rest)

    patch.setattr(jinja2.PackageLoader, "get_source", get_source)


def learning_rate_twice(patch: Patch) -> None:
    """A step of SGD multiplies by the learning rate twice: right for a rate of one."""
    line = "np.multiply(gradient, lr, out=gradient)"
    skeleton(patch, line, f"{line}; {line}")


def missing_remainder(patch: Patch) -> None:
    """Blocks are all of one size, so what is left of the batch is not computed: right where nothing is left."""
    skeleton(patch, "units = -(-batch // unit)", "units = batch // unit")


def result_in_the_workspace(patch: Patch) -> None:
    """Gradients are given as they lie in the workspace, where the next call overwrites them."""
    skeleton(patch, ".copy()", "")


# --- the table ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """How a fault is planted, the check that kills it, and what that check says."""

    plant: Callable[[Patch], None]
    killed_by: str
    check: Callable[[], object]
    says: str | None = None


FAULTS = (
    Fault(wrong_tile_origin, "proof", prove_network),
    Fault(swapped_stride_and_dilation, "proof", prove_convolution),
    Fault(dropped_bias, "proof", prove_convolution),
    Fault(wrong_pool_divisor, "proof", prove_network),
    Fault(transposed_kernel, "proof", prove_convolution),
    Fault(backward_with_the_wrong_sign, "proof", prove_network),
    Fault(margin_on_one_side, "rules", emit_padded, "leaves its box and needs a margin"),
    Fault(buffer_taken_over_too_early, "rules", emit_small, "Tz reads Z9 after R took its buffer over"),
    Fault(windows_taken_over_too_early, "rules", emit_small, "dT3 reads Col3 after dCol3 took its buffer over"),
    Fault(windows_too_close, "execution", execute_network, "the first stage that is wrong is stage Col0 "),
    Fault(stale_scatter, "execution", execute_network, "the first stage that is wrong is stage dIn3 "),
    Fault(stale_sums, "execution", execute_network, "call 2 .* the first stage that is wrong is stage "),
    Fault(last_block_only, "execution", execute_network, "the first stage that is wrong is stage dW9 "),
    Fault(last_block_only, "execution", execute_convolution, "weight_gradient, .* wrong is stage dW "),
    Fault(missing_last_iteration, "execution", execute_network, "the first stage that is wrong is stage dIn3 "),
    Fault(shifted_slices, "execution", execute_network, "broadcast|wrong is stage Col0 "),
    Fault(no_row_of_ones, "execution", execute_network, "wrong is stage One0 "),
    Fault(margin_never_zeroed, "execution", execute_network, "NoneType"),
    Fault(
        maximum_without_the_last_class, "execution", execute_network, "wrong is stage M |largest logit is .* class 3"
    ),
    Fault(learning_rate_twice, "execution", execute_network, "after the step.*what is around the stages is wrong"),
    Fault(missing_remainder, "execution", execute_network),
    Fault(result_in_the_workspace, "execution", execute_network, "lies in work"),
)
RAISED = {"proof": Refused, "rules": (PlanError, EmitError), "execution": Refuted}
IDS = [f"{fault.plant.__name__}-{fault.check.__name__}" for fault in FAULTS]


@pytest.fixture(autouse=True)
def fresh_templates() -> Iterator[None]:
    """Templates are compiled once; a patched one must not stay."""
    module.template.cache_clear()
    yield
    module.template.cache_clear()


@pytest.mark.parametrize("fault", FAULTS, ids=IDS)
def test_a_fault_is_killed(fault: Fault, monkeypatch: Patch) -> None:
    fault.plant(monkeypatch)
    with pytest.raises(RAISED[fault.killed_by], match=fault.says):
        fault.check()


@pytest.mark.parametrize("check", dict.fromkeys(fault.check for fault in FAULTS), ids=lambda check: check.__name__)
def test_without_a_fault_the_same_checks_pass(check: Callable[[], object]) -> None:
    check()


@pytest.mark.parametrize("plant", [wrong_tile_origin, wrong_pool_divisor, backward_with_the_wrong_sign])
def test_execution_does_not_replace_the_proof(plant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    """A text that computes wrong stages faithfully is what its plan says."""
    plant(monkeypatch)
    execute_network()


@pytest.mark.parametrize("plant", [stale_scatter, last_block_only, no_row_of_ones, missing_remainder])
def test_the_proof_does_not_replace_execution(plant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    """A theorem speaks of stages and knows nothing of a text."""
    plant(monkeypatch)
    prove_network()
    prove_convolution()


def test_there_are_ten_faults_and_more() -> None:
    assert len({fault.plant for fault in FAULTS}) >= 10
    assert {fault.killed_by for fault in FAULTS} == set(RAISED)


# --- what testing at small shapes cannot see ----------------------------------------------------------------------


def weight_gradients(layer: Conv1d, size: int, batches: Iterable[int]) -> list[npt.NDArray[np.float64]]:
    """The gradient of the weight for batches of small integers, exact in float64: default blocks, no workspace."""
    applied = layer.on(tensor("X", BATCH, 1, size), "Y")
    plans = {"weight_gradient": gemm(applied)["weight_gradient"]}
    text = load(layer_source(applied, plans, "A gradient", "For a test.", dtype="float64"))
    rng = np.random.default_rng(size)
    found = []
    for batch in batches:
        x = rng.integers(-9, 10, (batch, *text.SHAPES["input"])).astype(np.float64)
        g = rng.integers(-9, 10, (batch, *text.SHAPES["grad_output"])).astype(np.float64)
        found.append(text.weight_gradient(g, x))
    return found


def small_convolutions() -> Iterator[tuple[Conv1d, int]]:
    """Every legal convolution over one axis whose sizes, stride, dilation and padding are at most 6, 3, 2 and 1."""
    for size, kernel, stride, dilation, padding in product(range(1, 7), range(1, 7), (1, 2, 3), (1, 2), (0, 1)):
        if dilation * (kernel - 1) + 1 <= size + 2 * padding:
            yield Conv1d(1, 2, kernel, stride=stride, dilation=dilation, padding=padding), size


def test_a_fault_that_no_shape_up_to_six_shows(monkeypatch: Patch) -> None:
    """``last_block_only`` survives every batch, image and kernel up to 6 and falls where the batch exceeds a block.

    Exact execution kills it at these very shapes, because there the size of a block is a parameter like any other.
    """
    shapes = list(small_convolutions())
    right = [weight_gradients(layer, size, range(1, 7)) for layer, size in shapes]
    block = emit(Conv1d(1, 2, 2), input_shape=(1, 1, 6), algorithm="gemm").plans["weight_gradient"].block
    at_the_edge = weight_gradients(Conv1d(1, 2, 2), 6, (block, block + 1))
    last_block_only(monkeypatch)
    wrong = [weight_gradients(layer, size, range(1, 7)) for layer, size in shapes]
    assert len(shapes) > 200
    assert all(np.array_equal(a, b) for r, w in zip(right, wrong, strict=True) for a, b in zip(r, w, strict=True))
    inside, beyond = weight_gradients(Conv1d(1, 2, 2), 6, (block, block + 1))
    assert np.array_equal(inside, at_the_edge[0])
    assert not np.array_equal(beyond, at_the_edge[1])
    with pytest.raises(Refuted, match="wrong is stage dW "):
        check(emit(Conv1d(1, 2, 2), input_shape=(1, 1, 6), algorithm="gemm"))


@pytest.mark.parametrize("both", [1, 2, 3])
def test_stride_and_dilation_swapped_where_they_are_equal(monkeypatch: Patch, both: int) -> None:
    """Not one byte of the text differs, so only the theorem, or other numbers, can tell."""
    layer = Conv1d(1, 2, 3, stride=both, dilation=both)
    right = emit(layer, input_shape=(1, 1, 12), algorithm="gemm").source
    swapped_stride_and_dilation(monkeypatch)
    wrong = emit(layer, input_shape=(1, 1, 12), algorithm="gemm").source
    assert _stages(right) == _stages(wrong)


def _stages(source: str) -> list[str]:
    """The text without its provenance, which quotes no theorem for a plan that is no instance of one."""
    return source.split("import numpy", 1)[1].splitlines()
