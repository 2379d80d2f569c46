"""The checks of an audit: every rule about states and credits.

Each check is one statement that returns the violations of a rule. The statements are the same for both databases, and
do not rely on constraints, indexes or triggers, which may be missing.
"""

from dataclasses import dataclass

from foretell.domain.credits.tables import MOVEMENTS


@dataclass(frozen=True, slots=True)
class Check:
    """One rule. `query` returns its violations: the ids, then `expected` and `found` in words or numbers."""

    name: str
    #: Describes a violation.
    what: str
    query: str


def movement(column: int) -> str:
    """The change of `available` (column 0) or `held` (1) by a row of the ledger, as SQL."""
    factors = " ".join(f"WHEN '{kind}' THEN {changes[column]}" for kind, changes in MOVEMENTS.items())
    return f"amount * CASE kind {factors} ELSE 0 END"


#: Every kind of movement, as a list in SQL.
KINDS = ", ".join(f"'{kind}'" for kind in MOVEMENTS)

CHECKS = (
    Check(
        "ledger_fits_status",
        "The ledger of a prediction does not fit its status.",
        """
        SELECT p.id AS prediction_id, p.user_id,
            CASE status WHEN 'queued' THEN 'queued: hold' WHEN 'succeeded' THEN 'succeeded: hold, capture'
                ELSE status || ': hold, release' END AS expected,
            coalesce(holds, 0) || ' hold, ' || coalesce(captures, 0) || ' capture, '
                || coalesce(releases, 0) || ' release' AS found
        FROM predictions p LEFT JOIN (
            SELECT prediction_id,
                count(*) FILTER (WHERE kind = 'hold') AS holds,
                count(*) FILTER (WHERE kind = 'capture') AS captures,
                count(*) FILTER (WHERE kind = 'release') AS releases
            FROM ledger WHERE kind IN ('hold', 'capture', 'release') GROUP BY prediction_id
        ) entered ON entered.prediction_id = p.id
        WHERE coalesce(holds, 0) <> 1
            OR coalesce(captures, 0) <> CASE WHEN status = 'succeeded' THEN 1 ELSE 0 END
            OR coalesce(releases, 0) <> CASE WHEN status IN ('failed', 'canceled') THEN 1 ELSE 0 END
        """,
    ),
    Check(
        "ledger_matches_prediction",
        "A row of the ledger names another owner or amount than its prediction, or a prediction that is missing.",
        """
        SELECT l.id AS ledger_id, l.prediction_id, l.user_id,
            CASE WHEN l.prediction_id IS NULL OR p.id IS NULL THEN 'a prediction'
                ELSE 'user ' || CAST(p.user_id AS TEXT) || ', ' || p.price_credits || ' credits' END AS expected,
            CASE WHEN l.prediction_id IS NULL OR p.id IS NULL THEN kind || ' without a prediction'
                ELSE 'user ' || CAST(l.user_id AS TEXT) || ', ' || l.amount || ' credits' END AS found
        FROM ledger l LEFT JOIN predictions p ON p.id = l.prediction_id
        WHERE (l.prediction_id IS NOT NULL AND p.id IS NULL)
            OR (l.prediction_id IS NULL AND kind IN ('hold', 'capture', 'release'))
            OR l.user_id <> p.user_id
            OR (kind IN ('hold', 'capture', 'release') AND l.amount <> p.price_credits)
        """,
    ),
    Check(
        "prediction_stands_once",
        "A prediction stands in its table more than once.",
        """
        SELECT id AS prediction_id, 'one row' AS expected, count(*) || ' rows' AS found
        FROM predictions GROUP BY id HAVING count(*) > 1
        """,
    ),
    Check(
        "ledger_row_possible",
        "A row of the ledger is of an unknown kind, or negative although it is no adjustment.",
        f"""
        SELECT id AS ledger_id, user_id, 'a known kind, at least 0 credits' AS expected,
            kind || ' of ' || amount || ' credits' AS found
        FROM ledger WHERE kind NOT IN ({KINDS}) OR (amount < 0 AND kind <> 'adjustment')
        """,  # noqa: S608
    ),
    Check(
        "reference_used_once",
        "A reference to somebody else's books stands in the ledger more than once.",
        """
        SELECT reference, 'one row' AS expected, count(*) || ' rows' AS found
        FROM ledger WHERE reference IS NOT NULL GROUP BY reference HAVING count(*) > 1
        """,
    ),
    Check(
        "wallet_matches_ledger",
        "A wallet differs from the sum of its rows in the ledger, or there are rows without a wallet.",
        f"""
        SELECT user_id,
            sum(entered_available) || ' available, ' || sum(entered_held) || ' held' AS expected,
            CASE sum(wallet) WHEN 0 THEN 'no wallet'
                ELSE sum(available) || ' available, ' || sum(held) || ' held' END AS found
        FROM (
            SELECT user_id, {movement(0)} AS entered_available, {movement(1)} AS entered_held,
                0 AS available, 0 AS held, 0 AS wallet
            FROM ledger
            UNION ALL
            SELECT user_id, 0, 0, available, held, 1 FROM wallets
        ) both_sides
        GROUP BY user_id
        HAVING sum(entered_available) <> sum(available) OR sum(entered_held) <> sum(held) OR sum(wallet) <> 1
        """,  # noqa: S608
    ),
    Check(
        "wallet_holds_queued",
        "A wallet holds something else than the prices of its queued predictions.",
        """
        SELECT user_id, sum(price) || ' held' AS expected, sum(held) || ' held' AS found
        FROM (
            SELECT user_id, sum(price_credits) AS price, 0 AS held
            FROM predictions WHERE status = 'queued' GROUP BY user_id
            UNION ALL
            SELECT user_id, 0, held FROM wallets
        ) both_sides
        GROUP BY user_id HAVING sum(price) <> sum(held)
        """,
    ),
    Check(
        "wallet_not_negative",
        "A wallet is below zero.",
        """
        SELECT user_id, 'at least 0' AS expected, available || ' available, ' || held || ' held' AS found
        FROM wallets WHERE available < 0 OR held < 0
        """,
    ),
    Check(
        "wallet_of_everyone",
        "A user has no wallet, or a wallet has no user.",
        """
        SELECT user_id, 'a user and a wallet' AS expected,
            CASE WHEN sum(wallet) = 0 THEN 'no wallet' ELSE 'no user' END AS found
        FROM (SELECT id AS user_id, 1 AS person, 0 AS wallet FROM users UNION ALL SELECT user_id, 0, 1 FROM wallets)
            both_sides
        GROUP BY user_id HAVING sum(person) <> 1 OR sum(wallet) <> 1
        """,
    ),
    Check(
        "prediction_has_wallet",
        "A prediction belongs to somebody who has no wallet.",
        """
        SELECT p.id AS prediction_id, p.user_id, 'a wallet' AS expected, 'no wallet' AS found
        FROM predictions p LEFT JOIN wallets w ON w.user_id = p.user_id WHERE w.user_id IS NULL
        """,
    ),
    Check(
        "prediction_fits_status",
        "A prediction that ended has no end, output or error, or one that did not has one.",
        """
        SELECT id AS prediction_id, user_id,
            CASE status WHEN 'queued' THEN 'queued: no end, output or error'
                WHEN 'succeeded' THEN 'succeeded: an end and an output' WHEN 'failed' THEN 'failed: an end and an error'
                WHEN 'canceled' THEN 'canceled: an end' ELSE 'a known status' END AS expected,
            status || ':' || CASE WHEN finished_at IS NULL THEN '' ELSE ' an end' END
                || CASE WHEN output IS NULL THEN '' ELSE ' an output' END
                || CASE WHEN error_code IS NULL THEN '' ELSE ' an error' END AS found
        FROM predictions
        WHERE status NOT IN ('queued', 'succeeded', 'failed', 'canceled')
            OR (status = 'queued') <> (finished_at IS NULL)
            OR (status = 'succeeded') <> (output IS NOT NULL)
            OR (status = 'failed') <> (error_code IS NOT NULL)
        """,
    ),
    Check(
        "price_not_negative",
        "A prediction has a price below zero.",
        """
        SELECT id AS prediction_id, user_id, 'at least 0 credits' AS expected, price_credits || ' credits' AS found
        FROM predictions WHERE price_credits < 0
        """,
    ),
    Check(
        "idempotency_key_used_once",
        "An idempotency key of a user stands for more than one prediction.",
        """
        SELECT user_id, idempotency_key, 'one prediction' AS expected, count(*) || ' predictions' AS found
        FROM predictions WHERE idempotency_key IS NOT NULL GROUP BY user_id, idempotency_key HAVING count(*) > 1
        """,
    ),
    Check(
        "payment_has_movements",
        "A payment in Telegram Stars has not the movements that it stands for.",
        """
        SELECT p.charge_id, p.user_id,
            p.credits || ' in, ' || coalesce(p.refunded_credits, 0) || ' out' AS expected,
            coalesce(paid.amount, 0) || ' in, ' || -coalesce(back.amount, 0) || ' out' AS found
        FROM telegram_payments p
        LEFT JOIN ledger paid ON paid.reference = 'telegram:' || p.charge_id
            AND paid.kind = 'top_up' AND paid.user_id = p.user_id
        LEFT JOIN ledger back ON back.reference = 'telegram-refund:' || p.charge_id
            AND back.kind = 'adjustment' AND back.user_id = p.user_id
        WHERE p.credits <> coalesce(paid.amount, 0) OR coalesce(p.refunded_credits, 0) <> -coalesce(back.amount, 0)
        """,
    ),
)
