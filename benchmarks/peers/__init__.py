"""The same task in other queues, for comparison."""
