"""The pose service: REST and gRPC over one batched pipeline."""
