"""How the training settings were chosen: accuracy on parts of the training images, never on the held-out ones.

    python -m tests.benchmarks.settings [--settings 0.5,16,60 0.5,32,30 ...]

Each setting is a learning rate, a batch size and a number of epochs.  The training images are cut into five parts; for
each, a network is trained on the other four (seed k for part k) and its accuracy on that part is printed.
"""

from __future__ import annotations

import argparse
import statistics

import derive
from runtime.data import load_digits, standardise, validation_split
from runtime.network import Network
from runtime.train import Settings, train

PARTS = 5


def accuracy(settings: Settings, part: int) -> float:
    """The accuracy on one part of the training images, after training on the others."""
    digits = standardise(validation_split(load_digits(), parts=PARTS, part=part))
    network = Network(derive.lenet(), seed=settings.seed)
    train(network, digits, settings)
    return network.accuracy(digits.test_images.astype("float32"), digits.test_labels)


def main() -> None:
    """Print a line for each setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", nargs="+", default=["0.5,16,60", "0.5,32,30"])
    for text in parser.parse_args().settings:
        lr, batch, epochs = text.split(",")
        found = [
            accuracy(Settings(lr=float(lr), batch=int(batch), epochs=int(epochs), seed=k), k) for k in range(PARTS)
        ]
        shown = " ".join(f"{a:.4f}" for a in found)
        print(f"lr {lr} batch {batch} epochs {epochs}: {shown}  median {statistics.median(found):.4f}", flush=True)


if __name__ == "__main__":
    main()
