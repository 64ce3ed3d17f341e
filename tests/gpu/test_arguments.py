"""What may be handed to an emitted module on a device: whose arrays, of which strides, on which stream, and ``out``."""

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from derive.layers import Conv2d
from tests.codegen.convolutions import Case, drawn, expected
from tests.gpu.machines import GPU, Exporter, Interface, Machine, emitted

CASE = Case(Conv2d(2, 3, 3, padding=1), (4, 2, 5, 6), "direct")
DATA = drawn(CASE, 8, "float32")
RIGHT = expected(CASE, DATA)


@pytest.fixture
def module(machine: Machine) -> ModuleType:
    return machine.module(emitted(CASE.layer, CASE.shape, "float32"))


def given(module: ModuleType) -> tuple[Any, Any, Any, Any]:
    """Input, weight, bias and cotangent on the machine."""
    return tuple(module.cupy.asarray(a.copy()) for a in (DATA.x, DATA.weight, DATA.bias, DATA.grad))


def test_arrays_of_other_libraries_are_shared(module: ModuleType) -> None:
    x, w, b, g = given(module)
    for kind in (Interface, Exporter):
        y = module.forward(kind(x), kind(w), kind(b))
        np.testing.assert_array_equal(module.cupy.asnumpy(y), RIGHT["forward"])
        found = module.weight_gradient(kind(g), kind(x))
        np.testing.assert_array_equal(module.cupy.asnumpy(found), RIGHT["weight_gradient"])


@pytest.mark.gpu
@pytest.mark.parametrize("machine", ["gpu"], indirect=True)
def test_tensors_of_torch_are_shared(machine: Machine, torch: Any) -> None:
    assert torch.cuda.is_available(), "needs a PyTorch that uses the GPU"
    module = machine.module(emitted(CASE.layer, CASE.shape, "float32"))
    x, w, b = (torch.tensor(a, device="cuda") for a in (DATA.x, DATA.weight, DATA.bias))
    torch.cuda.synchronize()
    y = module.forward(x, w, b)
    np.testing.assert_array_equal(torch.from_dlpack(y).cpu().numpy(), RIGHT["forward"])
    with pytest.raises(TypeError, match="weight is Tensor; an array on the GPU"):
        module.forward(x, w.cpu(), b)


def test_an_array_of_the_host_is_refused(module: ModuleType, machine: Machine) -> None:
    _, w, b, _ = given(module)
    elsewhere = DATA.x if machine is GPU else DATA.x.tolist()
    with pytest.raises(TypeError, match=r"input is \w+; an array on the GPU of shape \(batch, 2, 5, 6\) is needed"):
        module.forward(elsewhere, w, b)


@pytest.mark.parametrize(
    "turned",
    [lambda a: a[::-1], lambda a: a[..., ::-1], lambda a: a.swapaxes(-1, -2).copy().swapaxes(-1, -2)],
    ids=["flipped images", "flipped columns", "transposed"],
)
def test_other_strides_are_refused_with_the_remedy(module: ModuleType, turned: Any) -> None:
    x, w, b, g = given(module)
    said = r"input has the strides \(.*\); a C-contiguous array is needed, as cupy.ascontiguousarray makes"
    with pytest.raises(ValueError, match=said):
        module.forward(turned(x), w, b)
    with pytest.raises(ValueError, match=said.replace("input", "grad_output")):
        module.backward(turned(g), x, w)
    packed = module.cupy.ascontiguousarray(turned(x))
    assert module.forward(packed, w, b).shape == RIGHT["forward"].shape


def test_another_dtype_shape_or_batch_is_refused(module: ModuleType) -> None:
    x, w, b, g = given(module)
    with pytest.raises(ValueError, match="weight is float64; float32 is needed"):
        module.forward(x, w.astype("float64"), b)
    with pytest.raises(ValueError, match=r"input has the shape \(4, 2, 5, 5\); \(batch, 2, 5, 6\) is needed"):
        module.forward(module.cupy.ascontiguousarray(x[..., :5]), w, b)
    with pytest.raises(ValueError, match="input holds 3 images and grad_output 4; as many are needed"):
        module.weight_gradient(g, x[:3])


def test_a_result_goes_into_the_array_that_is_given(module: ModuleType) -> None:
    x, w, b, g = given(module)
    out = module.cupy.zeros(RIGHT["forward"].shape, module.DTYPE)
    assert module.forward(x, w, b, out=out) is out
    np.testing.assert_array_equal(module.cupy.asnumpy(out), RIGHT["forward"])
    out = module.cupy.zeros(x.shape, module.DTYPE)
    assert module.input_gradient(g, w, x.shape, out=out) is out
    np.testing.assert_array_equal(module.cupy.asnumpy(out), RIGHT["input_gradient"])
    with pytest.raises(ValueError, match="out may share memory with an argument"):
        module.input_gradient(out_of_both(module), w, x.shape, out=out_of_both(module, of=x.shape))
    with pytest.raises(ValueError, match="out has the strides"):
        module.input_gradient(g, w, x.shape, out=module.cupy.zeros((*x.shape[:3], 12), module.DTYPE)[..., ::2])


def out_of_both(module: ModuleType, of: tuple[int, ...] | None = None) -> Any:
    """A cotangent, or an array of another shape, in the same memory."""
    shape = of or RIGHT["forward"].shape
    if not hasattr(module, "shared_by_both"):
        module.__dict__["shared_by_both"] = module.cupy.zeros(1000, module.DTYPE)
    return module.shared_by_both[: int(np.prod(shape))].reshape(shape)


def test_work_goes_to_the_current_stream_and_can_be_captured(module: ModuleType) -> None:
    """With ``out`` a call makes no array: a graph runs it again on whatever its arrays hold by then."""
    cupy = module.cupy
    x, w, b, _ = given(module)
    out, again = (cupy.zeros(RIGHT["forward"].shape, module.DTYPE) for _ in range(2))
    module.forward(x, w, b, out=out)  # compiles
    cupy.cuda.get_current_stream().synchronize()
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        module.forward(x, w, b, out=again)
        graph = stream.end_capture()
    assert not cupy.asnumpy(again).any()
    x[...] = 2 * x
    w[...] = 2 * w
    b[...] = 4 * b
    cupy.cuda.get_current_stream().synchronize()
    with stream:
        graph.launch(stream)
    stream.synchronize()
    np.testing.assert_array_equal(cupy.asnumpy(again), 4 * RIGHT["forward"])
