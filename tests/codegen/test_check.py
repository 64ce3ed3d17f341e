"""Exact execution: what is right passes, what is wrong is refuted with its place, and the certificate says no more."""

import json
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings

from codegen.certificate import Certificate, Row
from codegen.check import check, check_network, survival
from codegen.emit import Emitted, emit
from codegen.execution import Refuted, Trial
from codegen.loading import load
from codegen.trace import traced
from derive.layers import Conv1d, Conv2d, Conv3d, Layer, lenet
from tests.codegen.small import emitted_small
from tests.codegen.specs import SPECS, Spec

CONVOLUTIONS: list[tuple[Layer, tuple[int, ...], str]] = [
    (Conv1d(2, 3, 3, stride=2), (4, 2, 10), "gemm"),
    (Conv1d(1, 2, 2, dilation=3, padding=2, bias=False), (1, 1, 7), "direct"),
    (Conv2d(2, 3, (3, 2), stride=(2, 1), padding=1, dilation=(1, 2)), (2, 2, 6, 7), "gemm"),
    (Conv2d(2, 2, (2, 3), stride=(1, 3), padding=(1, 0)), (2, 2, 5, 8), "direct"),
    (Conv2d(3, 2, 1), (2, 3, 4, 3), "gemm"),
    (Conv3d(1, 2, (2, 1, 2), stride=(1, 2, 1)), (1, 1, 3, 3, 4), "gemm"),
]


@pytest.mark.parametrize(("layer", "shape", "algorithm"), CONVOLUTIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_emitted_convolution_passes(layer: Layer, shape: tuple[int, ...], algorithm: str, dtype: str) -> None:
    certificate = check(emit(layer, input_shape=shape, algorithm=algorithm, dtype=dtype))
    assert all(row.error_probability is None or row.error_probability <= 1e-6 for row in certificate.rows)
    assert any(dtype in row.statement for row in certificate.rows)


def test_an_emitted_network_passes() -> None:
    certificate = check(emitted_small())
    assert certificate.sha256 == emitted_small().digest
    assert certificate == check(emitted_small())


@settings(max_examples=15)
@given(SPECS)
def test_networks_of_drawn_sizes_pass(spec: Spec) -> None:
    net, shape = spec.network()
    check(emit(net, input_shape=shape))


def test_the_text_of_lenet_computes_its_stages() -> None:
    emitted = emit(lenet(), input_shape=(32, 1, 28, 28))
    certificate = check(emitted)
    proved = [row for row in certificate.rows if row.scope == "all sizes"]
    assert len(proved) == len(emitted.theorems)
    assert {row.scope for row in certificate.rows} <= {"all sizes", "5 cases", "10 of 10 cases", "not proved"}


def changed(emitted: Emitted, old: str, new: str) -> Emitted:
    assert old in emitted.source
    return replace(emitted, source=emitted.source.replace(old, new))


REFUTED = {
    "the first wrong stage is named, not the output": ("v.dIn3.fill(0)", "pass", "dIn3"),
    "a buffer that was never written": ("self.In0 = np.zeros(", "self.In0 = np.empty(", "Zm0"),
    "images of a block mixed up": ("np.copyto(v.Tn, T.transpose(1, 0))", "np.copyto(v.Tn, T[::-1].T)", "Tn"),
    "a floating-point constant": ("np.exp(v.Zm3, out=v.Sh3)", "np.exp(v.Zm3 * 1.0, out=v.Sh3)", "Sh3"),
    "a stage that another one overwrites": ("np.multiply(v.Sh0, v.Sh0, out=v.Q0)", "np.copyto(v.Q0, v.Sh0)", "Q0"),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "stage"), REFUTED.values(), ids=list(REFUTED))
def test_a_wrong_text_is_refuted_and_its_stage_named(old: str, new: str, stage: str) -> None:
    with pytest.raises(Refuted) as caught:
        check(changed(emitted_small(), old, new))
    assert caught.value.finding.stage == stage
    assert stage in str(caught.value)


AROUND = {
    "a result that lies in the workspace": ("w.dW3.copy()", "w.dW3", "lies in work.dW3"),
    "an argument that is written": ("np.copyto(v.Tn,", "params['3.bias'][0] = 0; np.copyto(v.Tn,", "3.bias"),
    "a step taken backwards": ("np.subtract(parameter, gradient", "np.add(parameter, gradient", "after the step"),
    "a function that is not there": ("def sgd_step(", "def sgd(", "no attribute 'sgd_step'"),
    "a text that does not compile": ("return result", "return result)", "SyntaxError"),
    "a result of another shape": ("v.Z9.T", "v.Z9.T[:, :1]", "forward"),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "said"), AROUND.values(), ids=list(AROUND))
