"""DSC, "How Robust Are Router-LLMs?" (arXiv 2504.07113): where routers between two models go wrong.

Claim: routers trained on preferences decide by category instead of difficulty, send jailbreaks to weak models, and
leave private data and backdoors unexamined.

Our readings: the paper's counts, sources and tables are not public, so the prompts come from open sets and from our own
(`probes`), and what is measured and how is ours, each claim with its criterion (`claim`). `routers` are under test;
`assessment` probes them by category, difficulty, rewording and waste; `safety`, and poisoned data in `routers`, measure
what goes wrong; `experiment` does all of it for one table. R routers, W rewordings, N probes.

    python -m mofme route robustness --queries FOLDER --table TABLE
"""
