"""What joins fronts and engine: shared memory for arrays, small messages for the rest.

`arena` books space in a shared segment, `segment` is the memory, `arrays` packs numpy
into it, `messages` are what is said, `channel` frames them on a Unix socket; `remote`
is the front's end (an Engine that is elsewhere), `served` the engine's. No pickle.
"""
