"""Shared parts of `make deploy-check`, `make compose-check` and `make release-check`."""
