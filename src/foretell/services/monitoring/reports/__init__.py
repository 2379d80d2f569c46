"""What the operator is shown: how things are and how they went, added up over all instances."""
