"""Yuan 2.0-M32's attention router (arXiv 2405.17976) in small language models, beside linear and two-layer ones.

Its claim: a router that accounts for the correlation between experts selects them better than a linear one.

Our readings: the router itself stands in `core/routers.py`; a two-layer router of as many parameters is a control; no
loads are balanced unless all arms are.

    python -m mofme evaluate attention-router --text text.txt --arms runs/attention
"""
