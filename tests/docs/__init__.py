"""The documentation: pages that are generated, and what holds in all of them."""
