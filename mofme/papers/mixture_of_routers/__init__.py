"""Mixture of Routers (arXiv 2503.23362): several sub-routers under a main router choose among LoRA experts.

Its claim: as a plug-in for mixtures of LoRA experts they gain about 1 % on average over a single router.

The paper leaves open what its routers see and how large the banks are. Our reading, as MixLoRA and MoLA do: beside each
wrapped layer a bank of 8 experts of rank 8, alpha 16, dropout .05, two a token, and a router of its own that sees what
the layer sees. We add a control: a wide router with as many parameters as the mixture has.

    python -m mofme evaluate mixture-of-routers texts.csv --arms runs/lora
"""
