"""Kernels in CUDA C++ on a CPU, raced and bounds-checked: no GPU, no CUDA, only g++ on x86-64 Linux.

`launch` compiles a text as it is and runs a kernel of it on NumPy arrays; `compile` keeps the program for many
launches.  A mistake is a `SimtError` with both lines, both threads and the array.

How it works: every CUDA thread is a fibre, blocks run one after another, and each memory access calls a hook of
ours, since g++ instruments the text with -fsanitize=thread while nothing of its run-time library is linked.  The
hooks know CUDA's rules (executor/shadow.h): what a barrier, a ``__syncwarp`` and an atomic order, and that nothing
orders two blocks.  They see every access that a run makes, so a kernel whose addresses, branches and barriers do not
depend on data is checked exhaustively at its shape.

What it does not see:

- speed, bank conflicts and coalescing;
- limits of registers and of resident blocks, and a ``__launch_bounds__`` that is more than a product of numbers and of
  names with one value, or that hangs on a template's arguments (others hold: a block with more threads is refused);
- faults of nvcc;
- reordering by the memory model, and what fences do: a flag that one block sets for another is a race here, with or
  without ``__threadfence``;
- a GPU's rounding of fused multiply-adds, of fast functions such as ``__expf`` and of sums in tensor cores; that
  subnormal numbers are zero there to float32 arithmetic, where a text is compiled with ``-ftz=true`` (CuPy does so);
- an index that leaves a buffer by more than 32 GiB, which may reach another one;
- the alignment of a shared array on a GPU: its place is another here, so a cast to a wider vector is only judged
  relative to the array's start;
- the bounds of variables of the program (``__device__``), which are checked for races only, and what they hold at the
  end;
- shifts by a negative number or by the width or more, which do what this CPU does;
- registers and local arrays that nothing was written to: what they hold here is not checked, and differs on a GPU;
- what depends on an undefined result of a shuffle, one that reads a lane that ended or is not in the mask, but for
  this: such values differ from one order to the next, so that most results which depend on them are ``order-dependent``
  (where there are two orders, and no floating-point atomics), a value that is stored in an argument's array as it is,
  in four bytes or more, is ``shuffle-mask``, and `Outcome.undefined_shuffles` counts them all;
- overflow in a thread that was given such a value, or read it from another lane, until its block ends;
- with ``check=False``, anything but what the hardware sees and results that depend on the order; barriers are not
  compared then, and two shuffles or votes on one line, or in one helper, are taken for the same.

Where it is stricter than a GPU:

- two threads that write the same value race;
- a read that is not atomic races with another thread's atomic, ``volatile`` or not: so does the first read of the loop
  over ``atomicCAS`` that CUDA's guide has for ``atomicAdd`` of doubles; ``atomicCAS(address, 0, 0)`` reads without one;
- ``tile[0][i]`` must stay within the first row;
- all threads come to a barrier, and all lanes of a mask to a vote, a shuffle or a matrix product, by the same calls:
  two branches that each call a helper which holds one do not meet there, and two on one line are two (that g++
  neither copies nor merges calls rests on its flags, `runtime.simt.toolchain`);
- threads that have returned do not count as having reached a barrier;
- ``__activemask`` names all lanes that have not returned;
- blocks do not run at once: one that waits for a later one ends by the timeout.
"""

from runtime.simt.errors import KINDS, LaunchError, SimtCompileError, SimtError, SimtUnavailable, Site
from runtime.simt.grid import SCHEDULES
from runtime.simt.modules import on_cpu
from runtime.simt.poison import empty
from runtime.simt.program import Options, Outcome, Program, compile, launch  # noqa: A004 - as runtime.compile

__all__ = [
    "KINDS",
    "SCHEDULES",
    "LaunchError",
    "Options",
    "Outcome",
    "Program",
    "SimtCompileError",
    "SimtError",
    "SimtUnavailable",
    "Site",
    "compile",
    "empty",
    "launch",
    "on_cpu",
]
