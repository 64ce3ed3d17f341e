"""Formulas and derivations as a reader sees them: plain text, LaTeX, HTML with MathML, and JSON for programs.

Terms hold no names for variables; ``names`` chooses them.  ``formula`` turns a term into pieces of notation, and each
notation (``text``, ``latex``, ``html``) says only how its own pieces look.  ``record`` is what a theorem and a file
of one have in common, ``json`` writes and reads it, and ``steps`` explains it step by step.  Nothing here is trusted
and nothing here makes a theorem.
"""
