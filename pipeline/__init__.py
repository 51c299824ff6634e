"""One run: config → data → model → optimizer → schedule → training loop → tracking."""
