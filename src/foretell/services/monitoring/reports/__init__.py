"""Reports for operators: current state and history, added up over all instances."""
