"""What engines share, in NumPy: the descent, groups and canvases, weights, schedules, checkpoints, stitching.

An engine adds its own physics, layers and devices. Whatever two engines would have to write alike stands here once, so
that they name, refuse, count, step and save alike. Engines may import this package, ``physics``, ``data``, ``config``,
``runtime``, ``errors``, ``protocol``, ``generators``, ``bundle`` and ``io.atomic``; the rest is the host's.
"""
