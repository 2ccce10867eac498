"""Going on from an image: one descent for every engine, fed by the engine's own gradients (specs/30, BE-16 to BE-18).

An engine answers one question: what is the loss of these frames, and its gradient in object, probe and positions? It
answers with its own physics, on its own device. What is done with the answers stands here once, in NumPy: the order of
frames, the steps, when to stop, what to keep. So engines differ in how they compute, and not in what they find.
"""
