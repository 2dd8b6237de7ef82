"""Tables, plots and crops."""
