"""A pool of Ray actors, each with engines of its own, at work on shards of a job.

Whatever befalls an actor ends that actor, not the job: it is replaced, and its shard is given to another one, on
another machine where there is one. A machine that fails again and again is left out.
"""

import os
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError

from cluster.console import say
from cluster.devices import see_gpus
from cluster.errors import ClusterError, ConfigError, ModelError, UserError
from cluster.resources import check_resources
from teacher_infer.faults import one_line
from teacher_infer.job import Engines, Job

TRIES = 2  # at one piece of work on one machine: the first time may have been chance
MACHINES = 3  # that fail at the same work, after which the fault is the work's
LEFT_OUT_AFTER = 3  # failures of a machine, one after the other
WAIT_S = 1.0

NODE_LABEL = "ray.io/node-id"

DIED = "a vLLM worker's process died (out of memory?): give it more, or lower --rows-per-shard or --vllm.max-num-seqs"
LOST = "its machine is gone"


class Work(Protocol):
    """What an actor does with one shard; made in the actor from the job and the actor's engines."""

    def __init__(self, job: Job, engines: Engines) -> None: ...

    def do(self, shard: Any) -> Any:  # noqa: ANN401  # what pickles
        """Do it, leave the result where it belongs, and say in short what was done.

        Raises:
            UserError: the user has to act; the job ends.
            Exception: the machine's fault.
        """
        ...


class Place(NamedTuple):
    """Where an actor lives: Ray's id of the node, and the machine's name."""

    node: str
    machine: str


class Outcome(NamedTuple):
    """What became of a shard. Mistakes of the user come back as values: Ray would wrap them in pages."""

    result: Any = None
    mistake: UserError | None = None
    fault: str = ""
    again: bool = True
    """Whether the same machine might do better at a second try."""


@ray.remote(max_restarts=0)
class Labeller:
    """Does shards one at a time."""

    def __init__(self, job: Job, share: int) -> None:
        see_gpus(job.config.resources.gpus)
        self._job, self._engines = job, Engines(job, share)
        self._works: dict[type[Work], Work] = {}

    def place(self) -> Place:
        """Where it lives."""
        return Place(ray.get_runtime_context().get_node_id(), os.uname().nodename)

    def do(self, work: type[Work], shard: Any) -> Outcome:  # noqa: ANN401
        """Do one shard."""
        try:
            if work not in self._works:
                self._works[work] = work(self._job, self._engines)
            return Outcome(self._works[work].do(shard))
        except ModelError as error:  # that an engine does not start may be this machine's fault
            return Outcome(fault=str(error), again=False)
        except UserError as error:
            return Outcome(mistake=error)
        except Exception as error:  # whatever it is, this process is not to be trusted any more
            return Outcome(fault=one_line(error))


@dataclass(eq=False)
class _Member:
    """One actor of the pool and what it is asked: its place first, then a shard or nothing."""

    actor: ActorHandle
    asked: ray.ObjectRef | None
    place: Place | None = None
    shard: int | None = None


