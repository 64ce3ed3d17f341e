"""Layers from the options of a command: which options a kind of layer takes, and the layer with those given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from derive.layers import Layer

CLASSES = {
    "conv1d": "Conv1d",
    "conv2d": "Conv2d",
    "conv3d": "Conv3d",
    "avgpool1d": "AvgPool1d",
    "avgpool2d": "AvgPool2d",
    "avgpool3d": "AvgPool3d",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "relu": "ReLU",
    "flatten": "Flatten",
    "linear": "Linear",
    "cross-entropy": "CrossEntropyLoss",
}
CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
POOLS = ("avgpool1d", "avgpool2d", "avgpool3d")
ACTIVATIONS = ("sigmoid", "tanh", "relu")
EMITTED = (*CONVOLUTIONS, *POOLS, *ACTIVATIONS, "linear", "lenet")

InFeatures = Annotated[int | None, typer.Option("--in-features", help="Features of a dense layer's input.")]
OutFeatures = Annotated[int | None, typer.Option("--out-features", help="Features of its output.")]
InChannels = Annotated[int | None, typer.Option("--in-channels", help="Channels of the input.")]
OutChannels = Annotated[int | None, typer.Option("--out-channels", help="Channels of the output.")]
KernelSize = Annotated[
    str | None, typer.Option("--kernel-size", metavar="K[,K...]", help="One number, or one an axis.")
]
Stride = Annotated[str | None, typer.Option("--stride", metavar="S[,S...]", help="1 unless given; K for a pool.")]
Padding = Annotated[str | None, typer.Option("--padding", metavar="P[,P...]", help="Zeros before and after; 0.")]
Dilation = Annotated[str | None, typer.Option("--dilation", metavar="D[,D...]", help="1 unless given.")]
Groups = Annotated[int | None, typer.Option("--groups", help="1 unless given; --in-channels for depthwise.")]
NoBias = Annotated[bool, typer.Option("--no-bias", help="A layer without a bias.")]
Input = Annotated[str | None, typer.Option("--input", metavar="N,C,H,W", help="Shape of the input, batch first.")]


def one_of(argument: str, value: str, legal: Sequence[str]) -> str:
    """A value that is one of the legal ones, or bad usage."""
    if value not in legal:
        raise typer.BadParameter(f"{value!r} is not one of {', '.join(legal)}.", param_hint=argument)
    return value


def sizes(option: str, text: str) -> tuple[int, ...]:
    """Numbers between commas, or bad usage."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a list of integers such as 8,6,14,14.", param_hint=option) from None


def _dims(option: str, text: str | None) -> int | tuple[int, ...] | None:
    found = None if text is None else sizes(option, text)
    return found[0] if found is not None and len(found) == 1 else found


def options(**given: Any) -> dict[str, Any]:
    """The arguments of a layer that were given, named as ``torch.nn`` names them."""
    for name in ("kernel_size", "stride", "padding", "dilation"):
        given[name] = _dims(f"--{name.replace('_', '-')}", given[name])
    given["bias"] = False if given.pop("no_bias") else None
    return {name: value for name, value in given.items() if value is not None}


def _arguments(kind: str, *, open_sizes: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The arguments that a layer of a kind needs, and those it may be given besides.

    ``open_sizes``: a dense layer has symbols for its sizes, so it takes none.
    """
    if kind in CONVOLUTIONS:
        return ("in_channels", "out_channels", "kernel_size"), ("stride", "padding", "dilation", "groups", "bias")
    if kind == "linear" and not open_sizes:
        return ("in_features", "out_features"), ("bias",)
    return (("kernel_size",), ("stride",)) if kind in POOLS else ((), ())


def make_layer(kind: str, given: dict[str, Any], *, open_sizes: bool = False) -> Layer:
    """The layer of a kind with these arguments; bad usage where one is missing or has no place there."""
    from derive import layers

    needed, optional = _arguments(kind, open_sizes=open_sizes)
    for name in needed:
        if name not in given:
            raise typer.BadParameter(f"{kind} needs it.", param_hint=f"--{name.replace('_', '-')}")
    for name in given:
        if name not in (*needed, *optional):
            option = "--no-bias" if name == "bias" else f"--{name.replace('_', '-')}"
            raise typer.BadParameter(f"{kind} does not take it.", param_hint=option)
    if kind == "lenet":
        return layers.lenet()
    if kind == "linear" and open_sizes:
        from derive.indices import symbol

        return layers.Linear(symbol("K"), symbol("M"))
    layer: Layer = getattr(layers, CLASSES[kind])(**given)
    return layer


def symbols(kind: str, given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a layer of any size, but for those that were given."""
    if kind in POOLS:
        return {"kernel_size": 2, **given}
    if kind not in CONVOLUTIONS:
        return given
    from derive import layers

    free, _ = layers.symbolic(getattr(layers, CLASSES[kind]))
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation")
    return {**{name: getattr(free, name) for name in names}, **_multiples(given), **given}


def _multiples(given: dict[str, Any]) -> dict[str, Any]:
    """Open numbers of channels in these groups: so many times those of a group."""
    if given.get("groups", 1) == 1:
        return {}
    from derive.indices import symbol

    return {"in_channels": symbol("Cg") * given["groups"], "out_channels": symbol("Og") * given["groups"]}
