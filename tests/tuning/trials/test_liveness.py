from lightning_trainingkit.tuning.trials.liveness import Watch


def watched(times_and_counters, grace=30.0):
    """What a watch says at each time, for one attempt with the given counter."""
    now = [0.0]
    watch = Watch(grace, clock=lambda: now[0])
    said = []
    for now[0], counter in times_and_counters:
        said.append(watch.look({7: counter}))
    return said


def test_an_attempt_is_dead_when_its_counter_stands_still():
    assert watched([(0, 1), (10, 2), (20, 2), (30, 2), (40, 2)])[-2:] == [[], [7]]


def test_an_attempt_that_never_had_a_heartbeat_is_dead_too():
    assert watched([(0, None), (10, None), (20, None), (30, None)])[-1] == [7]


def test_a_worker_that_was_stopped_itself_buries_nobody():
    assert watched([(0, 1), (1000, 1), (1005, 2), (1010, 2)]) == [[], [], [], []]


def test_a_finished_attempt_is_forgotten():
    now = [0.0]
    watch = Watch(30.0, clock=lambda: now[0])
    watch.look({7: 1})
    now[0] = 10.0
    watch.look({})
    now[0] = 35.0
    assert watch.look({7: 1}) == []
