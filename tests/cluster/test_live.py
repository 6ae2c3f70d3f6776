import pytest
import ray

from cluster.live import Live, listening

pytestmark = pytest.mark.engine


@ray.remote(num_cpus=0)
def work(live: Live, count: int) -> None:
    for epoch in range(count):
        live.say({"epoch": epoch})


def test_what_workers_say_is_heard_in_order(ray_local: None) -> None:
    heard: list[dict[str, int]] = []
    with listening(heard.append) as live:
        ray.get(work.remote(live, 3))
    assert heard == [{"epoch": 0}, {"epoch": 1}, {"epoch": 2}]


def test_workers_go_on_when_what_they_say_gets_lost(ray_local: None) -> None:
    with listening(print) as live:
        ray.kill(live._put.__self__.actor)  # of the queue
        ray.get(work.remote(live, 2))
