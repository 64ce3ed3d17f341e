"""How the images of a call lie in memory: rows of an image contiguous, or the channels of each position.

Shapes are (batch, channels, spatial axes...) in both; only the strides differ.  A name that comes from a user becomes a
``Layout`` in ``named``, and is one from there on.
"""

from __future__ import annotations

from typing import Literal, get_args

Layout = Literal["channels_first", "channels_last"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
FIRST: Layout = "channels_first"
LAST: Layout = "channels_last"


def named(name: str) -> Layout:
    """The layout of that name; ValueError where there is none.

    >>> named("channels_last")
    'channels_last'
    >>> named("NHWC")
    Traceback (most recent call last):
    ValueError: layout='NHWC': it has to be one of 'channels_first', 'channels_last'
    """
    for layout in LAYOUTS:
        if layout == name:
            return layout
    raise ValueError(f"layout={name!r}: it has to be one of {', '.join(map(repr, LAYOUTS))}")


__all__ = ["FIRST", "LAST", "LAYOUTS", "Layout", "named"]
