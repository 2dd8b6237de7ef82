"""Whole files and images, with no live service around them."""
