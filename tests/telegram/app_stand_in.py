"""What the bot needs of the app, by its contract, without a database: predictions end when the test says so."""

import json
import time
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import msgspec
from standardwebhooks import Webhook

import foretell.models
from foretell.contracts.bot_secret import new_bot_secret
from foretell.contracts.fields import fields_of

_PACKAGES = Path(foretell.models.__file__).parent


def shipped_model(folder: str) -> dict[str, Any]:
    """What `GET /models/{name}` says of a package that ships."""
    place = _PACKAGES / folder
    manifest = tomllib.loads((place / "model.toml").read_text(encoding="utf-8"))
    features = json.loads((place / "features.schema.json").read_text(encoding="utf-8"))
    raw = place / "input.schema.json"
    taken = json.loads(raw.read_text(encoding="utf-8")) if raw.exists() else features
    return {
        "name": manifest["name"],
        "version": manifest["version"],
        "title": manifest["title"],
        "description": manifest["description"],
        "labels": manifest.get("labels", {}),
        "price": manifest["price_credits"],
        "fields": msgspec.to_builtins(fields_of(taken)),
        "output_schema": json.loads((place / "output.schema.json").read_text(encoding="utf-8")),
    }


def problem(status: int, code: str, detail: str = "No.", **more: Any) -> httpx.Response:
    """A problem of the API."""
    return httpx.Response(status, json={"status": status, "code": code, "detail": detail, **more})


class Account:
    """Somebody's account."""

    def __init__(self, username: str, credits: int) -> None:
        self.id = uuid4()
        self.username = username
        self.available = credits
        self.held = 0
        self.threshold: int | None = None
        self.movements: list[dict[str, Any]] = []

    def move(self, kind: str, amount: int, available: int, held: int, **more: Any) -> None:
        """One movement of credits."""
        self.available += available
        self.held += held
        number = len(self.movements) + 1
        row = {"id": number, "kind": kind, "amount": amount, "available_change": available, "held_change": held}
        self.movements.insert(0, {**row, "created_at": datetime.now(UTC).isoformat(), **more})


