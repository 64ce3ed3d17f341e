"""What a theorem rests on: the files that make or refuse one, and the definitions it speaks of.

README, derivations and certificates quote this list, and a test compares it with what ``derive.kernel`` and
``derive.layers`` import.
"""

CORE = ("indices", "terms", "wellformed", "calculus", "obligations", "rules", "solver", "kernel")
DEFINITIONS = ("layers", "applied", "legality")

KERNEL = "the proof kernel: derive." + ", ".join(CORE)
LAYERS = "the definitions of layers and loss in derive." + ", ".join(DEFINITIONS)
