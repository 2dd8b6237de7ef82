"""Who may do what: bearer tokens, JWT, scopes and signed HLS paths."""