def test_what_is_around_the_stages_is_checked_too(old: str, new: str, said: str) -> None:
    with pytest.raises(Refuted) as caught:
        check(changed(emitted_small(), old, new))
    assert said in str(caught.value)


def test_a_finding_gives_output_and_index() -> None:
    with pytest.raises(Refuted) as caught:
        check(changed(emitted_small(), "w.du9.copy()", "np.concatenate([w.du9[:3], w.du9[:1]])"))
    finding = caught.value.finding
    assert (finding.function, finding.output, finding.index) == ("loss_and_gradients", "9.bias", (3,))
    assert finding.stage is None
    assert "what is around the stages is wrong" in finding.text


@pytest.mark.parametrize("name", ["forward", "input_gradient", "weight_gradient", "bias_gradient"])
def test_every_function_of_a_convolution_is_executed(name: str) -> None:
    emitted = emit(Conv1d(2, 3, 2), input_shape=(2, 2, 5), algorithm="gemm")
    head, tail = emitted.source.split(f"def {name}(", 1)
    tail = re.sub(r"    return (.*)", r"    return 2 * \1", tail, count=1)
    wrong = replace(emitted, source=f"{head}def {name}({tail}")
    with pytest.raises(Refuted, match=f"^{name}"):
        check(wrong)


OUT = {
    "the array that was given is not used": ("= _result(out, ", "= _result(None, "),
    "a copy comes back instead of it": ("return result", "return result.copy()"),
    "only one image is put in it": ("return result", "if out is not None:\n        out[1:] = 0\n    return result"),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new"), OUT.values(), ids=list(OUT))
def test_the_array_for_a_result_is_checked(old: str, new: str) -> None:
    emitted = emit(Conv1d(2, 3, 2), input_shape=(2, 2, 5), algorithm="gemm")
    with pytest.raises(Refuted, match=r"^forward into out, call 2 "):
        check(changed(emitted, old, new))


def test_the_loss_beside_the_gradients_is_checked() -> None:
    wrong = changed(emitted_small(), "return w.L[()], {", "return 2 * w.L[()], {")
    with pytest.raises(Refuted, match=r"^loss_and_gradients, .*: loss "):
        check(wrong)


def test_floating_point_faults_need_the_real_dtype() -> None:
    """A text that treats float32 otherwise than elements of a field passes there and fails on small integers."""
    emitted = emit(Conv1d(2, 3, 2), input_shape=(2, 2, 5), algorithm="gemm", dtype="float32")
    old = "result = _result("
    wrong = changed(emitted, old, 'w.T += 1 if w.dtype == "float32" else 0\n    result = _result(')
    with pytest.raises(Refuted, match=r"forward.*float32|forward, call 1"):
        check(wrong)


def test_a_traced_text_is_the_text_with_one_line_a_stage() -> None:
    emitted = emitted_small()
    lines = traced(emitted.source, emitted.plan.arrays).splitlines()
    hooks = [line for line in lines if line.strip().startswith("_seen(")]
    assert [line for line in lines if line not in hooks] == emitted.source.splitlines()
    names = [line.split("'")[1] for line in hooks]
    assert sorted(names) == sorted(emitted.plan.by_name)


def test_the_executor_can_be_replaced() -> None:
    ran = []

    def run(source: str, **options: object) -> object:
        ran.append(source)
        return load(source, **options)

    trials = [Trial(1, 1, ("loss",))]
    check_network(emitted_small().source, emitted_small().plan, run=run, trials=trials)
    assert set(ran) == {emitted_small().source}


def test_a_certificate_for_a_reader_and_for_a_program() -> None:
    certificate = Certificate(
        "a layer",
        "00",
        (Row("It is so.", "3 cases", "Tried.", 0.25, ("A", "B")), Row("Also.", "all sizes", "M", 0.0, ("B",))),
    )
    assert certificate.trusted == ("A", "B")
    assert json.loads(certificate.to_json())["rows"][0]["error_probability"] == 0.25
    text = certificate.to_text()
    assert "a fault passes with probability <= 2.5e-01" in text
    assert "nothing is left to chance" in text
    assert max(map(len, check(emitted_small()).to_text().splitlines())) <= 116


def test_nothing_is_called_replayed_or_independent() -> None:
    for certificate in (check(emitted_small()), check(emit(Conv1d(1, 1, 2), input_shape=(1, 1, 4)))):
        assert not any(word in certificate.to_text().lower() for word in ("replay", "independent"))


def test_more_functions_leave_more_to_chance() -> None:
    assert survival(10) < survival(1000) < 1e-6
