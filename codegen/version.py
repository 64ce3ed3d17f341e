"""The version that emitted text names as its maker; the same as that of the distribution, which a test compares."""

VERSION = "0.1.0"
