"""A table, a robot arm and fourteen things to do: episodes to learn perception from.

Scripted experts of Meta-World act in MuJoCo; camera, colours, light, background and distractors
are drawn anew for every episode, and the places of the objects in the test set never occur in the
training set. Episodes leave as LeRobot v3.0 folders.

    plan, families, instructions, layouts, nuisances, patterns, camera,
    wandering                                                            numbers and words only
    recorder, tables, video, summaries, world                            LeRobot's format
    simulator, stage, episodes, reaching                                 Meta-World and MuJoCo
    generate; report, with dataset, probes and sheet; live               the three commands

Nothing here knows Tectum, and Tectum knows of this room only the folders that it writes.
"""

GENERATOR_VERSION = "1.1.0"
"""Changes whenever the same seed would give other episodes."""
