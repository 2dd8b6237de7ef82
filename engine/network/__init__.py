"""The network and its exact rewriting: AWSRN, its checkpoints, folding, and the whole frame as one graph."""
