"""Settings by which the processes of an installation find and authenticate each other, unless they are set."""

from collections.abc import Iterable

from foretell.kit.posting import host_and_port
from foretell.local.health import reachable_host
from foretell.local.installation import Program


def addresses_of(
    programs: Iterable[Program],
) -> dict[str, str]:
    """Settings for all of them.

    All send logs and heartbeats to the monitoring service (unless its URL in the environment is empty), the dispatcher
    sends events to the bot, and the bot calls the app.
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
