"""Deliberate faults, each planted in a template or a plan, and the check that kills it.

Three checks stand between a fault and a user, and none replaces another:

- **proof**: the plan's theorem, for all sizes.  A fault in a plan changes the stages, and text that computes wrong stages
  faithfully passes every execution; but the stages no longer unfold to the layer.
- **rules**: the rules of layout (``Plan.check``) and the templates, which refuse to print what would read outside the
  stored cells or after a buffer was taken over.
- **execution**: the printed text, run exactly against its own stages.  A fault in a template changes the text and
  leaves the stages and their theorem as they were.

Every fault is planted by patching a function of this package.  The last tests show that some faults cannot be seen by
testing at small shapes, however many: what a test compares there is equal.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import product
from typing import Any

import jinja2
import numpy as np
import pytest

from codegen import module
from codegen.architecture import forget
from codegen.check import check
from codegen.emit import Emitted, emit
from codegen.execution import Refuted
from codegen.network_proof import NetworkProof
from codegen.plan import BATCH, PlanError, Stage
from codegen.plans import convolution as conv
from codegen.plans import elementwise as ew
from codegen.plans.claims import Kind, claims
from codegen.templates import numpy as templates
from codegen.templates.numpy import matmul as matmul_template
from codegen.templates.numpy import strided as strided_template
from codegen.templates.numpy import text as text_template
from codegen.templates.numpy import views as views_template
from derive.indices import Index, index, variables
from derive.kernel import Refused
from derive.layers import AvgPool1d, Conv1d, Flatten, Linear, Sequential, Sigmoid
from derive.terms import constant, define, term
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


CHECKS: dict[str, tuple[Callable[[], None], ...]] = {
    "proof": (prove_network, prove_convolution),
    "rules": (emit_small,),
    "execution": (execute_network, execute_convolution),
}  # fmt: skip


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
    original = conv.product
    patch.setattr(conv, "product", lambda t, u, *rest: original(t, None, *rest))


def wrong_pool_divisor(patch: Patch) -> None:
    """The mean over a tile of two cells divides by four."""
    original = ew.pooled

    def pooled(t: Stage, suffix: str, tile: int, axes: int, margin: Any) -> tuple[Stage, Stage]:
        slabs, mean = original(t, suffix, tile, axes, margin)
        at = variables(0, slabs.tensor.rank)
        body = constant(len(at), ew.HALF) + term(len(at), slabs.tensor[at], coefficient=ew.HALF / tile ** (axes + 1))
        return slabs, replace(mean, tensor=define(mean.name, list(mean.tensor.box), body))

    patch.setattr(ew, "pooled", pooled)


def transposed_kernel(patch: Patch) -> None:
    """Rows and columns of the kernel are exchanged: the same for a kernel that is symmetric."""
    original = conv.kernel

    def kernel(weight: Any, bias: Any, w: conv.Windows, scale: Fraction) -> tuple[Stage, ...]:
        t, *rest = original(weight, bias, w, scale)
        at = variables(0, t.tensor.rank)
        (m,) = t.body.monomials
        n, c, *a = variables(t.tensor.rank - 2 - w.axes, 0) or (None, None)
        a = list(variables(t.tensor.rank, w.axes))
        read = weight[(at[w.axes], at[w.axes + 1], *reversed(a))]
        body = term(len(at), read, over=m.binders, guards=m.guards, coefficient=scale)
        return (replace(t, tensor=define(t.name, list(t.tensor.box), body)), *rest)

    patch.setattr(conv, "kernel", kernel)


def backward_with_the_wrong_sign(patch: Patch) -> None:
    """The slope of tanh as 1 + tanh^2."""
    original = ew.sigmoid_backward

    def sigmoid_backward(t: Stage, *rest: Any) -> tuple[Stage, ...]:
        small, slope, dz = original(t, *rest)
        at = variables(0, t.tensor.rank)
        body = constant(len(at), 1) + term(len(at), t.tensor[at], t.tensor[at])
        slope = replace(slope, tensor=define(slope.name, list(slope.tensor.box), body))
        both = term(len(at), slope.tensor[at], small.tensor[at[t.tensor.rank - small.tensor.rank :]])
        return small, slope, replace(dz, tensor=define(dz.name, list(dz.tensor.box), both))

    patch.setattr(ew, "sigmoid_backward", sigmoid_backward)


def margin_on_one_side(patch: Patch) -> None:
    """Zeros are stored before the image and not after it."""
    original = conv.Windows.margin
    patch.setattr(conv.Windows, "margin", lambda self: tuple((before, index(0)) for before, _ in original(self)))


def buffer_taken_over_too_early(patch: Patch) -> None:
    """The slope of a dense sigmoid is put where its output lies, which the gradient of the weights reads later."""
    original = ew.dense_sigmoid_backward

    def dense_sigmoid_backward(a: Stage, *rest: Any) -> tuple[Stage, Stage]:
        slope, dz = original(a, *rest)
        return replace(slope, into=a.name), dz

    patch.setattr(ew, "dense_sigmoid_backward", dense_sigmoid_backward)


# --- the faults: in templates -------------------------------------------------------------------------------------


def without(patch: Patch, name: str, end: str) -> None:
    """The statements of a template that end so are left out."""
    original = getattr(templates, name)
    patch.setattr(templates, name, lambda *a, **k: [line for line in original(*a, **k) if not line.endswith(end)])


def stale_scatter(patch: Patch) -> None:
    """What is scattered into is not zeroed before: right on the first use of a workspace."""
    without(patch, "scatter", ".fill(0)")


def stale_sums(patch: Patch) -> None:
    """What is summed over blocks is not zeroed between calls: right on the first use of a workspace."""
    patch.setattr(module, "sums", lambda plan: [])


def last_block_only(patch: Patch) -> None:
    """A sum over the batch keeps the last block: right for every batch that fits into one."""
    patch.setattr(templates, "matmul", lambda ctx, stage, **_: matmul_template.matmul(ctx, stage, accumulate=False))


def missing_last_iteration(patch: Patch) -> None:
    """Loops end one too early, so the last row and column of a kernel stay out."""
    original = text_template.looped

    def looped(*arguments: Any) -> list[str]:
        lines = original(*arguments)
        return [_one_less(line) if line.lstrip().startswith("for e") else line for line in lines]

    patch.setattr(strided_template, "looped", looped)


def _one_less(line: str) -> str:
    head, end = line.removesuffix("):").split("range(")
    return f"{head}range({int(end) - 1}):"


def shifted_slices(patch: Patch) -> None:
    """Every slice with a step begins and ends one cell too late."""
    original = views_template._token

    def token(*arguments: Any) -> tuple[str, int | None]:
        text, level = original(*arguments)
        parts = text.split(":")
        return (f"{parts[0]} + 1:{parts[1]} + 1:{parts[2]}" if len(parts) == 3 else text), level

    patch.setattr(views_template, "_token", token)


def no_row_of_ones(patch: Patch) -> None:
    """The constant that takes the bias along is never filled in: the bias is dropped in the text."""
    original = templates._filled
    patch.setattr(templates, "_filled", lambda stage: [] if stage.template == "constant" else original(stage))


def margin_never_zeroed(patch: Patch) -> None:
    """A buffer with a margin is made without zeros: right wherever fresh memory happens to be zero."""
    original = templates._own_buffer
    patch.setattr(templates, "_own_buffer", lambda *a: original(*a).replace("np.zeros(", "np.empty("))


def maximum_without_the_last_class(patch: Patch) -> None:
    """The maximum of the logits leaves out the last class: wrong only where that class is the largest."""
    original = templates.reduce
    patch.setattr(
        templates,
        "reduce",
        lambda *a, **k: [line.replace("np.max(v.Z9,", "np.max(v.Z9[:-1],") for line in original(*a, **k)],
    )


def skeleton(patch: Patch, old: str, new: str) -> None:
    """The template of a whole module, with one piece replaced."""
    original = jinja2.Environment.from_string

    def from_string(self: jinja2.Environment, source: str) -> jinja2.Template:
        return original(self, source.replace(old, new))

    patch.setattr(jinja2.Environment, "from_string", from_string)


def learning_rate_twice(patch: Patch) -> None:
    """A step of SGD multiplies by the learning rate twice: right for a rate of one."""
    line = "np.multiply(gradient, lr, out=gradient)"
    skeleton(patch, line, f"{line}; {line}")


def missing_remainder(patch: Patch) -> None:
    """Blocks are all of one size, so what is left of the batch is not computed: right where nothing is left."""
    skeleton(patch, "batch // count + (k < batch % count)", "batch // count")


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
    says: str


FAULTS = (
    Fault(wrong_tile_origin, "proof", prove_network, ""),
    Fault(swapped_stride_and_dilation, "proof", prove_convolution, ""),
    Fault(dropped_bias, "proof", prove_convolution, ""),
    Fault(wrong_pool_divisor, "proof", prove_network, ""),
    Fault(transposed_kernel, "proof", prove_convolution, ""),
    Fault(backward_with_the_wrong_sign, "proof", prove_network, ""),
    Fault(margin_on_one_side, "rules", emit_small, "it needs a margin"),
    Fault(buffer_taken_over_too_early, "rules", emit_small, "reads A7 after Q7 took its buffer over"),
    Fault(stale_scatter, "execution", execute_network, "the first stage that is wrong is stage dIn3 "),
    Fault(stale_sums, "execution", execute_network, "call 2 .* the first stage that is wrong is stage "),
    Fault(last_block_only, "execution", execute_network, "the first stage that is wrong is stage dW9 "),
    Fault(last_block_only, "execution", execute_convolution, "weight_gradient, .* wrong is stage dW "),
    Fault(missing_last_iteration, "execution", execute_network, "in stage Zh0|wrong is stage Col0 "),
    Fault(shifted_slices, "execution", execute_network, "broadcast|wrong is stage Col0 "),
    Fault(no_row_of_ones, "execution", execute_network, "wrong is stage One0 "),
    Fault(margin_never_zeroed, "execution", execute_network, "NoneType"),
    Fault(maximum_without_the_last_class, "execution", execute_network, "wrong is stage M |largest logit is .* class 3"),
    Fault(learning_rate_twice, "execution", execute_network, "after the step.*what is around the stages is wrong"),
    Fault(missing_remainder, "execution", execute_network, ""),
    Fault(result_in_the_workspace, "execution", execute_network, "lies in work"),
)
RAISED = {"proof": Refused, "rules": PlanError, "execution": Refuted}
IDS = [f"{fault.plant.__name__}-{fault.check.__name__}" for fault in FAULTS]


@pytest.fixture(autouse=True)
def fresh_templates() -> Iterator[None]:
    """Templates are compiled once; a patched one must not stay."""
    module._template.cache_clear()
    yield
    module._template.cache_clear()


@pytest.mark.parametrize("fault", FAULTS, ids=IDS)
def test_a_fault_is_killed(fault: Fault, monkeypatch: Patch) -> None:
    fault.plant(monkeypatch)
    with pytest.raises(RAISED[fault.killed_by], match=fault.says):
        fault.check()


@pytest.mark.parametrize("check", dict.fromkeys(fault.check for fault in FAULTS), ids=lambda check: check.__name__)
def test_without_a_fault_the_same_checks_pass(check: Callable[[], object]) -> None:
    check()
