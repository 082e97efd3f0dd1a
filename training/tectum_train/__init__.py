"""Training: recipes in, bundles out.

Rooms: `recipe` (what to do, strict), `data` (where it comes from), `objectives` (what is
learnt, one file each), `engine` (the loop, checkpoints, progress), `evaluation` (what it
is worth, with controls), `export` (the bundle). Knows the model core, never the wire.
"""