class AppStandIn:
    """Answers as the app does."""

    def __init__(self, *, signup_credits: int = 100) -> None:
        self.secret = new_bot_secret()
        self.signup_credits = signup_credits
        self.models = {model["name"]: model for model in map(shipped_model, ("flight_delay", "sentiment"))}
        self.accounts: dict[str, Account] = {}
        self.linked: dict[int, Account] = {}
        self.codes: dict[str, Account] = {}
        self.predictions: dict[str, dict[str, Any]] = {}
        self.owners: dict[str, Account] = {}
        self.keys: dict[tuple[UUID, str], str] = {}
        self.charges: dict[str, dict[str, Any]] = {}
        self.bot_name = ""
        #: What Telegram calls whoever is in a chat, as the bot told it.
        self.names: dict[int, str | None] = {}
        self.requests: list[tuple[str, str]] = []
        #: Answers in place of everything else, as long as it returns something.
        self.instead: Callable[[httpx.Request], httpx.Response | None] = lambda request: None

    def transport(self) -> httpx.MockTransport:
        """What leads here."""
        return httpx.MockTransport(self._answer)

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append((request.method, request.url.path))
        instead = self.instead(request)
        if instead is not None:
            return instead
        path = request.url.path
        body = json.loads(request.content or b"null")
        if path.startswith("/telegram/"):
            if request.headers.get("authorization") != f"Bearer {self.secret}":
                return problem(404, "not_found")
            return self._for_bot(request.method, path, body)
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        username, _, chat = token.removeprefix("token-of-").partition("/")
        account = self.accounts.get(username)
        # A chat's token ends with its link.
        if account is None or self.linked.get(int(chat or 0)) is not account:
            return problem(401, "unauthorized")
        return self._for_user(request, account, body)

    def _for_bot(self, method: str, path: str, body: Any) -> httpx.Response:
        what = path.split("/")[2]
        if what == "bot":
            self.bot_name = body["username"]
            return httpx.Response(204)
        if what == "accounts":
            known = body["chat_id"] in self.linked
            if not known:
                self.linked[body["chat_id"]] = self.new_account(f"telegram-{body['chat_id']}")
            return self._linked(body["chat_id"], 200 if known else 201)
        if what == "links" and method == "DELETE":
            return (
                httpx.Response(204)
                if self.linked.pop(int(path.split("/")[3]), None)
                else problem(404, "chat_not_linked")
            )
        if what == "links":
            account = self.codes.get(body["code"])
            if account is None:
                return problem(404, "not_found")
            if self.linked.get(body["chat_id"], account) is not account:
                return problem(409, "chat_linked")
            self.linked[body["chat_id"]] = account
            self.names[body["chat_id"]] = body.get("name")
            return self._linked(body["chat_id"], 200)
        account = self.linked.get(body.get("chat_id", 0))
        if what == "tokens":
            if account is None:
                return problem(404, "chat_not_linked")
            answer = {
                "access_token": f"token-of-{account.username}/{body['chat_id']}",
                "token_type": "bearer",
                "expires_in": 900,
                "user_id": str(account.id),
            }
            return httpx.Response(200, json=answer)
        return self._money(what, account, body)

    def _money(self, what: str, account: Account | None, body: dict[str, Any]) -> httpx.Response:
        charge = self.charges.get(body["charge_id"])
        if what == "refunds":
            if charge is None:
                return problem(404, "not_found")
            if not charge["refunded"]:
                charge["refunded"] = True
                reference = f"telegram-refund:{body['charge_id']}"
                charge["account"].move("adjustment", -charge["credits"], -charge["credits"], 0, reference=reference)
            return httpx.Response(200, json={"charge_id": body["charge_id"]})
        if account is None:
            return problem(404, "chat_not_linked")
        if charge is None:
            self.charges[body["charge_id"]] = {**body, "account": account, "refunded": False}
            account.move("top_up", body["credits"], body["credits"], 0, reference=f"telegram:{body['charge_id']}")
        return httpx.Response(200, json={"charge_id": body["charge_id"]})

    def new_account(self, username: str) -> Account:
        """An account with the sign-up grant."""
        account = self.accounts[username] = Account(username, 0)
        if self.signup_credits:
            account.move("grant", self.signup_credits, self.signup_credits, 0)
        return account

    def _linked(self, chat_id: int, status: int) -> httpx.Response:
        account = self.linked[chat_id]
        return httpx.Response(
            status, json={"chat_id": chat_id, "user_id": str(account.id), "username": account.username}
        )

    def _for_user(self, request: httpx.Request, account: Account, body: Any) -> httpx.Response:
        path, query = request.url.path, dict(request.url.params)
        if path == "/users/me":
            return httpx.Response(200, json={"id": str(account.id), "username": account.username, "role": "user"})
        if path == "/balance":
            if request.method == "PATCH":
                account.threshold = body["threshold"]
            balance = {"available": account.available, "held": account.held, "threshold": account.threshold}
            return httpx.Response(200, json=balance)
        if path == "/transactions":
            return httpx.Response(200, json={"items": account.movements[: int(query["limit"])], "next_cursor": None})
        if path == "/models":
            return httpx.Response(200, json={"items": list(self.models.values())})
        if path.startswith("/models/"):
            model = self.models.get(path.removeprefix("/models/"))
            return problem(404, "not_found") if model is None else httpx.Response(200, json=model)
        if path == "/predictions/predict":
            return self._submit(account, request.headers["idempotency-key"], body)
        if path == "/predictions":
            return self._list(account, query)
        found = self.predictions.get(path.removeprefix("/predictions/"))
        if found is None or self.owners[found["id"]] is not account:
            return problem(404, "not_found")
        return httpx.Response(200, json=found)

    def _submit(self, account: Account, key: str, body: dict[str, Any]) -> httpx.Response:
        known = self.keys.get((account.id, key))
        if known is not None:
            return httpx.Response(202, json=self.predictions[known])
        model = self.models.get(body["model"])
        if model is None:
            return problem(404, "not_found", "There is no such model.")
        if account.available < model["price"]:
            return problem(402, "insufficient_credits", "The credits do not suffice.")
        prediction = self.new_prediction(account, body["model"], body["input"])
        self.keys[account.id, key] = prediction["id"]
        return httpx.Response(202, json=prediction)

    def new_prediction(self, account: Account, model: str, input: dict[str, Any]) -> dict[str, Any]:
        """A queued prediction, made by whatever way."""
        price = self.models[model]["price"]
        identity = str(uuid4())
        account.move("hold", price, -price, price, prediction_id=identity)
        self.predictions[identity] = {
            "id": identity,
            "status": "queued",
            "model": model,
            "version": self.models[model]["version"],
            "price": price,
            "input": input,
            "created_at": (datetime.now(UTC) + timedelta(microseconds=len(self.predictions))).isoformat(),
        }
        self.owners[identity] = account
        return self.predictions[identity]

    def _list(self, account: Account, query: dict[str, str]) -> httpx.Response:
        mine = [each for each in reversed(self.predictions.values()) if self.owners[each["id"]] is account]
        start, limit = int(query.get("cursor", "0")), int(query["limit"])
        following = str(start + limit) if start + limit < len(mine) else None
        return httpx.Response(200, json={"items": mine[start : start + limit], "next_cursor": following})

    def finish(self, identity: str, output: dict[str, Any] | None, *, code: str = "model_error") -> dict[str, Any]:
        """A prediction ends: with an output, or failed."""
        prediction, account = self.predictions[identity], self.owners[identity]
        price = prediction["price"]
        ended = {"finished_at": datetime.now(UTC).isoformat(), "worker_id": "worker-1", "timings": {"total_s": 0.4}}
        if output is None:
            prediction |= {"status": "failed", "error": {"code": code, "message": "the model said no"}, **ended}
            account.move("release", price, price, -price, prediction_id=identity)
        else:
            prediction |= {"status": "succeeded", "output": output, **ended}
            account.move("capture", price, 0, -price, prediction_id=identity)
        return prediction

    def event(
        self, chat_id: int, type_: str, data: dict[str, Any], *, name: str = "", account: Account | None = None
    ) -> tuple[bytes, dict[str, str]]:
        """What the dispatcher posts to the bot: body and headers. It happened to `account`, else to the chat's own."""
        whose = account or self.linked.get(chat_id)
        body = {
            "type": type_,
            "timestamp": datetime.now(UTC).isoformat(),
            "data": data,
            "sequence": 1,
            "telegram": {"chat_id": chat_id, "user_id": None if whose is None else str(whose.id)},
        }
        return self.signed(json.dumps(body).encode(), name or f"msg_{uuid4().hex}")

    def signed(self, body: bytes, name: str, *, secret: str = "") -> tuple[bytes, dict[str, str]]:
        """A body with the headers of Standard Webhooks."""
        at = int(time.time())
        signature = Webhook(secret or self.secret).sign(name, datetime.fromtimestamp(at, UTC), body.decode())
        headers = {"webhook-id": name, "webhook-timestamp": str(at), "webhook-signature": signature}
        return body, {**headers, "content-type": "application/json"}
