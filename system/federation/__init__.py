"""Federated runs: many clients with data of their own, one model."""
