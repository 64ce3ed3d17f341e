"""The head of a CUDA text: types, and those functions that its kernels use.

A function that no kernel calls is not printed.  The loop of a matrix product stands here once, as a template of which
each kernel takes an instance (``tile.cu``, ``tensor_tile.cu``).
"""

from __future__ import annotations

from collections.abc import Iterable

from codegen.templates.cuda.declarations import words_of
from codegen.templates.cuda.kernels import Kernel, template
from codegen.templates.cuda.numbers import Numbers
from codegen.templates.cuda.splitting import AHEAD, WARPS


def _function(head: str, value: str) -> str:
    return f"__device__ __forceinline__ {head} {{ return {value}; }}"


FUNCTIONS = {
    "exp_of": _function("ACC exp_of(ACC x)", "exp(x)"),
    "log_of": _function("ACC log_of(ACC x)", "log(x)"),
    "tanh_of": _function("ACC tanh_of(ACC x)", "tanh(x)"),
    "reciprocal": _function("ACC reciprocal(ACC x)", "ACC(1) / x"),
    "relu_of": _function("ACC relu_of(ACC x)", "x < ACC(0) ? ACC(0) : x"),
    "step_of": _function("ACC step_of(ACC x)", "x > ACC(0) ? ACC(1) : ACC(0)"),
    "sigmoid_of": f"""#ifdef EXACT
{_function("ACC sigmoid_of(ACC x)", "sigmoid(x)")}
#else
{_function("ACC sigmoid_of(ACC x)", "ACC(1) / (ACC(1) + exp(-x))")}
#endif""",
    "floor_divide": _function("INDEX floor_divide(INDEX a, INDEX b)", "a >= 0 ? a / b : -((b - 1 - a) / b)"),
    "take_off": """
// A step of plain SGD for one parameter.
__device__ __forceinline__ void take_off(REAL& parameter, REAL rate, ACC gradient)
{
  parameter = REAL(ACC(parameter) - ACC(rate) * gradient);
}""",
    "hit": """
// T[b, n] for the label of image b: 1 at its class, else 0.  A label that is no class makes what it meets NaN.
#ifdef EXACT
#define NO_NUMBER ACC(0)
#else
#define NO_NUMBER ACC(nan(""))
#endif
__device__ __forceinline__ ACC hit(long long label, INDEX n, INDEX classes)
{
  return label < 0 || label >= classes ? NO_NUMBER : ACC(label == n ? 1 : 0);
}""",
}
"""What expressions call, by name."""


def cuda_text(numbers: Numbers, kernels: Iterable[Kernel]) -> str:
    """The CUDA text of a module: its head, and its kernels, each after the functions that it is the first to call."""
    texts = list(dict.fromkeys(text for kernel in kernels for text in (*kernel.functions, kernel.text)))
    head = template("prelude.cu").render(
        **vars(numbers), ahead=AHEAD, warps=WARPS, functions=FUNCTIONS, used=words_of(texts)
    )
    return "\n".join([head, *(f"\n{text}" for text in texts)])


def uses_tensor_cores(kernel: Kernel) -> bool:
    """Whether a kernel forms its product on tensor cores."""
    return "TensorTile" in words_of([kernel.text, *kernel.functions])
