"""The web page: session cookies and the built files."""
