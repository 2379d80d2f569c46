"""What to do about a queue that is there and says nothing: it has no leader, for a while or for good."""

from enum import Enum

#: So many silences in a row, on one connection, mean something.
SILENCES = 2


class Remedy(Enum):
    """What to try before the queue is asked once more."""

    NONE = "none"
    #: Another node may know the leader, and perhaps it is the connection that is not right.
    ANOTHER_CONNECTION = "another connection"
    #: Delete the queue and declare it anew: its messages come again from the database, its dead letters do not.
    REBUILD = "rebuild"


class Silences:
    """Counts how often a consumer asked in vain, and on which connections.

    Each consumer takes another connection once, and not again before it was answered: several of them that share one
    would otherwise take it from one another for ever.
    """

    def __init__(self, *, in_cluster: bool) -> None:
        """In a cluster a quorum may come back, so nothing is ever given up."""
        self._in_cluster = in_cluster
        #: Whether it answered when it was asked last.
        self.has_leader = True
        self._in_a_row = 0
        self._before = 0
        #: The connection that was the first to be given up.
        self._given_up: int | None = None

    def ask(self, connection: int) -> Remedy:
        """The queue is about to be asked, on the connection of this number. What fails but by silence ends the row."""
        self._before, self._in_a_row = self._in_a_row, 0
        if self._before < SILENCES:
            return Remedy.NONE
        self._before = 0
        if not self._in_cluster and self._given_up not in (None, connection):
            return Remedy.REBUILD
        self._given_up = connection
        return Remedy.ANOTHER_CONNECTION

    @property
    def patient(self) -> bool:
        """Whether to wait longer for an answer: in a cluster, after another connection was tried."""
        return self._in_cluster and self._given_up is not None

    def silent(self) -> None:
        """It did not answer."""
        self._in_a_row = self._before + 1
        self.has_leader = False

    def answered(self) -> None:
        """It has a leader."""
        self._in_a_row, self._given_up = 0, None
        self.has_leader = True
