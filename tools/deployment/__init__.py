"""What `make deploy-check`, `make image-check` and `make release-check` are made of."""
