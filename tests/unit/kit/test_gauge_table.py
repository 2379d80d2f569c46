from prometheus_client import CollectorRegistry, Gauge, generate_latest

from foretell.kit.gauge_table import GaugeTable


def test_rows_that_are_shown_no_more_are_gone() -> None:
    registry = CollectorRegistry()
    table = GaugeTable(Gauge("table", "A table.", ["model", "day"], registry=registry))

    def shown() -> set[str]:
        return {line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")}

    assert shown() == set()
    table.show({("a", "1"): 1, ("b", "1"): 2})
    assert shown() == {'table{day="1",model="a"} 1.0', 'table{day="1",model="b"} 2.0'}
    table.show({("b", "1"): 3, ("b", "2"): 4})
    assert shown() == {'table{day="1",model="b"} 3.0', 'table{day="2",model="b"} 4.0'}
    table.show({})
    assert shown() == set()
