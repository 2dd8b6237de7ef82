"""The paper's tables and figures, and what was measured beside them."""
