"""From a stage to text, one package for each language."""
