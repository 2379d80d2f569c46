"""How a blocked process and its supervisor tell each other what to do, for both, as the supervisor imports little."""

import signal

#: Makes a process write its stacks. SIGTERM and SIGINT stop it, and supervisord uses SIGUSR2 itself.
STACKS_SIGNAL = signal.SIGUSR1
#: The exit status of a process whose event loop was blocked (EX_OSERR).
EXIT_STOOD_STILL = 71
