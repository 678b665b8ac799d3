"""Mixture of Routers (arXiv 2503.23362) where the paper uses it: on banks of LoRA experts beside frozen linear layers.

The paper leaves open what its routers see and how large the banks are; our readings stand in `bank`.
"""
