"""What `make deploy-check`, `make compose-check` and `make release-check` are made of."""
