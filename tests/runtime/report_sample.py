"""What tests of the report share: content with every kind of thing in it, made of formulas, and ways to read a page."""

import base64
import math
import re
from html.parser import HTMLParser

from latex2mathml.converter import convert

from runtime.report import (
    ALL_SIZES,
    THIS_SHAPE,
    CertificateRow,
    EmittedModule,
    Evaluation,
    ExactExecution,
    KernelPicture,
    Milestone,
    MisclassifiedDigit,
    Phase,
    ReportContent,
    TheoremCard,
    TrainingHistory,
    Trusted,
    WeightPicture,
)

EPOCHS = 12

EMITTED = '''"""A convolution, emitted for 28x28 images."""

import numpy as np

EPS = 1e-7  # guards the logarithm


def forward(input, weight, bias=None):
    """Cross-correlation: a < b & c."""
    padded = np.zeros((input.shape[0], 1, 32, 32), dtype=input.dtype)
    padded[:, :, 2:30, 2:30] = input
    columns = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), axis=(2, 3))
    result = np.einsum("bcijrs,ncrs->bnij", columns, weight)
    if bias is not None:
        result += bias[None, :, None, None]
    return result


class ShapeError(ValueError):
    def __str__(self):
        return f"expected {self.args[0]!r}"
'''


def labels(reach: int, n: int = 4) -> list[list[int]]:
    """The n^2 x n^2 matrix of a convolution: equal offsets, equal labels; 0 beyond the reach."""
    pixels = [(i, j) for i in range(n) for j in range(n)]
    width = 2 * n - 1
    return [
        [
            (k - i + n - 1) * width + (m - j + n - 1) + 1 if max(abs(k - i), abs(m - j)) <= reach else 0
            for k, m in pixels
        ]
        for i, j in pixels
    ]


def wave(seed: int, size: int = 5) -> list[list[float]]:
    return [[math.sin(seed + 0.9 * r + 1.7 * c * (seed % 3)) for c in range(size)] for r in range(size)]


def milestones() -> list[Milestone]:
    return [
        Milestone(
            "A dense layer on images",
            "Every output may depend on every pixel, each time with a weight of its own.",
            convert(r"H_{i,j} = U_{i,j} + \sum_{k,l} W_{i,j,k,l} X_{k,l}", display="block"),
            "none",
            "the definition",
            "n⁴ + n²",
            [("n = 4", "272"), ("n = 1000", "1,000,001,000,000")],
        ),
        Milestone(
            "Translation invariance",
            "The weight depends on the offset between the two pixels only.",
            convert(r"H_{i,j} = u + \sum_{a,b} v_{a,b} X_{i+a,j+b}", display="block"),
            "(i, j) is an output index and (i + a, j + b) lies in the input box",
            ALL_SIZES,
            "(2n − 1)² + 1",
            [("n = 4", "50"), ("n = 1000", "3,996,002")],
        ),
        Milestone(
            "Locality",
            "Only pixels near the output matter.",
            convert(r"H_{i,j} = u + \sum_{|a| \leq D} \sum_{|b| \leq D} v_{a,b} X_{i+a,j+b}", display="block"),
            "v is zero unless |a| ≤ D and |b| ≤ D, with D ≤ n − 1",
            ALL_SIZES,
            "(2D + 1)² + 1",
            [("n = 4", "10")],
        ),
    ]


def weight_pictures() -> list[WeightPicture]:
    different = [[16 * row + column + 1 for column in range(16)] for row in range(16)]
    names = [(label, f"v[{a}, {b}]") for label, a, b in ((17, -1, -1), (25, 0, 0), (33, 1, 1))]
    return [
        WeightPicture("Dense", "Every weight is a parameter.", different, block=4),
        WeightPicture("After translation invariance", "Equal offsets share a weight.", labels(3), block=4),
        WeightPicture("After locality", "Offsets beyond 1 have none.", labels(1), names, block=4),
    ]


