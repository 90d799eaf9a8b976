"""What runs where a federated client's data are, and the contract of a client, a task and data of one's own."""

from .client import FederatedClient, FederatedTask, LocalModel, LocalWork, Model, Silo

__all__ = ["FederatedClient", "FederatedTask", "LocalModel", "LocalWork", "Model", "Silo"]
