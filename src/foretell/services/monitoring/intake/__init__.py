"""From the body of a request to rows that can be stored."""
