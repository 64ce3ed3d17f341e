"""What a text computes in: types of numbers, and the instructions of tensor cores that multiply them."""

from __future__ import annotations

from dataclasses import dataclass

from codegen.templates.cuda.tiling import HALVES, TF32, TILES, AnyTile, fitting


@dataclass(frozen=True)
class Tensor:
    """An instruction of tensor cores: the function that stands for it, its name in PTX, and how many terms it sums."""

    name: str
    instruction: str
    terms: int


@dataclass(frozen=True)
class Numbers:
    """What a text computes in: the C types of what is stored and of sums, their NumPy names, and what products use.

    ``itemsize``: the bytes of a sum.
    """

    real: str
    sum: str
    sum_dtype: str
    itemsize: int
    tiles: tuple[AnyTile, ...] = TILES
    header: str = ""
    tensor: Tensor | None = None

    @property
    def stored(self) -> int:
        """The bytes of what is stored."""
        return 2 if self.header else self.itemsize

    @property
    def fitting(self) -> dict[str, AnyTile]:
        """The tiles that a product may use, by name."""
        return {tile.name: tile for tile in fitting(self.tiles, self.itemsize)}


def _halves(kind: str) -> Tensor:
    return Tensor(f"certiconv_mma_m16n8k16_{kind}", f"m16n8k16.row.col.f32.{kind}.{kind}.f32", 16)


NUMBERS = {
    "float32": Numbers("float", "float", "float32", 4),
    "float64": Numbers("double", "double", "float64", 8),
    "float16": Numbers("__half", "float", "float32", 4, HALVES, "cuda_fp16.h", _halves("f16")),
    "bfloat16": Numbers("__nv_bfloat16", "float", "float32", 4, HALVES, "cuda_bf16.h", _halves("bf16")),
    "tf32": Numbers(
        "float", "float", "float32", 4, TF32, "",
        Tensor("certiconv_mma_m16n8k8_tf32", "m16n8k8.row.col.f32.tf32.tf32.f32", 8),
    ),
}  # fmt: skip
"""By dtype; "tf32" is float32 with products on tensor cores, which round their factors to 11 bits."""
