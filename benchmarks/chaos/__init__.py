"""Faults in the middle of rollouts, on a fleet of the testbed."""
