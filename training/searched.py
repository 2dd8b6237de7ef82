"""Systems of table 5 that were found by a search.

Their papers say what was searched; what was found is there as a drawing or a frozen graph only, so that no
network here could be held to them.
"""

SEARCHED = ("falsr-a", "falsr-b", "falsr-c", "moremnas-a")
