"""By what the processes of an installation find and know one another, unless the environment says so."""

from collections.abc import Iterable

from foretell.kit.posting import host_and_port
from foretell.local.health import reachable_host
from foretell.local.installation import Program


def addresses_of(
    programs: Iterable[Program],
) -> dict[str, str]:
    """Settings for all of them.

    The monitoring service takes logs and heartbeats (an empty word in the environment: nobody does), the dispatcher
    tells the bot, and the bot asks the app.
    """
    urls = {
        program.service: f"http://{host_and_port(reachable_host(program.host), program.port)}" for program in programs
    }
    settings = {"FORETELL_MONITORING_URL": urls["monitoring"]} if "monitoring" in urls else {}
    if "bot" in urls:
        settings["FORETELL_BOT_URL"] = urls["bot"]
        if "app" in urls:
            settings["FORETELL_APP_URL"] = urls["app"]
    return settings
