"""The GPU benchmark without a GPU: every part runs once, says that nothing was measured, and finds what is wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from runtime.gpu_timing import Clock, Samples
from tests.benchmarks.gpu import __main__ as benchmark
from tests.benchmarks.gpu import contestants, machine, passes, steps, truth
from tests.benchmarks.gpu.cases import FULL, PARTS, SMALLEST, Case, cases
from tests.benchmarks.gpu.contestants import Arguments
from tests.benchmarks.gpu.report import Row
from tests.codegen.cupy_on_cpu import needs_compiler

SMALL = "3x3-tiny-s2"


def tiny(part: str, numbers: str = "float32") -> Case:
    return next(cases(SMALLEST, f"{SMALL}-{part}-{numbers}"))


@needs_compiler
@pytest.mark.parametrize("prefix", [SMALL + "-", "avgpool", "sigmoid-input", "lenet"])
def test_the_script_runs_and_says_that_nothing_was_measured(
    prefix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark.main(["--simt", "--no-torch", "--case", prefix, "--out", str(tmp_path)])
    table = capsys.readouterr().out
    assert "**Not a measurement.**" in table
    assert "TB/s" not in table
    assert " ms " not in table
    assert "| certiconv launches + 1 |" in table
    assert "%" not in table
    files = {path.suffix: path.read_text() for path in tmp_path.iterdir()}
    assert files[".md"] == table
    found = json.loads(files[".json"])
    assert not found["measurement"]
    rows = found["layers"] + found["passes"] + found["steps"]
    assert len(rows) == {"avgpool": 6, "sigmoid-input": 3, "lenet": 1}.get(prefix, 12)
    assert all(row["missing"] == {} and row["median"][contestants.OURS] > 0 for row in rows)
    if prefix == "lenet":
        assert rows[0]["median"]["certiconv graph"] == 12 + 1


@needs_compiler
@pytest.mark.oracle
def test_the_script_runs_beside_pytorch(torch: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert torch is not None
    benchmark.main(["--simt", "--out", str(tmp_path)])
    assert "Not run" not in capsys.readouterr().out
    (path,) = tmp_path.glob("*.json")
    found = json.loads(path.read_text())
    assert all(
        set(row["median"]) == {"certiconv", "torch", "torch channels_last"} for row in found["layers"] + found["passes"]
    )
    assert [set(row["median"]) for row in found["steps"]] == [
        {"certiconv", "certiconv graph", "torch", "torch compiled graph"}
    ]


@pytest.mark.parametrize("case", list(passes.passes((2, 3, 5, 6))), ids=lambda case: case.name)
def test_the_definition_of_a_pass_is_that_of_the_emitted_numpy_text(case: passes.Pass) -> None:
    import codegen

    given = passes.Given.of(case)
    module = codegen.load(codegen.emit(case.layer, input_shape=case.shape, dtype="float64").source)
    x, g = given.x.astype(np.float64), given.g.astype(np.float64)
    result = module.forward(x) if case.part == "forward" else module.input_gradient(g, x)
    passes.check(case, "certiconv", result, given)
    with pytest.raises(truth.Disagreement, match="gives"):
        passes.check(case, "certiconv", result + 0.1, given)
    arrays = 3 if case.part == "input" and case.name[:7] != "avgpool" else 2
    cells = result.size + (x.size if case.part == "forward" else g.size) + (arrays - 2) * x.size
    assert case.bytes == cells * (4 if case.numbers == "float32" else 2)


def test_without_a_gpu_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(machine, "lacks_for_cupy", lambda: "no CUDA driver is installed here")
    with pytest.raises(SystemExit) as stopped:
        benchmark.main(["--quick"])
    assert stopped.value.code == 2
    assert "no CUDA driver is installed here; --simt runs the script without a GPU" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        benchmark.main(["--simt", "--case", "foo"])
    assert "--case foo: no case begins so" in capsys.readouterr().err


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", [SMALL, "depthwise-tiny", "1x1-tiny"])
def test_the_definition_of_a_cell_is_that_of_the_emitted_numpy_text(name: str, part: str) -> None:
    """`truth.terms` beside the emitted NumPy module, and a result that is wrong in every cell."""
    import codegen

    case = next(cases(SMALLEST, f"{name}-{part}-float32"))
    given = Arguments.of(case)
    x, w, g = given.exact()
    module = codegen.load(codegen.emit(case.layer, input_shape=case.shape, dtype="float64").source)
    result = {
        "forward": lambda: module.forward(x, w),
        "input": lambda: module.input_gradient(g, w, x.shape),
        "weight": lambda: module.weight_gradient(g, x),
    }[part]()
    truth.check(case, "right", result, (x, w, g), strictly=True)
    with pytest.raises(truth.Disagreement, match=r"wrong gives .* the definition"):
        truth.check(case, "wrong", result + 1e-3, (x, w, g), strictly=True)
    with pytest.raises(truth.Disagreement, match="gives the shape"):
        truth.check(case, "wrong", result[1:], (x, w, g), strictly=False)


@needs_compiler
def test_a_contestant_with_a_wrong_result_is_not_timed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = contestants.ours

    def wrong(*arguments: Any) -> contestants.Contestant:
        found = right(*arguments)
        return contestants.Contestant(found.name, found.call, lambda: found.outcome() * 1.01)

    monkeypatch.setattr(contestants, "ours", wrong)
    with pytest.raises(SystemExit) as stopped:
        benchmark.main(["--simt", "--no-torch", "--case", f"{SMALL}-weight-float32"])
    assert stopped.value.code == 1
    printed = capsys.readouterr()
    assert "certiconv: wrong: certiconv gives" in printed.out
    assert "wrong: certiconv gives" in printed.err


def test_steppers_that_part_ways_are_found() -> None:
    given = steps.Batches.of(2, 1)
    moved = {key: a + 1 for key, a in given.parameters.items()}
    far = {key: a + 1.01 for key, a in given.parameters.items()}

    def stepper(name: str, params: dict[str, Any]) -> steps.Stepper:
        return steps.Stepper(name, lambda _: None, lambda: params)

    steps.check([stepper("a", moved), stepper("b", moved)], given)
    with pytest.raises(truth.Disagreement, match=r"b and a are 0\.01 apart"):
        steps.check([stepper("a", moved), stepper("b", far)], given)
    with pytest.raises(truth.Disagreement, match=r"a leaves 0\.weight as it was"):
        steps.check([stepper("a", given.parameters)], given)


def test_contestants_take_turns_and_sets_rotate() -> None:
    stand_in = machine.CupyStandIn()
    clock = Clock.of(stand_in, 8)
    seen: list[tuple[str, int]] = []

    def caller(name: str) -> Callable[[int], None]:
        return lambda k: seen.append((name, k))

    found = clock.interleave({"a": caller("a"), "b": caller("b")}, rounds=3, repeats=2)
    assert [name for name, _ in seen[6::2]] == ["a", "b", "b", "a", "a", "b"]
    assert [k for name, k in seen if name == "a"] == [0, 1, 2, 0, 1, 2, 3, 4, 5]
    assert found["a"].values == (0.5, 0.5, 0.5)
    stand_in.cuda.Device().attributes["L2CacheSize"] = 1000
    assert [clock.sets(n) for n in (10, 400, 5000)] == [16, 5, 2]


def test_a_ratio_is_to_the_best_of_pytorch() -> None:
    samples = {name: Samples(values) for name, values in {"certiconv": (3.0, 1.0, 2.0), "torch": (5.0,)}.items()}
    samples["torch channels_last"] = Samples((4.0,))
    assert Row("case", samples).ratio == 0.5
    assert samples["certiconv"].quartiles == (1.5, 2.5)
    assert Row("case", {"certiconv": Samples((1.0,))}).ratio is None


def test_the_layers_are_those_of_the_networks() -> None:
    """ResNet-50's last 3x3 layer: 512 channels on 7x7, 2 * 32 * 49 * 512 * 512 * 9 operations."""
    case = next(cases(FULL, "3x3-512-forward-float16"))
    assert case.operations == 2 * 32 * 49 * 512 * 512 * 9
    assert case.bytes == 2 * (2 * 32 * 512 * 49 + 512 * 512 * 9)
    assert next(cases(FULL, "3x3-512s2-input-float32")).output_shape == (32, 512, 7, 7)
    assert next(cases(FULL, "depthwise-32-weight-tf32")).weight_shape == (32, 1, 3, 3)
    assert np.isclose(Arguments.of(tiny("forward")).x.std(), 1, atol=0.2)
