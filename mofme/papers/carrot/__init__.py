"""CARROT (arXiv 2502.03261): which of several language models to ask, prompt by prompt.

Claim: estimating each model's quality and cost for a prompt and letting the plug-in rule choose beats other routers,
comes near the best single model at a fraction of its cost, and learns at the best possible rate.

Our readings: prompts are embedded by MiniLM, without their worked examples; the paper's estimator is nearest
neighbours with a k for each model, of quality and of cost. What ships is ours: quality by a stacked ensemble of nearest
neighbours, ridge regression, a network and task means, cost from the prompt's length. Prompts that are near-duplicates
never stand on both sides of a split; a control knows each task's means and nothing else.

`carrot` is the paper on one page. What it learns with: `estimators`, `ensemble`. What it is held against: `baselines`,
`preference`, `curve`, `comparison`, `within_task`; the rate: `simulation`. In use: `trained_router`, `serving`.

    python -m mofme route "a prompt" --budget 0.001        python -m mofme route train TABLE --out FOLDER
    python -m mofme route evaluate TABLE...                 python -m mofme route simulate
"""
