"""The page: its sessions in cookies, and its built files."""
