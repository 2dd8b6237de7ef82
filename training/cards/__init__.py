"""The models that ship, as pages: a card of each, and one page about all."""
