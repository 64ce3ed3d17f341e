"""`certiconv simt`: a CUDA kernel of the user's own, run and checked on this CPU.

What the kernel did goes to standard output; a mistake of the kernel goes to standard error, with status 1.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runtime.cli_messages import reported, say

if TYPE_CHECKING:
    from runtime.simt.program import Outcome, Program
    from runtime.simt.signature import Parameter

EPILOG = (
    "\b\nArguments, in the order of the kernel's parameters or as NAME=...:\n"
    "  float32[64,32]:random     an array: random, zeros, ones, arange, empty or a number; empty if nothing is said,\n"
    "                            whose cells must not be read before they are written\n"
    "  input.npy                 an array from a file\n"
    "  1000                      a number, of its parameter's type; int32:1000 states the type\n"
    "  null                      a null pointer\n"
    "\b\nExamples:\n"
    "  certiconv simt saxpy.cu --kernel saxpy --grid 4 --block 256 --args n=1000 a=2 'x=float32[1000]:random' "
    "'y=float32[1000]:ones'\n"
    "  certiconv simt gemm.cu --kernel 'gemm<16>' --grid 4,4 --block 16,16 -D FAST --save c=c.npy --args a.npy b.npy "
    "'float32[64,64]' 64\n"
    "\b\nA .cu file holds kernels and device functions; host code belongs between #ifdef __CUDACC__ and #endif."
)
_ARRAY = re.compile(r"(?P<dtype>[a-z]+\d*)\[(?P<shape>[\d,\s]*)\](?::(?P<fill>.+))?")
_NUMBER = re.compile(r"(?:(?P<dtype>[a-z]+\d*):)?(?P<value>[-+]?(?:\d[\d.e+-]*|\.\d[\d.e+-]*|inf|nan))")


@reported
def simt(  # noqa: PLR0913 - one for each option
    file: Annotated[Path, typer.Argument(metavar="FILE.cu", help="A text with kernels.")],
    values: Annotated[list[str] | None, typer.Argument(metavar="[ARGUMENT]...", help="See below.")] = None,
    *,
    kernel: Annotated[str, typer.Option(help="Its name; of a template with arguments.")] = "",
    grid: Annotated[str, typer.Option(metavar="X[,Y[,Z]]", help="Blocks.")] = "1",
    block: Annotated[str, typer.Option(metavar="X[,Y[,Z]]", help="Threads of a block.")] = "32",
    args: Annotated[bool, typer.Option("--args", help="The arguments follow (may be left out).")] = False,
    shared: Annotated[int, typer.Option(metavar="BYTES", help="Dynamic shared memory.")] = 0,
    define: Annotated[list[str] | None, typer.Option("-D", metavar="NAME[=VALUE]", help="A macro; repeatable.")] = None,
    seed: Annotated[int, typer.Option(help="Of random arrays.")] = 0,
    save: Annotated[list[str] | None, typer.Option(metavar="NAME=FILE.npy", help="Keep an array afterwards.")] = None,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="When to give up.")] = 60.0,
    check: Annotated[bool, typer.Option("--check/--no-check", help="Check each memory access.")] = True,
) -> None:
    """Run a CUDA kernel on this CPU and check it: races, bounds, barriers, shuffles.

    Needs g++ on x86-64 Linux, and no GPU. Blocks and threads run in three orders, whose results must agree. Status 1:
    the kernel has a mistake, which is shown with its lines, its threads and the array.
    """
    from runtime.simt import compile as compiled

    del args  # says only that what follows are arguments
    if not file.is_file():
        raise typer.BadParameter(f"there is no file {file}.", param_hint="FILE.cu")
    defines = dict(_pair(text, "1") for text in define or ())
    source = file.read_text(errors="replace")
    program = compiled(source, defines=defines, check=check, name=file.name, include=[file.resolve().parent])
    chosen = _kernel(program, kernel)
    parameters = program.parameters(chosen)
    given = arguments(parameters, values or (), seed)
    kept = _kept(parameters, given, save or ())
    outcome = program.launch(
        chosen, _sizes("--grid", grid), _sizes("--block", block), given, shared_bytes=shared, timeout=timeout
    )
    typer.echo(summary(f"{chosen}, grid {grid}, block {block}", parameters, given, outcome, check=check))
    _write(kept)


def _pair(text: str, default: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    return name, value if equals else default


def _sizes(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a list of integers such as 4,4.", param_hint=option) from None


def _kernel(program: Program, asked: str) -> str:
    """The kernel asked for; nothing need be said where there is one only."""
    if asked:
        return asked
    known = list(program.kernels)
    if len(known) != 1:
        raise typer.BadParameter(
            f"{program.name} has {', '.join(known) or 'no kernel that is no template'}; say which.",
            param_hint="--kernel",
        )
    return known[0]


# --- Arguments ----------------------------------------------------------------------------------------------


def arguments(parameters: Sequence[Parameter], values: Sequence[str], seed: int) -> list[Any]:
    """The arguments that were written, in the order of the parameters.

    Raises:
        typer.BadParameter: one is missing, unknown, given twice or not understood.
    """
    names = [p.name for p in parameters]
    declared = ", ".join(p.declaration() for p in parameters)
    found: dict[str, str] = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not (equals and name in names):
            if equals and re.fullmatch(r"[A-Za-z_]\w*", name):
                raise typer.BadParameter(f"{name} is no parameter of ({declared}).", param_hint="ARGUMENT")
            name, text = next((n for n in names if n not in found), ""), value
        if name in found:
            raise typer.BadParameter(f"{name} is given twice.", param_hint="ARGUMENT")
        if not name:
            raise typer.BadParameter(f"{value!r} is one too many for ({declared}).", param_hint="ARGUMENT")
        found[name] = text
    if missing := [name for name in names if name not in found]:
        raise typer.BadParameter(f"({declared}) needs {', '.join(missing)} too.", param_hint="ARGUMENT")
    return [_value(p, found[p.name], seed + k) for k, p in enumerate(parameters)]


def _value(parameter: Parameter, text: str, seed: int) -> Any:
    if parameter.pointer and text == "null":
        return None
    if parameter.pointer and text.endswith(".npy"):
        return _loaded(parameter, text)
    if parameter.pointer and (match := _ARRAY.fullmatch(text)):
        shape = tuple(int(n) for n in match["shape"].split(",") if n.strip())
        return _allocated(parameter, _dtype(parameter, match["dtype"]), shape, match["fill"] or "empty", seed)
    match = None if parameter.pointer else _NUMBER.fullmatch(text)
    if match and (number := _number(match["value"])) is not None:
        return number if match["dtype"] is None else _fitting(parameter, _dtype(parameter, match["dtype"]), number)
    nearest = "float32[1024]:random, a file x.npy or null" if parameter.pointer else "1000 or int32:1000"
    raise typer.BadParameter(
        f"{parameter.name}={text} is not understood for {parameter.declaration()}; such as {nearest}.",
        param_hint="ARGUMENT",
    )


def _dtype(parameter: Parameter, name: str) -> Any:
    import numpy as np

    try:
        return np.dtype("uint16" if name == "bfloat16" else name)
    except TypeError:
        raise typer.BadParameter(
            f"{parameter.name}: {name} is no dtype; such as float32, float16, bfloat16, int8, uint64.",
            param_hint="ARGUMENT",
        ) from None


def _number(text: str) -> int | float | None:
    """The number that a text is; None where it is none.

    >>> _number("12"), _number("1e3"), _number("1-2")
    (12, 1000.0, None)
    """
    try:
        number = float(text) if re.search(r"[.einf]", text) else int(text)
        return None if abs(number) >= math.inf and "inf" not in text else number
    except ValueError:
        return None


def _fitting(parameter: Parameter, dtype: Any, number: float) -> Any:
    """A number of this dtype; one that the dtype does not hold is refused, not truncated."""
    import numpy as np

    low, high, wanted = 0, 1, "0 or 1"
    if dtype.kind in "iu":
        low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
        wanted = f"an integer from {low} to {high}"
    if dtype.kind in "iub":
        if low <= number <= high and number == int(number):
            return dtype.type(int(number))
    elif dtype.kind == "f":
        with np.errstate(over="ignore"), contextlib.suppress(OverflowError):
            value = np.array(float(number)).astype(dtype)[()]
            if np.isfinite(value) or not math.isfinite(number):
                return value
        wanted = f"a number of magnitude at most {np.finfo(dtype).max}"
    else:
        wanted = "no number"
    raise typer.BadParameter(
        f"{parameter.name}: {number} does not fit {dtype.name}, which takes {wanted}.", param_hint="ARGUMENT"
    )


def _loaded(parameter: Parameter, path: str) -> Any:
    """The array of a file."""
    import numpy as np

    if not Path(path).is_file():
        raise typer.BadParameter(f"{parameter.name}={path}: there is no file {path}.", param_hint="ARGUMENT")
    try:
        return np.load(path)
    except (ValueError, EOFError, OSError) as error:
        raise typer.BadParameter(
            f"{parameter.name}={path} cannot be read as an array: {error}", param_hint="ARGUMENT"
        ) from None


def _allocated(parameter: Parameter, dtype: Any, shape: tuple[int, ...], fill: str, seed: int) -> Any:
    """An array, or in words that it is too large for this machine."""
    size = math.prod(shape) * dtype.itemsize
    try:
        if size >= 2**63:
            raise MemoryError
        return _array(parameter, dtype, shape, fill, seed)
    except MemoryError:
        raise typer.BadParameter(
            f"{parameter.name}={dtype.name}[{','.join(map(str, shape))}] asks for {size} bytes, "
            "which this machine does not have free.",
            param_hint="ARGUMENT",
        ) from None


def _array(parameter: Parameter, dtype: Any, shape: tuple[int, ...], fill: str, seed: int) -> Any:
    import numpy as np

    from runtime.simt import empty

    bfloat16 = parameter.letter == "b" and dtype.name == "uint16"
    plain = np.dtype("float32") if bfloat16 else dtype
    match fill:
        case "empty":
            return empty(shape, dtype)
        case "random":
            rng = np.random.default_rng(seed)
            array = rng.random(shape) if plain.kind == "f" else rng.integers(0, 100, shape)
        case "arange":
            array = np.arange(int(np.prod(shape, dtype=np.int64))).reshape(shape)
        case "zeros" | "ones":
            array = np.full(shape, fill == "ones")
        case _:
            number = _number(fill) if re.fullmatch(r"[-+]?\d[\d.e+-]*", fill) else None
            if number is None:
                raise typer.BadParameter(
                    f"{parameter.name}: {fill!r} is none of random, zeros, ones, arange, empty and no number.",
                    param_hint="ARGUMENT",
                )
            array = np.full(shape, _fitting(parameter, plain, number))
    cells = np.ascontiguousarray(array.astype(plain))
    return (cells.view(np.uint32) >> 16).astype(np.uint16) if bfloat16 else cells


# --- Results ------------------------------------------------------------------------------------------------


def summary(title: str, parameters: Sequence[Parameter], given: Sequence[Any], outcome: Outcome, *, check: bool) -> str:
    """What a launch did, one line an array."""
    import numpy as np

    from runtime.simt.report import undefined

    checked = f"{outcome.accesses} accesses checked, no mistake found" if check else "not checked"
    if outcome.undefined_shuffles:
        checked = f"{checked}; {undefined(outcome.undefined_shuffles)}"
    lines = [f"{title}, orders {', '.join(outcome.schedules)}: {checked}"]
    for parameter, array in zip(parameters, given, strict=True):
        if not isinstance(array, np.ndarray):
            continue
        state = "written" if parameter.name in outcome.written else "read only"
        shape = ",".join(map(str, array.shape))
        lines.append(f"  {parameter.name:<12} {array.dtype}[{shape}], {state}{_range(parameter, array)}")
    return "\n".join(lines)


def _range(parameter: Parameter, array: Any) -> str:
    import numpy as np

    values = (array.astype(np.uint32) << 16).view(np.float32) if parameter.letter == "b" else array
    if not values.size or values.dtype.kind not in "fiub":
        return ""
    if values.dtype.kind in "iu":
        return _range_of_integers(values)
    nans = int(np.isnan(values).sum()) if values.dtype.kind == "f" else 0
    if nans == values.size:
        return ", all NaN"
    low, high = (np.nanmin(values), np.nanmax(values)) if nans else (values.min(), values.max())
    return f", {low:g} to {high:g}" + (f", {nans} NaN" if nans else "")


def _range_of_integers(values: Any) -> str:
    """The range of the cells that something was written to, and how many others there are (`runtime.simt.poison`)."""
    import numpy as np

    from runtime.simt import empty

    flat = np.ravel(values, order="K")
    untouched = flat == empty(flat.size, flat.dtype)
    if flat.itemsize == 1:  # its two values are common ones: four cells show it, or none
        whole = untouched[: flat.size // 4 * 4].reshape(-1, 4)
        untouched = np.append(np.repeat(whole.all(axis=1), 4), np.zeros(flat.size % 4, bool))
    count = int(untouched.sum())
    if count == flat.size:
        return ", no cell has a value"
    left = flat[~untouched]
    return f", {left.min():g} to {left.max():g}" + (f", {count} without a value" if count else "")


def _kept(parameters: Sequence[Parameter], given: Sequence[Any], save: Sequence[str]) -> Mapping[Path, Any]:
    """The files to write afterwards, refused before anything runs."""
    import numpy as np

    arrays = {p.name: a for p, a in zip(parameters, given, strict=True) if isinstance(a, np.ndarray)}
    found = {}
    for text in save:
        name, _, path = text.partition("=")
        if name not in arrays or not path.endswith(".npy"):
            raise typer.BadParameter(
                f"{text!r} is no NAME=FILE.npy; arrays: {', '.join(arrays) or 'none'}.", param_hint="--save"
            )
        if not Path(path).resolve().parent.is_dir():
            raise typer.BadParameter(f"there is no folder {Path(path).resolve().parent}.", param_hint="--save")
        found[Path(path)] = arrays[name]
    return found


def _write(kept: Mapping[Path, Any]) -> None:
    import io

    import numpy as np

    from codegen.files import write_atomically

    for path, array in kept.items():
        stream = io.BytesIO()
        np.save(stream, array)
        write_atomically(path, stream.getvalue())
        say(f"{path}: written")
