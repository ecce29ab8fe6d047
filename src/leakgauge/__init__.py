"""leakgauge: how much of a client's private data can be rebuilt from what it shares in federated learning."""
