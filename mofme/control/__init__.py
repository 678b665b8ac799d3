"""SMOSE (arXiv 2412.13053): a robot is driven by one linear expert at a time, so that a person can read the policy."""
