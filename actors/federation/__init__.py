"""What runs where a federated client's data are."""