def theorems() -> list[TheoremCard]:
    steps = (
        "<ol><li><strong>unfold</strong> W; the read lies in its box (Z3)</li><li><strong>reindex</strong></li></ol>"
    )
    statement = convert(r"H_{i,j,d} = u_d + \sum_{c,a,b} v_{d,a,b,c} X_{i+a,j+b,c}")
    return [
        TheoremCard(
            "Dense layer to convolution", ALL_SIZES, "any commutative ring", ["D ≥ 0"], statement, steps, "n, D"
        ),
        TheoremCard(
            "Sigmoid", ALL_SIZES, "reals with elementary functions", [], convert(r"y = \frac{1}{1+e^{-x}}"), ""
        ),
        TheoremCard(
            "Loss of the network", THIS_SHAPE, "reals", ["N ≥ 1"], statement, steps, "any batch", "3 conditions by Z3"
        ),
    ]


def sample() -> ReportContent:
    """A run of 12 epochs with two mistakes, both an 8 taken for a 3."""
    confusion = [[36 if row == column else 0 for column in range(10)] for row in range(10)]
    confusion[8][3], confusion[8][8] = 2, 34
    loss = [2.3 * 0.7**k + 0.04 for k in range(EPOCHS)]
    training = [1 - 0.9 * 0.6**k for k in range(EPOCHS)]
    held_out = [1 - 0.9 * 0.65**k - 0.02 for k in range(EPOCHS)]
    return ReportContent(
        title="LeNet, from a dense layer to a trained network",
        data_source="Optical Recognition of Handwritten Digits, UCI, doi:10.24432/C50P49, CC BY 4.0",
        training_images=1437,
        phases=[
            Phase("derive", 6.21, "3 theorems"),
            Phase("emit", 0.84, "1 module"),
            Phase("train", 45.0, "12 epochs"),
        ],
        milestones=milestones(),
        weight_pictures=weight_pictures(),
        theorems=theorems(),
        modules=[EmittedModule("LeNet for NumPy", EMITTED, "Col[b,c,i,j]  view\nZ[b,n,i,j]   matmul", "Standalone.")],
        executions=[ExactExecution("forward", 120, 1200), ExactExecution("gradients", 40)],
        certificate=[
            CertificateRow("The stages compute the layer", "all sizes", "proved", "0", "the kernel, Z3"),
            CertificateRow("The text computes the stages", "120 of 1,200 cases", "exact", "≤ 10⁻²⁰", "NumPy"),
        ],
        settings=[("learning rate", "0.5"), ("batch", "32")],
        history=TrainingHistory(EPOCHS, loss, [("training images", training), ("held-out images", held_out)]),
        evaluation=Evaluation(
            confusion, [MisclassifiedDigit(wave(4, 28), 8, 3), MisclassifiedDigit(wave(2, 28), 8, 3)]
        ),
        kernels=[
            KernelPicture("First layer", "6 kernels.", [[wave(k)] for k in range(6)]),
            KernelPicture("Second layer", "96 kernels.", [[wave(6 * n + c) for c in range(6)] for n in range(16)]),
        ],
        trusted=[Trusted("Z3", "says that a side condition follows."), Trusted("NumPy", "adds integers exactly.")],
        command="certiconv lenet --seed 0",
        seed=0,
        versions=[("Python", "3.11"), ("NumPy", "2.0")],
        reproduction_notes=["Repeatable to the bit on one machine with one BLAS and number of threads."],
    )


# --- Reading a page back ----------------------------------------------------------------------------------------------

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


class Page(HTMLParser):
    """Reads a page, refusing tags that do not close in order, and keeps what the tests ask about."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"{tag} has an attribute twice"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def every(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def pictures(page: str) -> list[tuple[str, bytes]]:
    """(media type, content) of every picture in the page."""
    found = re.findall(r'<img src="data:([a-z+/]+);base64,([A-Za-z0-9+/=]+)"', page)
    return [(kind, base64.b64decode(content, validate=True)) for kind, content in found]


def contrast(first: str, second: str) -> float:
    """WCAG 2.2's contrast ratio of two colours `#rrggbb`."""

    def luminance(colour: str) -> float:
        parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted([luminance(first), luminance(second)])
    return (high + 0.05) / (low + 0.05)
