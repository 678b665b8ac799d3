"""MoFME (AAAI 2024, arXiv 2312.16610): what experts and their routers do for the picture, at equal training.

The method itself is the product's: `core/uncertainty.py` (the router), `core/experts.py` (modulated features) and
`vision/nets/`. Here it is taken apart: the same net with other feed-forwards, other routers and no mixture at all.

    python -m mofme evaluate ablation photos/ --arms runs/ablation --out assets/results
    python -m mofme evaluate routers photos/ --arms runs/ablation --out assets/results
"""
