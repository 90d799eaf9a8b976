"""Federations: a global model, clients with data of their own, and the server between them."""
