"""URLs of PostgreSQL: every form that libpq takes and we know, and one sentence for the rest."""

from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretell.kit.errors import Misconfigured
from foretell.kit.postgresql_address import PostgresqlAddress, read_postgresql_url


def _address(**given: object) -> PostgresqlAddress:
    usual: dict[str, object] = {
        "hosts": (("db", 5432),),
        "user": None,
        "password": None,
        "database": None,
        "target": "any",
        "ssl": {},
    }
    return PostgresqlAddress(**{**usual, **given})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("postgresql://db", dict()),
        ("postgres://db/", dict()),
        ("postgresql://", dict(hosts=())),
        ("postgresql:///d", dict(hosts=(), database="d")),
        (
            "postgresql://ada:pw@db:5433/d",
            dict(hosts=(("db", 5433),), user="ada", password="pw", database="d"),
        ),
        ("postgresql://ada@db/a%20b", dict(user="ada", database="a b")),
        ("postgresql://a:b@c#d+e@db", dict(user="a", password="b@c#d+e")),
        ("postgresql://a:%40%3A%2F%3F%23%25%20%C3%A9@db", dict(user="a", password="@:/?#% é")),
        ("postgresql://one,two:5433/d", dict(hosts=(("one", 5432), ("two", 5433)), database="d")),
        (
            "postgresql://[::1]:5433,[fe80::1%25eth0]/d",
            dict(hosts=(("::1", 5433), ("fe80::1%eth0", 5432)), database="d"),
        ),
        ("postgresql://%2Frun%2Fpostgresql/d", dict(hosts=(("/run/postgresql", 5432),), database="d")),
        (
            "postgresql:///d?host=/run/postgresql&port=5433",
            dict(hosts=(("/run/postgresql", 5433),), database="d"),
        ),
        (
            "postgresql://ada@/d?host=one,two",
            dict(hosts=(("one", 5432), ("two", 5432)), user="ada", database="d"),
        ),
        (
            "postgresql://?host=one,two&port=1,2&user=ada&password=a%26b&dbname=n",
            dict(hosts=(("one", 1), ("two", 2)), user="ada", password="a&b", database="n"),
        ),
        ("postgresql://db?target_session_attrs=read-write", dict(target="read-write")),
        ("postgresql://db?sslmode=verify-full", dict(ssl={"sslmode": "verify-full"})),
    ],
)
def test_what_an_address_means(url: str, meant: dict[str, object]) -> None:
    assert read_postgresql_url(url) == _address(**meant)


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("mysql://ada:hunter2@db/x", "must be postgresql://"),
        ("postgresql+asyncpg://ada:hunter2@db/x", "must be postgresql://"),
        ("ada:hunter2@db", "must be postgresql://"),
        ("postgresql://ada:hun/ter2@db/x", "database"),
        ("postgresql://ada:hun?ter2@db/x", "after its"),
        ("postgresql://ada:1234/hunter2@db", "database"),
        ("postgresql://ada:hunter2%@db", "password"),
        ("postgresql://ada:hunter2%FF@db", "password"),
        ("postgresql://ada:hunter2@db:port", "port"),
        ("postgresql://ada:hunter2@db:70000", "port"),
        ("postgresql://ada:hunter2@::1/x", "host"),
        ("postgresql://ada:hunter2@db,/x", "host"),
        ("postgresql://ada:hunter2@db/x?host=other", "host twice"),
        ("postgresql://ada:hunter2@db/x?port=5433", "port"),
        ("postgresql://ada:hunter2@/x?host=a,b&port=1,2,3", "host and port"),
        ("postgresql://ada:hunter2@/x?port=5433", "port without host"),
        ("postgresql://ada:hunter2@db/x?options=-cjit%3Doff", "options"),
        ("postgresql://ada:hunter2@db/x?sslmode=maybe", "sslmode"),
        ("postgresql://ada:hunter2@db/x?sslmode=require&sslmode=disable", "sslmode twice"),
        ("postgresql://ada:hunter2@db/x?sslmode=", "sslmode without"),
        ("postgresql://ada:hunter2@db/x?sslrootcert=/nowhere/ca.pem", "sslrootcert"),
        ("postgresql://ada:hunter2@db/x?target_session_attrs=standby", "target_session_attrs"),
    ],
)
def test_the_rest_is_refused_by_name_and_without_the_password(url: str, named: str) -> None:
    with pytest.raises(Misconfigured, match="FORETELL_DATABASE_URL") as error:
        read_postgresql_url(url)
    assert named in error.value.message
    assert "hun" not in error.value.message.replace("hundred", "")
    assert "ter2" not in error.value.message


@given(st.text(min_size=1, max_size=30), st.text(min_size=1, max_size=30), st.text(min_size=1, max_size=30))
def test_what_was_encoded_comes_back(user: str, password: str, database: str) -> None:
    def encoded(text: str) -> str:
        return quote(text.encode("utf-8", "replace"), safe="")

    address = read_postgresql_url(f"postgresql://{encoded(user)}:{encoded(password)}@db/{encoded(database)}")
    plain = [text.encode("utf-8", "replace").decode() for text in (user, password, database)]
    assert [address.user, address.password, address.database] == plain
    assert address.arguments()["password"] == plain[1]


def test_files_and_a_password_for_them_reach_the_driver(tmp_path: Path) -> None:
    file = tmp_path / "a&b c.pem"
    file.write_text("")
    address = read_postgresql_url(f"postgresql://db?sslmode=require&sslrootcert={quote(str(file))}")
    assert address.ssl == {"sslmode": "require", "sslrootcert": str(file)}
    assert address.arguments()["dsn"] == f"postgresql://?sslmode=require&sslrootcert={quote(str(file), safe='')}"


def test_an_address_shows_no_password() -> None:
    assert "hunter2" not in repr(read_postgresql_url("postgresql://ada:hunter2@db?sslpassword=hunter2"))
