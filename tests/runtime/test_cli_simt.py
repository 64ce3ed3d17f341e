"""`certiconv simt`: how arguments are written, what is printed where, and the exit status."""

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner
from typer.testing import Result as Ran

from runtime.cli import main

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

SAXPY = """__global__ void saxpy(int n, float a, const float *x, float *y) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = a * x[i] + y[i];
}
"""
OTHERS = r"""
#include <cuda_bf16.h>
#include "shared.h"
extern "C" __global__ void twice(const __nv_bfloat16 *x, float *y) {
    y[threadIdx.x] = __bfloat162float(x[threadIdx.x]) * FACTOR;
}
template <int N> __global__ void count(int *y) { y[threadIdx.x] = N; }
extern "C" __global__ void pointer(const float *x, int *y) { *y = x == nullptr; }
extern "C" __global__ void dynamic(int *y) {
    extern __shared__ int s[];
    s[threadIdx.x] = threadIdx.x;
    __syncthreads();
    y[threadIdx.x] = s[blockDim.x - 1 - threadIdx.x];
}
"""

Certiconv = Callable[..., Ran]


@pytest.fixture
def certiconv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Certiconv:
    monkeypatch.chdir(tmp_path)
    Path("saxpy.cu").write_text(SAXPY)
    Path("others.cu").write_text(OTHERS)
    Path("shared.h").write_text("#define FACTOR 2\n")
    Path("text.npy").write_text("1 2 3\n")
    Path("nothing.npy").touch()
    return lambda *arguments: CliRunner().invoke(main, ["simt", *arguments])


def test_a_kernel_without_a_mistake(certiconv: Certiconv) -> None:
    ran = certiconv(
        "saxpy.cu", "--kernel", "saxpy", "--grid", "4", "--block", "256", "--args", "n=1000", "a=2",
        "x=float32[1000]:arange", "y=float32[1000]:ones", "--save", "y=y.npy",
    )  # fmt: skip
    assert ran.exit_code == 0, ran.output
    assert ran.stdout == (
        "saxpy, grid 4, block 256, orders forward, reverse, shuffled: 9000 accesses checked, no mistake found\n"
        "  x            float32[1000], read only, 0 to 999\n"
        "  y            float32[1000], written, 1 to 1999\n"
    )
    np.testing.assert_array_equal(np.load("y.npy"), 2 * np.arange(1000) + 1)


def test_a_mistake_is_told_with_its_line(certiconv: Certiconv) -> None:
    Path("saxpy.cu").write_text(SAXPY.replace("i < n", "i <= n"))
    ran = certiconv("saxpy.cu", "--grid", "4", "--block", "256", "1000", "2", "float32[1000]:1", "float32[1000]:1")
    assert ran.exit_code == 1
    assert ran.stdout == ""
    assert ran.stderr == (
        "certiconv: out-of-bounds: x[1000], 4 bytes: the array has 4000 bytes\n"
        "  read by thread (232, 0, 0) of block (3, 0, 0)\n"
        "    saxpy.cu:3: if (i <= n) y[i] = a * x[i] + y[i];\n"
    )


def test_shuffles_from_lanes_that_are_not_there_are_counted(certiconv: Certiconv) -> None:
    Path("eights.cu").write_text(
        "__global__ void eights(int *x) {\n"
        "    int v = x[threadIdx.x] + __shfl_down_sync(0xffffffffu, x[threadIdx.x], 8);\n"
        "    if (threadIdx.x < 8) x[threadIdx.x] = v;\n}"
    )
    ran = certiconv("eights.cu", "--block", "16", "int32[16]:ones")
    told = "no mistake found; 24 shuffles read a lane that ended or is not in the mask\n"
    assert told in ran.stdout, ran.output
    ran = certiconv("eights.cu", "--block", "16", "--no-check", "int32[16]:ones")
    assert "not checked; 24 shuffles read" in ran.stdout, ran.output


