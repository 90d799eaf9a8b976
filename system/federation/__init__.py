"""What a federated run adds to a run: the server, its model, its spool, its tasks and its clients."""
