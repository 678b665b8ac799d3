"""LaDiMo (arXiv 2408.04278): a dense language model becomes a mixture of experts, layer by layer, with few tokens.

The paper leaves open how many experts there are, how they begin, what the router is and which policies it chooses from.
Our readings stand where they are used: `splits`, `construction`, `policy`, `choice`.
"""
