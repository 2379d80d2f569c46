"""The routes of the model service, a file for each noun."""
