import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from foretell.local.log_files import Logs, NoSuchLog, tail
from foretell.local.log_format import readable

START = datetime(2025, 1, 1, tzinfo=UTC)


def line(second: float, message: str, **fields: object) -> str:
    moment = (START + timedelta(seconds=second)).isoformat().replace("+00:00", "Z")
    return json.dumps({"@timestamp": moment, "log.level": "info", "message": message, **fields}) + "\n"


def append(file: Path, *lines: str) -> None:
    with file.open("a", encoding="utf-8") as stream:
        stream.writelines(lines)


def test_tail_of_a_file_larger_than_a_block_and_of_what_was_rotated_away(tmp_path: Path) -> None:
    file = tmp_path / "app.log"
    append(file.with_name("app.log.1"), *(f"old {number} {'x' * 500}\n" for number in range(1000)))
    append(file, "new 1\n", "new 2\n")
    assert tail(file, 1) == ["new 2"]
    assert [text[:7] for text in tail(file, 4)] == ["old 998", "old 999", "new 1", "new 2"]
    assert len(tail(file, 5000)) == 1002
    assert tail(file, 0) == []
    assert tail(tmp_path / "absent.log", 5) == []


def test_logs_are_merged_in_the_order_of_time(tmp_path: Path) -> None:
    append(tmp_path / "app.log", line(1, "a"), line(3, "c"), line(5, "e"))
    append(tmp_path / "worker-1.log", line(2, "b"), line(4, "d"))
    logs = Logs(tmp_path)
    assert [each.message for each in logs.last(100)] == list("abcde")
    assert [(each.source, each.message) for each in logs.last(2)] == [("worker-1", "d"), ("app", "e")]


def test_a_line_without_a_time_stays_behind_the_one_before(tmp_path: Path) -> None:
    append(tmp_path / "app.log", line(1, "a"), "Traceback:\n", "  File …\n", line(9, "z"))
    append(tmp_path / "worker-1.log", line(2, "b"))
    assert [each.message for each in Logs(tmp_path).last(100)] == ["a", "Traceback:", "  File …", "b", "z"]


@pytest.mark.parametrize("broken", ["{", '{"a": 1}', '{"@timestamp": 5}', "[]", "\x00", "{" * 5000])
def test_a_broken_line_is_shown_as_it_is(tmp_path: Path, broken: str) -> None:
    append(tmp_path / "app.log", broken + "\n")
    assert [each.message for each in Logs(tmp_path).last(10)] == [broken]


def test_the_supervisor_s_own_lines_have_a_time_and_a_level(tmp_path: Path) -> None:
    append(tmp_path / "supervisor.log", "2025-01-01 12:00:00,250 WARN exited: worker-1\n")
    (found,) = Logs(tmp_path).last(10)
    assert (found.level, found.message, found.moment.microsecond) == ("warning", "exited: worker-1", 250_000)


def test_a_service_is_all_its_processes_and_a_process_is_itself(tmp_path: Path) -> None:
    for name in ("app", "worker-1", "worker-2"):
        append(tmp_path / f"{name}.log", line(1, name))
    assert [each.source for each in Logs(tmp_path, ["worker"]).last(10)] == ["worker-1", "worker-2"]
    assert [each.source for each in Logs(tmp_path, ["worker-2"]).last(10)] == ["worker-2"]
    with pytest.raises(NoSuchLog, match="app, worker"):
        Logs(tmp_path, ["wroker"])


def test_following_survives_rotation_new_files_and_half_lines(tmp_path: Path) -> None:
    app = tmp_path / "app.log"
    append(app, line(1, "before"))
    logs = Logs(tmp_path)
    logs.follow_from_now()
    assert logs.new() == []

    whole = line(2, "in two pieces")
    append(app, whole[:10])
    assert logs.new() == []
    append(app, whole[10:])
    assert [each.message for each in logs.new()] == ["in two pieces"]

    append(app, line(3, "last of the old file"))
    app.rename(tmp_path / "app.log.1")
    append(app, line(4, "first of the new file"))
    append(tmp_path / "worker-1.log", line(3.5, "a process that started meanwhile"))
    assert [each.message for each in logs.new()] == [
        "last of the old file",
        "a process that started meanwhile",
        "first of the new file",
    ]
    assert logs.new() == []
    logs.close()


def test_readable_lines_name_the_process_and_the_fields(tmp_path: Path) -> None:
    append(tmp_path / "app.log", line(1, "prediction_settled", count=3))
    text = readable(Logs(tmp_path).last(1)[0])
    assert text.startswith("app        | ")
    assert text.endswith("info    prediction_settled  count=3")


def test_what_every_line_says_and_long_names_do_not_fill_the_terminal(tmp_path: Path) -> None:
    append(
        tmp_path / "app.log",
        line(
            1,
            "request_finished",
            route="/models",
            **{
                "http.request.method": "GET",
                "http.response.status_code": 200,
                "event.duration": 1_234_567,
                "http.request.id": "r-1",
                "ecs.version": "8.17.0",
                "service.name": "app",
                "service.node.name": "app-1",
            },
        ),
        line(2, "model_failed", **{"error.type": "ValueError", "error.message": "no"}),
        line(3, "failed", **{"error.type": "E", "error.message": "no", "error.stack_trace": "Traceback\nE: no"}),
        line(4, "odd", **{"event.duration": "long"}),
    )
    texts = [readable(each).partition(" | ")[2].partition("  ")[2].strip() for each in Logs(tmp_path).last(10)]
    assert [text.removeprefix("info").strip() for text in texts] == [
        "request_finished  route=/models method=GET status=200 duration=1.23ms request=r-1",
        "model_failed  error_type=ValueError error=no",
        "failed\napp        |   Traceback\napp        |   E: no",
        "odd  event.duration=long",
    ]


def test_a_log_line_can_neither_steer_the_terminal_nor_forge_another(tmp_path: Path) -> None:
    append(tmp_path / "app.log", line(1, "a\x1b[2J\nworker-1 | forged", field="x\r\ny\u202e"))
    text = readable(Logs(tmp_path).last(1)[0])
    assert text.isprintable()
    assert "\\x1b" in text


def test_a_trace_without_a_message_keeps_its_lines_and_the_type(tmp_path: Path) -> None:
    append(tmp_path / "app.log", line(1, "model_failed", **{"error.type": "KeyError", "error.stack_trace": "one\ntwo"}))
    first, *trace = readable(Logs(tmp_path).last(1)[0]).splitlines()
    assert first.endswith("model_failed  error_type=KeyError")
    assert trace == ["app        |   one", "app        |   two"]


def test_a_stack_trace_keeps_its_lines(tmp_path: Path) -> None:
    append(tmp_path / "app.log", line(1, "failed", **{"error.stack_trace": "one\ntwo"}))
    assert len(readable(Logs(tmp_path).last(1)[0]).splitlines()) == 3
