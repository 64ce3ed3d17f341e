"""Emitted text as a module, by itself: text that is kept somewhere is loaded without what prints it.

Exact execution uses the same ``load`` with another meaning for rational constants.
"""

from __future__ import annotations

import hashlib
import linecache
from collections.abc import Callable
from types import ModuleType
from typing import Any


def load(source: str, name: str = "emitted", *, ratio: Callable[[int, int, Any], Any] | None = None) -> ModuleType:
    """Execute the text as a module; tracebacks show its lines, ``__source__`` is all of it.

    ``ratio`` replaces how constants are made.
    """
    path = f"<{name} {hashlib.sha256(source.encode()).hexdigest()[:12]}>"
    linecache.cache[path] = (len(source), None, source.splitlines(keepends=True), path)
    module = ModuleType(name)
    module.__file__ = path
    module.__dict__["__source__"] = source
    exec(compile(source, path, "exec"), module.__dict__)  # this is what the text is for
    if ratio is not None:
        module.__dict__["ratio"] = ratio
    return module
