"""A mixture of experts teaches a smaller model, in six ways: Every Expert Matters (arXiv 2502.12947)."""
