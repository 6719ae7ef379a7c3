"""How a method came to its answer, drawn step by step: one file a method, and one for what follows all of them.

A step is drawn from what the method itself computes, by the same calls; the last one is its answer.
"""
