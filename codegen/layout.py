"""How the images of a call lie in memory: rows of an image contiguous, or the channels of each position.

Shapes are (batch, channels, spatial axes...) in both; only the strides differ.  A name that comes from a user becomes a
``Layout`` in ``named``, and is one from there on.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Literal, get_args

Layout = Literal["channels_first", "channels_last"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
FIRST: Layout = "channels_first"
LAST: Layout = "channels_last"


def named(name: str) -> Layout:
    """The layout of that name; ValueError where there is none, with the one that is spelled most like it.

    >>> named("channels_last")
    'channels_last'
    >>> named("NHWC")
    Traceback (most recent call last):
    ValueError: layout='NHWC': it has to be one of 'channels_first', 'channels_last'; nearest legal: 'channels_last'
    """
    for layout in LAYOUTS:
        if layout == name:
            return layout
    near = next(iter(get_close_matches(name, LAYOUTS, n=1, cutoff=0)), FIRST)
    raise ValueError(f"layout={name!r}: it has to be one of {', '.join(map(repr, LAYOUTS))}; nearest legal: {near!r}")


__all__ = ["FIRST", "LAST", "LAYOUTS", "Layout", "named"]