class Pool:
    """Up to ``max_workers`` actors, of which each may hold ``share`` engines.

    They stay for several passes of work, so that each loads its engines once, and end with the block.
    """

    def __init__(self, job: Job, share: int = 1) -> None:
        self._job, self._share = job, share
        self._resources = job.config.resources
        self._members: list[_Member] = []
        self._faults: Counter[str] = Counter()  # of each node since its last success
        self._left_out: set[str] = set()
        self._stillborn = 0  # actors in a row that did not start

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for member in self._members:
            ray.kill(member.actor)
        self._members.clear()

    def work_through(self, work: type[Work], shards: Sequence[Any]) -> Iterator[Any]:
        """Do every shard, as many at a time as there are actors; results come as they are ready.

        Raises:
            ConfigError: the cluster is too small for the engines, or has no room for one within ``placement_timeout``.
            ClusterError: for ``progress_timeout`` seconds no shard was finished, or no actor starts.
            ModelError: ``MACHINES`` machines, or all there are, failed at the same shard.
            UserError: what an actor raised as the user's mistake.
        """
        if shards and not self._resources.autoscale:
            asked = {name: each * self._resources.workers for name, each in self._resources.per_worker().items()}
            check_resources(f"{self._resources.workers} vLLM workers", asked, "lower --resources.workers")
        waiting, tries, done = deque(range(len(shards))), _Tries(), 0
        begun = last = time.monotonic()
        while done < len(shards):
            self._hire(min(self._most, len(shards)), waiting, tries)
            self._hand_out(work, shards, waiting, tries)
            for member in self._heard_from():
                last, shard = time.monotonic(), member.shard
                outcome = self._hear(member)
                if outcome and outcome.fault:
                    if shard is not None:
                        waiting.appendleft(shard)
                    self._blame(member, shard, outcome, tries)
                elif outcome:
                    self._faults[member.place.node] = 0  # type: ignore[union-attr]
                    done += 1
                    yield outcome.result
            self._check_time(begun, last)

    @property
    def _most(self) -> int:
        return max(self._resources.workers, self._job.config.max_workers or 0)

    def _hire(self, size: int, waiting: Sequence[int], tries: "_Tries") -> None:
        """Start actors up to ``size``, away from nodes that are left out or that can do nothing of what waits."""
        for member in [one for one in self._members if one.asked is None and one.place.node in self._left_out]:  # type: ignore[union-attr]
            self._members.remove(member)
            ray.kill(member.actor)
        while len(self._members) < size:
            avoided = self._left_out | self._hopeless(waiting, tries)
            actor = Labeller.options(  # type: ignore[attr-defined]
                num_cpus=self._resources.cpus,
                num_gpus=self._resources.gpus,
                accelerator_type=self._resources.accelerator_type,
                label_selector={NODE_LABEL: f"!in({','.join(sorted(avoided))})"} if avoided else None,
            ).remote(self._job, self._share)
            self._members.append(_Member(actor, actor.place.remote()))

    def _hopeless(self, waiting: Sequence[int], tries: "_Tries") -> set[str]:
        """Nodes that are beaten by the shard that waits longest, if no actor lives elsewhere and one could."""
        beaten = tries.beaten(waiting[0]) if waiting else set()
        elsewhere = any(member.place is None or member.place.node not in beaten for member in self._members)
        return beaten if not elsewhere and self._usable() - beaten else set()

    def _hand_out(self, work: type[Work], shards: Sequence[Any], waiting: deque[int], tries: "_Tries") -> None:
        for member in self._members:
            if member.asked is None and member.place is not None:
                node = member.place.node
                shard = next((shard for shard in waiting if node not in tries.beaten(shard)), None)
                if shard is not None:
                    waiting.remove(shard)
                    member.shard, member.asked = shard, member.actor.do.remote(work, shards[shard])

    def _heard_from(self) -> list[_Member]:
        """Members that have something to say; waits a little for the first."""
        busy = {member.asked: member for member in self._members if member.asked is not None}
        if not busy:
            time.sleep(WAIT_S)
            return []
        ready, _ = ray.wait(list(busy), timeout=WAIT_S)
        return [busy[asked] for asked in ready]

    def _hear(self, member: _Member) -> Outcome | None:
        """What became of a member's shard; nothing if it only said where it lives.

        Raises:
            UserError: the user has to act.
        """
        try:
            answer = ray.get(member.asked)
        except RayError as error:
            lost = member.place is not None and member.place.node not in self._alive()
            return Outcome(fault=LOST if lost else DIED if member.place else one_line(error))
        member.asked = member.shard = None
        if isinstance(answer, Place):
            member.place = answer
            self._stillborn = 0
            return None
        if answer.mistake:
            raise type(answer.mistake)(f"{_from(member)}{answer.mistake}")
        return answer

    def _blame(self, member: _Member, shard: int | None, outcome: Outcome, tries: "_Tries") -> None:
        """End a member that failed, and leave its node out if that happens again and again.

        Raises:
            ClusterError: one actor after the other dies at its start.
            ModelError: the shard has had all its tries.
        """
        self._members.remove(member)
        ray.kill(member.actor)  # what its process still holds could give other rows wrong labels
        if outcome.fault == LOST:
            return
        if member.place is None or shard is None:
            self._stillborn += 1
            if self._stillborn > TRIES * self._most:
                raise ClusterError(f"vLLM workers do not start: {outcome.fault}")
            return
        node = member.place.node
        tries.add(shard, node, 1 if outcome.again else TRIES)
        self._faults[node] += 1
        others = self._usable() - {node}
        if self._faults[node] >= LEFT_OUT_AFTER and others:
            self._left_out.add(node)
            say(f"{member.place.machine} failed {self._faults[node]} times in a row and is left out: {outcome.fault}")
        beaten = tries.beaten(shard)
        if len(beaten) >= MACHINES or not self._usable() - beaten:
            where = f" (on {len(beaten)} machines)" if len(beaten) > 1 else ""
            raise ModelError(f"{_from(member)}{outcome.fault}{where}; the same command resumes")

    def _usable(self) -> set[str]:
        """Nodes that could hold an actor, if they held nothing else, and are not left out."""
        asked = self._resources.per_worker().items()
        fit = {node for node, has in self._alive().items() if all(has.get(name, 0) >= each for name, each in asked)}
        return fit - self._left_out

    @staticmethod
    def _alive() -> dict[str, dict[str, float]]:
        """What each node of the cluster has."""
        return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}

    def _check_time(self, begun: float, last: float) -> None:
        config, now = self._job.config, time.monotonic()
        placed = any(member.place for member in self._members)
        if now - begun > config.placement_timeout and not placed:
            asked, free = self._resources.per_worker(), ray.available_resources()
            wanted = ", ".join(f"{amount * self._resources.workers:g} {name}" for name, amount in asked.items())
            have = ", ".join(f"{free.get(name, 0):g} {name}" for name in asked)
            raise ConfigError(
                f"{self._resources.workers} vLLM workers found no room within {config.placement_timeout:g} s: they ask "
                f"for {wanted}, free are {have}: wait for other jobs, lower --resources.workers or raise "
                "--placement-timeout"
            )
        if now - last > config.progress_timeout and placed:
            raise ClusterError(
                f"nothing was finished for {config.progress_timeout:g} s: machines are lost or a worker hangs; see "
                "that the cluster has what --resources.workers ask for, or raise --progress-timeout; the same command "
                "resumes"
            )


class _Tries:
    """Failures at each shard of a pass, by node."""

    def __init__(self) -> None:
        self._count: Counter[tuple[int, str]] = Counter()
        self._nodes: defaultdict[int, set[str]] = defaultdict(set)

    def add(self, shard: int, node: str, count: int) -> None:
        """Count failures."""
        self._count[shard, node] += count
        if self._count[shard, node] >= TRIES:
            self._nodes[shard].add(node)

    def beaten(self, shard: int) -> set[str]:
        """Nodes that are not to try it again."""
        return self._nodes[shard]


def _from(member: _Member) -> str:
    """The machine's name, if it is not the driver's."""
    here = member.place is None or member.place.machine == os.uname().nodename
    return "" if here else f"on {member.place.machine}: "  # type: ignore[union-attr]
