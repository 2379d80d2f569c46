"""From the data of an earlier release: what it promised is kept by this one.

`earlier_release/` is what the code of commit 5ec0d21's time (tables at revision 0003) wrote while it ran: two accounts
with keys, 26 predictions that ended, one that was canceled, and four that were queued when it was stopped, their tasks
in its broker.
"""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from tests.faults.promises import assert_promises_kept
from tests.services_system import SWEEPS
from tests.system import System

from foretell.domain.migrations.run import REVISIONS

pytestmark = pytest.mark.faults

EARLIER = Path(__file__).parent / "earlier_release"
_KEY = "ftl_SQdTHDOGWKdzsteA3HBPLyCk2d0OXlwVN4hm-sIFBWs"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An installation of the earlier release, stopped a moment ago."""
    for name in ("foretell", "broker"):
        with closing(sqlite3.connect(tmp_path / f"{name}.db")) as connection:
            connection.executescript((EARLIER / f"{name}.sql").read_text(encoding="utf-8"))
            if name == "foretell":
                soon = int((time.time() + 3600) * 1_000_000)
                connection.execute("UPDATE predictions SET expires_at = ? WHERE status = 'queued'", (soon,))
            connection.commit()
    return tmp_path


async def test_an_earlier_release_goes_on(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "foretell.db")) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == ("0003",)
        before = connection.execute("SELECT id, status, output, price_credits FROM predictions ORDER BY id").fetchall()
        balances = connection.execute("SELECT user_id, available, held FROM wallets ORDER BY user_id").fetchall()
    system = System(
        folder,
        database_url=f"sqlite:///{folder / 'foretell.db'}",
        broker_url=f"sqlite:///{folder / 'broker.db'}",
        **SWEEPS,
    )
    async with system.running(workers=1):
        ended = await assert_promises_kept(system)
        assert not ended
        async with httpx.AsyncClient(base_url=system.url, timeout=60) as client:
            form = {"username": "Борис", "password": "a good password"}
            assert (await client.post("/token", data=form)).status_code == 200
            client.headers["Authorization"] = f"Bearer {_KEY}"
            history = (await client.get("/predictions", params={"limit": 100})).json()
            assert (await client.get("/balance")).status_code == 200
            # Its idempotency keys are known.
            again = {"model": "flight-delay", "features": {"other": "body"}}
            known = await client.post("/predictions/predict", json=again, headers={"Idempotency-Key": "key-3"})
            assert known.status_code == 422
    with closing(sqlite3.connect(folder / "foretell.db")) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == (REVISIONS[-1],)
        after = connection.execute("SELECT id, status, output, price_credits FROM predictions ORDER BY id").fetchall()
        now = connection.execute("SELECT user_id, available, held FROM wallets ORDER BY user_id").fetchall()
    assert len(history.get("items", history.get("predictions", []))) == 13
    queued = {row[0] for row in before if row[1] == "queued"}
    assert len(queued) == 4
    assert [row for row in after if row[0] not in queued] == [row for row in before if row[0] not in queued]
    assert {row[1] for row in after if row[0] in queued} == {"succeeded"}
    # What was held is spent, and nothing else.
    assert [(user, available, 0) for user, available, _ in balances] == now
