from foretell.local.supervision import pause_s

KILLED = 9
EXITED_1 = 1 << 8
REPLACE_ME = 70 << 8


def test_the_first_restart_is_at_once() -> None:
    assert pause_s(1, KILLED) == pause_s(1, EXITED_1) == 0


def test_a_crash_loop_gets_growing_pauses_with_a_bound() -> None:
    pauses = [pause_s(lives, EXITED_1) for lives in range(1, 2000)]
    assert pauses == sorted(pauses)
    assert len(set(pauses)) > 4
    assert pauses[-1] == 15


def test_a_process_that_somebody_kills_again_and_again_is_back_within_a_second() -> None:
    assert max(pause_s(lives, KILLED) for lives in range(1, 2000)) <= 1


def test_a_worker_that_leaves_a_hanging_model_behind_is_replaced_at_once() -> None:
    assert {pause_s(lives, REPLACE_ME) for lives in range(1, 100)} == {0}
