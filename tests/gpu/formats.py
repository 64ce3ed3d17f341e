"""What a format of numbers does to a result that is known: how it is stored, and how sums in tensor cores round."""

from fractions import Fraction
from typing import Any

import numpy as np

from codegen.rounding import Precision

# Products of factors in float16, bfloat16 or TF32 are exact in float32.  A tensor core lines terms up with the largest
# of them and truncates what lies beyond float32's last bits, so each addition may be off by twice what rounding to
# the nearest is (Fasi, Higham, Mikaitis and Pranesh 2021, "Numerical behavior of NVIDIA tensor cores"); once more for
# the truncated sum.  Trusted, as a GPU's documentation does not say it.  What CuPy compiles flushes subnormal numbers.
CORES = Precision("sums in tensor cores", Fraction(1, 2**22), Fraction(1, 2**126), flushes=True)

# Of a sum in float32 that is stored in fewer bits: the unit roundoff, and half of the smallest number above zero.
STORING = {"float16": (2.0**-11, 2.0**-25), "bfloat16": (2.0**-8, 2.0**-134)}


def stored(exact: Any, dtype: Any) -> Any:
    """Integers below 2^53 as an array of this dtype holds them, seen in float64."""
    return np.asarray(exact).astype(np.float64).astype(dtype).astype(np.float64)
