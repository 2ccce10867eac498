"""What every engine with a network does alike, in NumPy: weights, schedules, the rules of training and inference.

An engine adds its framework's layers, gradients and devices. Whatever two engines would have to write alike stands here
once, so that they name, refuse, count and save alike.
"""
