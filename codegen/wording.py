"""The definition of a stage as a comment above the text that computes it."""

from __future__ import annotations

import re
import textwrap

from codegen.plan import Stage


def formula(stage: Stage) -> str:
    """The definition of a stage as a comment: its letters for variables, sums and guards written out."""
    names = stage.names

    def letters(text: str) -> str:
        return re.sub(r"\$(\d+)", lambda m: names[int(m.group(1))], text)

    at = ", ".join(names[: stage.tensor.rank])
    body = re.sub(r"\bSum\{([^}]*)\}", lambda m: f"Sum{{{_bounds(m.group(1))}}} ", letters(stage.body.text))
    body = re.sub(r"(\[[^\]]*==[^\]]*\])\*?", r"\1 ", body).replace("} *", "} ").replace(" + -1*", " - ")
    body = re.sub(r"\[1 \| [^\]]*\]\*?", "", body)  # everything is a multiple of 1
    body = re.sub(r"(?<![\w)\]])-1\*", "-", body)
    body = re.sub(r"\} *(?=[)+]|$)", "} 1", body)  # a sum of nothing but ones
    return f"{stage.name}[{at}] = {re.sub(r'  +', ' ', body)}"


def _bounds(text: str) -> str:
    return ", ".join(re.sub(r"^0<=(\w+)<(.*)$", r"\1<\2", part) for part in text.split(","))


def wrapped(text: str, width: int = 110) -> list[str]:
    """A definition in lines of a comment."""
    return textwrap.wrap(text, width, subsequent_indent="    ", break_long_words=False)
