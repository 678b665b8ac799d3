"""Test-time re-routing, R2-T2 (arXiv 2502.20395): experts as they served pictures, or questions, like this one.

Its claim: moving a sample's routing towards that of its solved neighbours improves a frozen mixture, about half as much
as knowing the answer would.

A reference set of synthesized pairs that the net solved is kept as numbers: where each lies in the net's own features,
how it was routed, and the step by which gradient descent would have routed it better. Our readings for pictures: the
net's own encoder embeds them, and every tile of a picture is shifted by the same, so that no seams show.

    python -m mofme build-references photos/ --out references --pairs
    python -m mofme evaluate rerouting pictures photos/ --references references --work runs/rerouting
    python -m mofme evaluate rerouting text converted/ --pool train.jsonl --test test.jsonl --work runs/rerouting
"""
