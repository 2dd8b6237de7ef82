"""What is done before a release: `make release-check`, `make audit` and `make licenses`."""
