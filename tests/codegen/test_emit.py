"""``emit``: the same bytes for the same request, text that stands alone, and requests refused in words."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import codegen
import derive
from codegen.emit import spec
from codegen.plans.algorithms import ALGORITHMS

ROOT = Path(__file__).resolve().parents[2]
CONV = derive.Conv2d(6, 16, 5, stride=2, padding=1, bias=False)
DEPTHWISE = derive.Conv2d(6, 6, 5, stride=2, groups=6)
GROUPED = derive.Conv2d(6, 4, 3, groups=2)
NETWORK = derive.Sequential(derive.Conv1d(1, 2, 3), derive.Sigmoid(), derive.Flatten(), derive.Linear(8, 3))

EMIT = """
import sys
import codegen, derive
for layer, shape in (
    (derive.Conv2d(6, 16, 5, stride=2, padding=1, bias=False), (8, 6, 14, 14)),
    (derive.Conv3d(1, 1, 2, dilation=2), (1, 1, 4, 5, 6)),
    (derive.Conv2d(4, 4, 3, stride=2, groups=4), (8, 4, 9, 9)),
    (derive.lenet(), (1, 1, 28, 28)),
):
    sys.stdout.write(codegen.emit(layer, input_shape=shape).source)
assert "z3" not in sys.modules and "sympy" not in sys.modules and "numpy" not in sys.modules, "loaded for nothing"
"""

ALONE = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"derive", "codegen", "runtime", "jinja2", "sympy", "z3"}:
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
sys.path.insert(0, sys.argv[1])
import conv, numpy as np
x, weight = np.ones((2, 6, 14, 14)), np.ones((16, 6, 5, 5))
y = conv.forward(x, weight)
assert y.shape == (2, 16, 6, 6) and y[0, 0, 1, 1] == 150
assert [g if g is None else g.shape for g in conv.backward(y, x, weight)] == [x.shape, weight.shape, None]
"""


def python(code: str, *arguments: str, seed: str = "0") -> str:
    """What a fresh interpreter prints."""
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_process_prints_the_same_bytes_and_loads_no_solver() -> None:
    texts = {python(EMIT, seed=seed) for seed in ("0", "1", "4242")}
    assert len(texts) == 1
    assert codegen.emit(CONV, input_shape=(8, 6, 14, 14)).source in texts.pop()


def test_the_text_stands_alone(tmp_path: Path) -> None:
    codegen.emit(CONV, input_shape=(8, 6, 14, 14)).write(tmp_path / "conv.py")
    python(ALONE, str(tmp_path))


def test_the_command_in_the_text_makes_the_text_again(tmp_path: Path) -> None:
    for layer, shape in ((CONV, (8, 6, 14, 14)), (DEPTHWISE, (8, 6, 14, 14)), (NETWORK, (8, 1, 6))):
        emitted = codegen.emit(layer, input_shape=shape, dtype="float64")
        (command,) = [part for part in emitted.source.split("'") if part.startswith("import codegen")]
        python(command.replace("FILE", str(tmp_path / "again.py")))
        assert (tmp_path / "again.py").read_text() == emitted.source


def test_the_batch_size_does_not_show_in_the_text() -> None:
    one, many = (codegen.emit(CONV, input_shape=(batch, 6, 14, 14)) for batch in (0, 64))
    assert one.source == many.source
    assert one.digest == many.digest


def test_what_is_emitted_is_described() -> None:
    emitted = codegen.emit(CONV, input_shape=(8, 6, 14, 14), dtype="float64", algorithm="gemm")
    assert (emitted.algorithm, emitted.dtype, emitted.layer) == ("gemm", "float64", CONV)
    assert list(emitted.plans) == ["forward", "input_gradient", "weight_gradient"]
    assert emitted.plan is emitted.plans["forward"]
    assert codegen.load(emitted.source).Forward(2).dtype == np.float64
    assert spec(NETWORK).startswith("Sequential(Conv1d(1, 2, (3,), stride=(1,), ")


