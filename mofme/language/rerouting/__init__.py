"""Test-time re-routing (R2-T2, arXiv 2502.20395) of a language model that answers multiple-choice questions."""
