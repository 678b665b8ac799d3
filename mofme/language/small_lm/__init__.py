"""A small language model, trained from scratch in minutes, whose feed-forwards are dense or mixtures of experts."""