def test_what_is_chosen_is_one_of_the_algorithms() -> None:
    for layer, shape in (
        (CONV, (1, 6, 14, 14)),
        (derive.Conv1d(1, 1, 3), (1, 1, 9)),
        (derive.Conv3d(2, 1, 1), (1, 2, 3, 3, 3)),
    ):
        emitted = codegen.emit(layer, input_shape=shape)
        assert {plan.algorithm for plan in emitted.plans.values()} <= set(ALGORITHMS)


def test_groups_are_described() -> None:
    for layer, algorithm in ((DEPTHWISE, "depthwise"), (DEPTHWISE, "direct"), (GROUPED, "direct")):
        emitted = codegen.emit(layer, input_shape=(8, 6, 14, 14), algorithm=algorithm)
        assert emitted.algorithm == algorithm
        assert list(emitted.theorems) == list(emitted.plans)
    assert "groups=6" in spec(DEPTHWISE)
    assert "groups" not in spec(CONV)


def test_a_block_of_images_fits_a_cache() -> None:
    blocks = {}
    for name, layer, shape in (
        ("small", derive.Conv2d(1, 2, 3), (1, 1, 5, 5)),
        ("middle", derive.Conv2d(1, 6, 5, padding=2), (1, 1, 28, 28)),
        ("few", derive.Conv2d(4, 4, 5, padding=2), (1, 4, 20, 20)),
        ("large", derive.Conv2d(64, 64, 3, padding=1), (1, 64, 56, 56)),
    ):
        blocks[name] = codegen.emit(layer, input_shape=shape, algorithm="gemm").plan.block
    assert blocks == {"small": 64, "middle": 13, "few": 8, "large": 1}
    twice = {"input_shape": (1, 1, 28, 28), "dtype": "float64", "algorithm": "gemm"}
    middle = codegen.emit(derive.Conv2d(1, 6, 5, padding=2), **twice)  # type: ignore[arg-type]
    assert middle.plan.block == 8


# --- writing ------------------------------------------------------------------------------------------------------


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, emitted = tmp_path / "conv.py", codegen.emit(CONV, input_shape=(8, 6, 14, 14))
    emitted.write(path)
    assert path.read_bytes() == emitted.source.encode()
    path.write_text("what was there before")

    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        emitted.write(path)
    assert path.read_text() == "what was there before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        codegen.emit(CONV, input_shape=(8, 6, 14, 14)).write(tmp_path / "no" / "conv.py")


# --- refusals -----------------------------------------------------------------------------------------------------

