"""SMOSE (arXiv 2412.13053): a robot is driven by one linear expert at a time, so that a person can read the policy.

The claim: on MuJoCo's robots such a policy earns nearly what a black box earns. `policy` is the mixture and its file,
`sac` how it learns (soft actor-critic), `training` the run, `trees` what explains it, `experiment` what we measured.

Our readings: the noise of the balance loss stays inside that loss; observations are standardised while it learns; the
batch is half of the paper's.

    python -m mofme control train Hopper --out runs/hopper
    python -m mofme control evaluate runs/
    python -m mofme control explain runs/hopper --picture tree.svg
"""
