"""BinaryConnect (arXiv 1511.00363): a net works with weights of one bit, and learns with real ones.

The claim: they regularise; permutation-invariant MNIST at 1.29 % (deterministic) and 1.18 % (stochastic) test error,
against 1.30 % without a regulariser. `core/binary.py` is the method; here are the paper's net for digits, Algorithm 1,
what we measured of it, and of a restorer with such weights (`restorer_experiment`).

    python -m mofme binary train mnist.npz --runs runs/
    python -m mofme binary evaluate mnist.npz --runs runs/
    python -m mofme binary restorer photographs/
"""