SHAPE = (8, 6, 14, 14)
HAS = "(a layer by itself has it for backend='cupy'); nearest legal: 'float32'"
REFUSED = [
    ({"backend": "torch"}, "backend='torch': it has to be one of 'numpy', 'cupy'; nearest legal: 'numpy'"),
    ({"layer": "conv2d"}, "layer='conv2d': a layer is needed, such as derive.Conv2d(6, 16, 5)"),
    ({"dtype": "float16"}, f"dtype='float16': it has to be one of 'float32', 'float64' for backend='numpy' {HAS}"),
    (
        {"backend": "cupy", "dtype": "int8"},
        "dtype='int8': it has to be one of 'float32', 'float64', 'float16', 'bfloat16' for backend='cupy'; nearest",
    ),
    ({"backend": "cupy", "dtype": np.float64}, "for backend='cupy'; nearest legal: 'float64'"),
    (
        {"backend": "cupy", "layer": NETWORK, "input_shape": (1, 1, 6), "dtype": "bfloat16"},
        f"dtype='bfloat16': it has to be one of 'float32', 'float64' for a network {HAS}",
    ),
    (
        {"backend": "cupy", "dtype": "float64", "algorithm": "tf32"},
        "rounds factors in float32 to 11 bits, and dtype is 'float64'; nearest legal: 'auto', or dtype='float32'",
    ),
    (
        {"backend": "cupy", "algorithm": "winograd4"},
        "'definition', 'tf32' for backend='cupy', which forms each result by its definition; nearest legal: 'auto'",
    ),
    (
        {"backend": "cupy", "algorithm": {"forward": "tf32"}},
        "algorithm={'forward': 'tf32'}: for backend='cupy' one name is needed for all results, of 'auto', 'definition'",
    ),
    ({"algorithm": "tf32"}, "for backend='numpy' (backend='cupy' has it); nearest legal: 'auto'"),
    ({"backend": "cupy", "tiles": ["64x64"]}, "tiles=['64x64']: a mapping from results to tiles is needed, such as"),
    ({"backend": "cupy", "tiles": {"forward": "130x60"}}, "nearest legal: '128x64'"),
    ({"backend": "cupy", "tiles": {"forward": 64}}, "tiles['forward']=64: it has to be one of '128x128', "),
    (
        {"backend": "cupy", "tolerance": 1e-9},
        "tolerance=1e-09: for backend='cupy' nothing is chosen by it; leave it out",
    ),
    (
        {"backend": "cupy", "layer": derive.Conv2d(6, 16, 3, padding=1 << 30, dilation=1 << 30)},
        "places along an axis have to be below 1073741824 in CUDA text",
    ),
    ({"layout": "NHWC"}, "layout='NHWC': it has to be one of 'channels_first', 'channels_last'"),
    (
        {"layout": "channels_last", "backend": "cupy"},
        "layout='channels_last': it has to be 'channels_first' for backend='cupy'",
    ),
    (
        {"layout": "channels_last", "layer": derive.Sequential(derive.Flatten(), derive.Linear(1176, 10))},
        "layout='channels_last': it has to be 'channels_first' for a network",
    ),
    ({"algorithm": "fft"}, "algorithm='fft': it has to be one of 'auto', "),
    (
        {"algorithm": "depthwise"},
        "algorithm='depthwise': it has no plan for Conv2d(6, 16, (5, 5), stride=(2, 2), ",
    ),
    (
        {"layer": derive.Conv2d(6, 6, 3, groups=6), "algorithm": "gemm"},
        "groups=6, bias=True); those that have one: direct, im2col, depthwise",
    ),
    (
        {"layer": derive.Conv2d(6, 12, 3, groups=6), "algorithm": "depthwise"},
        "groups=6, bias=True); those that have one: direct",
    ),
    (
        {"layer": derive.Sequential(derive.Conv2d(6, 6, 3, groups=6), derive.Sigmoid())},
        "layer 0: groups=6: no plan of a network has grouped convolutions; nearest: 1",
    ),
    ({"input_shape": (8, 6, 14, 14.0)}, "input_shape=(8, 6, 14, 14.0): integers are needed, (batch, channels, ...)"),
    (
        {"layer": derive.Flatten(), "input_shape": (8, 3)},
        "activations, Linear and Sequential can be emitted; nearest",
    ),
    ({"layer": derive.Sequential(derive.Conv2d(6, 16, 5))}, "layer 0: the network plan needs a sigmoid after a conv"),
    ({"layer": NETWORK, "input_shape": (1, 1, 6), "algorithm": "gemm"}, "it has to be one of 'auto', 'network'"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=[str(k) for k in range(len(REFUSED))])
def test_a_request_that_cannot_be_met_is_refused_in_words(change: dict[str, object], message: str) -> None:
    request: dict[str, object] = {"layer": CONV, "input_shape": SHAPE} | change
    with pytest.raises(codegen.EmitError) as caught:
        codegen.emit(**request)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_an_illegal_shape_is_the_error_of_the_layer() -> None:
    with pytest.raises(derive.LayerError, match="nearest legal value is 3"):
        codegen.emit(CONV, input_shape=(8, 6, 2, 14))
    with pytest.raises(derive.LayerError, match="symbol"):
        codegen.emit(derive.Conv2d(derive.symbol("C"), 16, 5), input_shape=(8, 6, 14, 14))


def test_the_package_has_its_public_names_and_no_others() -> None:
    assert codegen.__all__ == ["EmitError", "Emitted", "emit", "load"]
    assert callable(codegen.emit)
    assert callable(codegen.load)
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = codegen.lode