def test_templates_headers_macros_and_files(certiconv: Certiconv) -> None:
    np.save("x.npy", np.array([0x3F80, 0x4000], "u2"))
    ran = certiconv("others.cu", "--kernel", "twice", "--block", "2", "x.npy", "float32[2]:empty", "--save", "y=y.npy")
    assert ran.exit_code == 0, ran.output
    np.testing.assert_array_equal(np.load("y.npy"), [2, 4])
    ran = certiconv("others.cu", "--kernel", "twice", "--block", "3", "bfloat16[3]:arange", "float32[3]")
    assert "uint16[3], read only, 0 to 2\n" in ran.stdout
    assert "float32[3], written, 0 to 4\n" in ran.stdout
    ran = certiconv("others.cu", "--kernel", "count<SEVEN>", "-D", "SEVEN=7", "int32[32]:zeros")
    assert "written, 7 to 7" in ran.stdout, ran.output
    ran = certiconv("others.cu", "--kernel", "pointer", "--block", "1", "null", "int32[1]")
    assert "written, 1 to 1" in ran.stdout, ran.output
    assert certiconv("others.cu", "--kernel", "dynamic", "--shared", "128", "int32[32]").exit_code == 0
    assert certiconv("others.cu", "--kernel", "dynamic", "--shared", "124", "int32[32]").exit_code == 1


@pytest.mark.parametrize("dtype", ["int64", "uint32", "int16", "uint8"])
def test_cells_that_nothing_was_written_to_are_counted(certiconv: Certiconv, dtype: str) -> None:
    kind = {"int64": "long long", "uint32": "unsigned", "int16": "short", "uint8": "unsigned char"}[dtype]
    Path("some.cu").write_text(
        f"__global__ void some({kind} *x, {kind} *y) {{ if (threadIdx.x / 4 % 2) x[threadIdx.x] = threadIdx.x; }}"
    )
    ran = certiconv("some.cu", f"{dtype}[40]", f"{dtype}[8]")
    assert f"{dtype}[40], written, 4 to 31, 24 without a value\n" in ran.stdout, ran.output
    assert f"{dtype}[8], read only, no cell has a value\n" in ran.stdout, ran.output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["no.cu"], "there is no file no.cu"),
        (["saxpy.cu", "1", "2"], "(int n, float a, const float *x, float *y) needs x, y too"),
        (["saxpy.cu", "1", "2", "z=null"], "z is no parameter of (int n, float a, const float *x, float *y)"),
        (["saxpy.cu", "1", "2", "null", "null", "5"], "'5' is one too many"),
        (["saxpy.cu", "n=1", "n=2"], "n is given twice"),
        (["saxpy.cu", "many", "2", "null", "null"], "n=many is not understood for int n; such as 1000 or int32:1000"),
        (["saxpy.cu", "1", "2", "float[3]:odd", "null"], "'odd' is none of random"),
        (["saxpy.cu", "1", "2", "strange[3]", "null"], "strange is no dtype"),
        (
            ["saxpy.cu", "1", "2", "float32[1000000000000000000]:random", "null"],
            "x=float32[1000000000000000000] asks for 4000000000000000000 bytes, which this machine does not have free",
        ),
        (["saxpy.cu", "1", "2", "float32[1000000000,1000000000]", "null"], "asks for 4000000000000000000 bytes"),
        (["saxpy.cu", "1", "2", "float32[10000000000000000000]:1", "null"], "asks for 40000000000000000000 bytes"),
        (
            ["saxpy.cu", "1", "2", "int32[40]:2.5", "null"],
            "x: 2.5 does not fit int32, which takes an integer from -2147483648 to 2147483647",
        ),
        (["saxpy.cu", "1", "2", "uint8[40]:-1", "null"], "-1 does not fit uint8, which takes an integer from 0 to 255"),
        (["saxpy.cu", "1", "2", "bool[40]:2", "null"], "2 does not fit bool, which takes 0 or 1"),
        (
            ["saxpy.cu", "1", "2", "float32[10]:5e50", "null"],
            "x: 5e+50 does not fit float32, which takes a number of magnitude at most 3.4028",
        ),
        (["saxpy.cu", "1", "2", "float16[10]:65520", "null"], "does not fit float16"),
        (["saxpy.cu", "1", "2", "float32[10]:1-2", "null"], "'1-2' is none of random"),
        (["saxpy.cu", "int32:2.5", "2", "null", "null"], "n: 2.5 does not fit int32"),
        (["saxpy.cu", "1e999", "2", "null", "null"], "n=1e999 is not understood for int n"),
        (["saxpy.cu", "1", "2", "float32[2]:1" + 400 * "0", "null"], "does not fit float32"),
        (["saxpy.cu", "int8:300", "2", "null", "null"], "n: 300 does not fit int8"),
        (["saxpy.cu", "1-2", "2", "null", "null"], "n=1-2 is not understood for int n"),
        (["saxpy.cu", "1", "float32:5e50", "null", "null"], "a: 5e+50 does not fit float32"),
        (["saxpy.cu", "1", "5e50", "null", "null"], "argument a=5e+50 does not fit float a"),
        (["saxpy.cu", "1", "2", "no.npy", "null"], "x=no.npy: there is no file no.npy"),
        (["saxpy.cu", "1", "2", "text.npy", "null"], "x=text.npy cannot be read as an array"),
        (["saxpy.cu", "1", "2", "nothing.npy", "null"], "x=nothing.npy cannot be read as an array"),
        (["saxpy.cu", "1", "2", "float64[3]", "null"], "x has dtype float64, but it is declared const float *x"),
        (["saxpy.cu", "2147483648", "2", "null", "null"], "n=2147483648 does not fit int n"),
        (["saxpy.cu", "--grid", "x", "1", "2", "null", "null"], "'x' is not a list of integers"),
        (["saxpy.cu", "--block", "2048", "1", "2", "null", "null"], "x=2048 is not between 1 and 1024"),
        (["saxpy.cu", "--kernel", "axpy", "1"], "kernel='axpy' is not in saxpy.cu; its kernels: saxpy"),
        (["others.cu", "null"], "others.cu has twice, pointer, dynamic; say which"),
        (["saxpy.cu", "--save", "n=n.npy", "1", "2", "null", "null"], "'n=n.npy' is no NAME=FILE.npy; arrays: none"),
    ],
)
def test_bad_usage_says_what_would_do(certiconv: Certiconv, arguments: list[str], told: str) -> None:
    ran = certiconv(*arguments)
    assert ran.exit_code == 2, ran.output
    assert told in " ".join(ran.stderr.split()) or told in ran.stderr


