"""The objects that the routes of one app process share."""

import asyncio
from dataclasses import dataclass

from foretell.domain.accounts.lifetime import Lifetime
from foretell.domain.accounts.passwords import Passwords
from foretell.domain.accounts.throttle import AccountThrottle, LoginThrottle, SignupThrottle
from foretell.domain.accounts.tokens import AccessTokens
from foretell.inference.live import LiveRegistry
from foretell.kit.database import Database
from foretell.services.app.authentication import Authenticator
from foretell.services.app.changes import Changes
from foretell.services.app.checked_urls import CheckedUrls
from foretell.services.app.following import Following
from foretell.services.app.monitoring import Monitoring
from foretell.services.app.packages import Packages
from foretell.services.app.queue_places import QueuePlaces
from foretell.services.app.settings import AppSettings
from foretell.services.app.waiting import Waiting


@dataclass(frozen=True, slots=True)
class AppState:
    """The state of one app process. Routes get it as a dependency (`dependencies.State`)."""

    settings: AppSettings
    database: Database
    registry: LiveRegistry
    passwords: Passwords
    access_tokens: AccessTokens
    throttle: LoginThrottle
    signups: SignupThrottle
    #: The same for all sign-ups in Telegram together.
    telegram_signups: SignupThrottle
    #: Limits the webhook tests and redeliveries of an account.
    webhook_sends: AccountThrottle
    #: Limits the exports of an account.
    exports: AccountThrottle
    authenticator: Authenticator
    session_lifetime: Lifetime
    waiting: Waiting
    following: Following
    changes: Changes
    checked_urls: CheckedUrls
    #: Set when the process is to stop; streams then end.
    queue_places: QueuePlaces
    monitoring: Monitoring
    packages: Packages
    stopping: asyncio.Event
