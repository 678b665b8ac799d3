"""LaDiMo (arXiv 2408.04278): a dense language model becomes a mixture of experts, layer by layer, with few tokens.

The paper leaves open how many experts there are, how they begin, what the router is and which policies it chooses from.
Our readings stand where they are used: how neurons become experts in `splits`, which of them a token visits in
`converted_layer`, what a layer learns in `layer_training`, and how many it can do without in `policies`.

    python -m mofme moefy smollm2 --text text.txt --out converted
    python -m mofme evaluate dense-to-moe smollm2 --text text.txt --questions arc.jsonl --arms arms
"""
