"""What the monitoring service reports: the shapes of its answers, which the app passes on to operators as they are."""
