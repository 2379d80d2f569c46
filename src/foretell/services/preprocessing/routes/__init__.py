"""The routes of the preprocessing service, a file for each noun."""