def test_a_number_fills_an_array_exactly(certiconv: Certiconv) -> None:
    Path("none.cu").write_text("__global__ void none(const long long *x, const short *y, const bool *z, double w) {}")
    ran = certiconv(
        "none.cu", "int64[3]:9007199254740993", "int16[2,2]:1e3", "bool[1]:1", "inf", "--save", "x=x.npy",
        "--save", "y=y.npy", "--save", "z=z.npy",
    )  # fmt: skip
    assert ran.exit_code == 0, ran.output
    assert np.load("x.npy").tolist() == 3 * [2**53 + 1]
    assert np.load("y.npy").tolist() == 2 * [[1000, 1000]]
    assert np.load("z.npy").tolist() == [True]


def test_a_text_that_does_not_compile_is_bad_input(certiconv: Certiconv) -> None:
    Path("saxpy.cu").write_text("int main() { k<<<1, 1>>>(); }")
    ran = certiconv("saxpy.cu", "--kernel", "k")
    assert ran.exit_code == 2
    assert "saxpy.cu:1:" in ran.stderr
    assert "host code with <<<...>>> belongs between #ifdef __CUDACC__ and #endif" in ran.stderr


def test_help_shows_how_arguments_are_written(certiconv: Certiconv) -> None:
    ran = certiconv("--help")
    assert ran.exit_code == 0
    assert "float32[64,32]:random" in ran.stdout


def test_the_readme_shows_what_it_prints(certiconv: Certiconv) -> None:
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text()
    file, command, output = (
        re.search(rf"<!-- simt: {part} -->\n```\w+\n(.*?)```", readme, re.DOTALL)
        for part in ("file", "command", "output")
    )
    assert file
    assert command
    assert output
    Path("pairs.cu").write_text(file[1])
    ran = certiconv(*shlex.split(command[1])[2:])
    assert (ran.exit_code, ran.stderr) == (1, output[1])
    Path("pairs.cu").write_text(file[1].replace("x[i];\n", "x[i];\n    __syncwarp();\n"))
    assert certiconv(*shlex.split(command[1])[2:]).exit_code == 0
