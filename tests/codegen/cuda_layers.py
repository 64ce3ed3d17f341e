"""Layers whose CUDA text is compiled by NVRTC, and the numbers it is made for: (dtype, algorithm)."""

from derive.layers import Conv, Conv1d, Conv2d, Conv3d

LAYERS: dict[str, tuple[Conv, tuple[int, ...]]] = {
    "lenet1": (Conv2d(1, 6, 5, padding=2), (256, 1, 28, 28)),
    "lenet2": (Conv2d(6, 16, 5), (256, 6, 14, 14)),
    "64 channels 3x3": (Conv2d(64, 64, 3, padding=1), (8, 64, 56, 56)),
    "strided": (Conv2d(64, 128, 3, stride=2, padding=1), (8, 64, 56, 56)),
    "stem": (Conv2d(3, 64, 7, stride=2, padding=3, bias=False), (8, 3, 224, 224)),
    "pointwise": (Conv2d(256, 64, 1), (8, 256, 28, 28)),
    "depthwise": (Conv2d(64, 64, 3, padding=1, groups=64), (8, 64, 56, 56)),
    "groups": (Conv2d(64, 64, 3, padding=1, groups=4), (8, 64, 56, 56)),
    "audio": (Conv1d(64, 64, 9, padding=4), (16, 64, 4096)),
    "volume": (Conv3d(8, 16, 3), (2, 8, 16, 16, 16)),
}
NUMBERS = [("float32", "auto"), ("float64", "auto"), ("float16", "auto"), ("bfloat16", "auto"), ("float32", "tf32")]
