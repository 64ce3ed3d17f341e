"""What was found, as a table for people and JSON for programs, with the device, the driver and every version."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from runtime.gpu_timing import Samples
from tests.benchmarks.gpu.contestants import OURS
from tests.benchmarks.gpu.roof import COPY, Rates

NO_MEASUREMENT = (
    "**Not a measurement.** No GPU was used: the kernels ran on a CPU (runtime.simt), at tiny shapes, and the clock "
    "counts launches, and one more for the end of a sample. This shows that the script runs."
)

WRONG = "wrong: "  # why a contestant was left out: its result


@dataclass(frozen=True)
class Row:
    """One case: samples by contestant, the least time by the roof, and why a contestant is missing."""

    name: str
    samples: dict[str, Samples]
    bound: float | None = None
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """Our time over the best of PyTorch's; None where one of the two is missing."""
        others = [s.median for name, s in self.samples.items() if not name.startswith(OURS)]
        ours = [s.median for name, s in self.samples.items() if name.startswith(OURS)]
        return min(ours) / min(others) if ours and others else None


@dataclass(frozen=True)
class Report:
    """Everything that a run found; ``real`` is whether a GPU was measured."""

    machine: dict[str, str]
    settings: dict[str, Any]
    rates: Rates
    layers: list[Row]
    steps: list[Row]
    real: bool
    passes: list[Row] = field(default_factory=list)

    def to_markdown(self) -> str:
        """The tables."""
        lines = [f"# Emitted CUDA beside PyTorch, {self.machine['date']}", ""]
        lines += [] if self.real else [NO_MEASUREMENT, ""]
        lines += [f"- {key}: {value}" for key, value in {**self.machine, **self.settings}.items() if key != "date"]
        lines += ["", *self._roof(), "", *self._table("layer, result, numbers", self.layers)]
        lines += ["", *self._table("pool or activation, result, numbers", self.passes)]
        lines += ["", *self._table("training step of LeNet, float32", self.steps)]
        reasons = [f"- {row.name}: {who}: {why}" for row in self.rows for who, why in row.missing.items()]
        lines += ["", "Not run:", "", *reasons] if reasons else []
        return "\n".join(lines) + "\n"

    @property
    def rows(self) -> list[Row]:
        """All rows."""
        return self.layers + self.passes + self.steps

    @property
    def unit(self) -> str:
        """What the samples count; the stand-in counts the event that ends a sample as a launch."""
        return "ms" if self.real else "launches + 1"

    @property
    def wrong(self) -> list[str]:
        """Who gave a wrong result for what."""
        return [f"{row.name}: {why}" for row in self.rows for why in row.missing.values() if why.startswith(WRONG)]

    def _roof(self) -> list[str]:
        if not self.real:
            return ["Roof: not a measurement."]
        told = [f"copy {self.rates[COPY] / 1e12:.3g} TB/s"]
        told += [f"product in {key} {rate / 1e12:.4g} TFLOP/s" for key, rate in self.rates.items() if key != COPY]
        return [f"Roof: {'; '.join(told)}."]

    def _table(self, title: str, rows: list[Row]) -> list[str]:
        """Medians with quartiles, the ratio to PyTorch's best, and the share of the roof."""
        names = list(dict.fromkeys(name for row in rows for name in row.samples))
        mark = "" if self.real else " (not a measurement)"
        head = [f"{title}{mark}", *(f"{name} {self.unit}" for name in names), "ratio", "roof"]
        lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        for row in rows:
            cells = [_cell(row.samples.get(name)) for name in names]
            share = None if row.bound is None or OURS not in row.samples else row.bound / row.samples[OURS].median
            figures = ["" if row.ratio is None else f"{row.ratio:.2f}", "" if share is None else f"{share:.0%}"]
            lines.append(f"| {' | '.join([row.name, *cells, *(figures if self.real else ('', ''))])} |")
        return lines

    def to_json(self) -> str:
        """Every sample."""
        return (
            json.dumps(
                {
                    "measurement": self.real,
                    "machine": self.machine,
                    "settings": self.settings,
                    "rates": self.rates,
                    "layers": [_row(row, self.unit) for row in self.layers],
                    "passes": [_row(row, self.unit) for row in self.passes],
                    "steps": [_row(row, self.unit) for row in self.steps],
                },
                indent=1,
            )
            + "\n"
        )


def _cell(samples: Samples | None) -> str:
    if samples is None:
        return ""
    low, high = samples.quartiles
    return f"{samples.median:.4g} ({low:.4g}-{high:.4g})"


def _row(row: Row, unit: str) -> dict[str, Any]:
    samples = {name: list(s.values) for name, s in row.samples.items()}
    medians = {name: s.median for name, s in row.samples.items()}
    return {
        "name": row.name,
        "unit": unit,
        "median": medians,
        "ratio": row.ratio,
        "least_ms": row.bound if unit == "ms" else None,
        "samples": samples,
        "missing": row.missing,
    }
