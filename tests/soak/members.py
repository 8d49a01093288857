"""What the members of a soak do: two owners upload, replace, drop and sign; two analysts compute.

Each lives in sessions: connects, makes a few random calls, compares each result with what pandas or
scikit-learn say, and leaves, sometimes with a job still under way. What an error does to a session is what it
would do to a person: after a lost node they connect again, after any other they go on.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import numpy as np
import pandas as pd
import trio
from sklearn.linear_model import LogisticRegression as Clear
from sklearn.metrics import roc_auc_score

from tercet import Allow
from tercet.client.lake import AsyncLake, Job, open_lake
from tercet.errors import ConsentError, SchemaError, TercetError, TransportError
from tercet.ml import LogisticRegression
from tercet.ml.models import RevealedModel
from tercet.ml.table import Table
from tercet.plans import Plan
from tests.nodes.on_disk import NodesOnDisk
from tests.soak.record import Record, Watch, WrongResultError
from tests.soak.witness import ASKS, Witness
from tests.soak.world import NAMES, OWNERS, World

TIMEOUT_S = 4.0
PATIENCE_S = 20.0
MOST_SESSION_CALLS = 8
OWN_ROWS = "rows of "
"""How names of tables begin that analysts upload."""
FEATURES = ["age", "bmi", "cost", "visits"]


class Turnstile:
    """Lets members into sessions, or holds them up; knows when the last one has left."""

    def __init__(self) -> None:
        self._opened = trio.Event()
        self._inside = 0
        self._empty = trio.Event()

    @property
    def is_open(self) -> bool:
        return self._opened.is_set()

    def open(self) -> None:
        """Let members in."""
        self._opened.set()

    async def close(self) -> None:
        """Let nobody in any more, and wait until all have left."""
        self._opened, self._empty = trio.Event(), trio.Event()
        while self._inside:
            await self._empty.wait()
            self._empty = trio.Event()

    @contextlib.asynccontextmanager
    async def inside(self) -> AsyncIterator[None]:
        """Around a session."""
        while not self._opened.is_set():
            await self._opened.wait()
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._empty.set()


class Member:
    """One member: connects, acts, leaves, again and again, until cancelled."""

    def __init__(
        self,
        name: str,
        turnstile: Turnstile,
        nodes: NodesOnDisk,
        world: World,
        record: Record,
        witness: Witness,
        seed: int,
    ) -> None:
        self.name = name
        self.turnstile = turnstile
        self.nodes = nodes
        self.world = world
        self.record = record
        self.witness = witness
        self.rng = random.Random(f"{seed} {name}")
        self.acts: dict[Callable[[], Awaitable[None]], float] = {}
        """What this member does, and how often."""
        self.lake: AsyncLake
        self.watch: Watch

    async def live(self) -> None:
        """Sessions without end, but for pauses."""
        while True:
            async with self.turnstile.inside():
                self.watch = Watch(self.record, self.name)
                with self.watch.session():
                    await self.session()
            await trio.sleep(self.rng.uniform(0.5, 1.5) if self.watch.lost else 0.05)

    async def session(self) -> None:
        """Connect, make some calls, leave."""
        async with contextlib.AsyncExitStack() as stack:
            key = self.nodes.key(self.name)
            opened = open_lake(self.nodes.cluster, identity=key, timeout_s=TIMEOUT_S, patience_s=PATIENCE_S)
            self.lake = await self.watch.call("connect", stack.enter_async_context(opened))
            self.witness.watch(self.lake, self.name)
            for _ in range(self.rng.randint(1, MOST_SESSION_CALLS)):
                if self.turnstile.is_open:
                    await self.act()

    async def act(self) -> None:
        """One thing of all that this member does. Raises TransportError if the session is over."""
        (chosen,) = self.rng.choices(list(self.acts), list(self.acts.values()))
        try:
            await chosen()
        except TransportError:
            raise
        except TercetError:
            return  # noted by the watch: a table that was dropped, a plan that was refused
        except WrongResultError as error:
            self.watch.refute(chosen.__name__, str(error))

    async def find(self, name: str) -> tuple[Table, pd.DataFrame]:
        """A table of the lake, and what is in it."""
        table = await self.watch.call("find a table", self.lake.table(name))
        return table, self.world.rows_of(name, table.rows)

    # -- sums of a column, in every way of having a plan run -------------------------------------------------

    async def total(self, column: str, name: str, to: str = "analyst") -> Plan:
        """A plan that reveals the sum of a column, under a name of its own, by which it can be compared."""
        table, frame = await self.find(name)
        label = f"sum {self.rng.randrange(2**48):x}"
        builder = self.lake.builder(f"total {column}")
        table.features(builder, [column]).sum().reveal(label, to=to)
        unit = 2.0 ** table.column(column).unit_exponent
        self.world.sums[label] = float(frame[column].sum()) / unit
        return builder.plan()

    def compare_total(self, revealed: dict[str, Any]) -> None:
        """Raise WrongResultError unless each sum is the one that its name stands for."""
        for label, found in revealed.items():
            compare(label, float(found[0]), self.world.sums[label], atol=0.1)


class Owner(Member):
    """Uploads and drops tables, signs plans, looks at its own tables and at what it was sent."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.acts = {
            self.upload: 1.0,
            self.drop: 0.3,
            self.own_sum: 1.0,
            self.receive: 1.0,
            self.decide: 6.0,
            self.list_tables: 0.5,
        }

    async def upload(self) -> None:
        """A new table, or another one under a name that is taken."""
        name = self.rng.choice(NAMES[self.name])
        frame = self.world.new_upload(self.name, name, self.rng)
        allow = Allow(plans="approved" if name.endswith(ASKS) else "any")
        made = self.lake.upload(frame, name=name, key="id", owner=self.name, min_count=3, allow=allow)
        table = await self.watch.call("upload", made)
        if table.rows != len(frame):
            raise WrongResultError(f"{table.rows} rows of {name!r} where {len(frame)} were uploaded")

    async def drop(self) -> None:
        """Forget a table, unless it is the only one."""
        desk = self.lake.desk
        mine = [one for one in await self.watch.call("list tables", desk.entries()) if one.owner == self.name]
        if len(mine) > 1:
            await self.watch.call("drop", desk.forget("table", self.rng.choice(mine).name))

    async def own_sum(self) -> None:
        """A figure of one's own table takes nobody's signature."""
        column = {"hospital": "bmi", "insurer": "cost"}[self.name]
        plan = await self.total(column, self.rng.choice(NAMES[self.name]))
        result = await self.watch.call("sum of one's own", self.lake.run(plan))
        self.compare_total(result.revealed)

    async def receive(self) -> None:
        """Open what others' plans have revealed to this owner."""
        for one in await self.watch.call("receive", self.lake.desk.received()):
            self.compare_total({one.name: one.values})

    async def list_tables(self) -> None:
        """Look what there is."""
        for one in await self.watch.call("list tables", self.lake.desk.entries()):
            if one.kind == "table" and one.owner != OWNERS.get(one.name, one.name.removeprefix(OWN_ROWS)):
                raise WrongResultError(f"{one.owner} has uploaded no table {one.name!r}")

    async def decide(self) -> None:
        """Sign what waits, or now and then refuse it."""
        for waiting in await self.watch.call("list plans", self.lake.desk.plans()):
            if self.name not in waiting.missing:
                continue
            if self.rng.random() < 0.1:
                await self.watch.call("refuse", self.lake.desk.refuse(waiting.number, "not today"))
            else:
                self.witness.signed.add((self.name, waiting.session.hex()))
                await self.watch.call("approve", self.lake.desk.approve(waiting.number))
        await trio.sleep(0.2)


class Analyst(Member):
    """Describes, joins, fits, predicts, evaluates; has jobs run; and tries what it may not."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.acts = {
            self.describe: 2.0,
            self.sum: 2.0,
            self.send: 1.0,
            self.submit: 1.5,
            self.fetch: 1.0,
            self.join: 1.5,
            self.model: 1.0,
            self.reuse: 1.0,
        }

    def any_table(self) -> str:
        """A table that may be there: two in three times one that needs no signature."""
        owner = self.rng.choice(list(NAMES))
        return self.rng.choices(NAMES[owner], [2, 1])[0]

    async def describe(self) -> None:
        """Statistics of a column, as pandas has them."""
        table, frame = await self.find(self.any_table())
        column = self.rng.choice(table.column_names)
        kinds = ["mean", "std", *(["50%"] if self.rng.random() < 0.3 else [])]
        made = table.describe([column], statistics=kinds)
        found = await self.watch.call("describe", made)
        exact = frame[column].astype(float).describe()
        for one in kinds:
            compare(f"{one} of {column}", found[column][one], exact[one], atol=2e-3 * max(1, exact["std"]))

    async def sum(self) -> None:
        """A plan of one's own."""
        name = self.any_table()
        plan = await self.total("age" if "hospital" in name else "cost", name)
        result = await self.watch.call("run a plan", self.lake.run(plan))
        self.compare_total(result.revealed)

    async def send(self) -> None:
        """A figure for somebody else."""
        name = self.any_table()
        to = self.rng.choice(list(NAMES))
        plan = await self.total("age" if "hospital" in name else "cost", name, to)
        result = await self.watch.call("send a result", self.lake.run(plan))
        if result.revealed:
            raise WrongResultError(f"{self.name} was told what was for {to}")

    async def submit(self) -> None:
        """A job, to be fetched some time, perhaps in another session."""
        name = self.any_table()
        plan = await self.total("age" if "hospital" in name else "cost", name)
        await self.watch.call("submit a job", self.lake.submit(plan))

    async def fetch(self) -> None:
        """Look for one's jobs; fetch one, or cancel it."""
        jobs = await self.watch.call("list jobs", self.lake.jobs())
        if any(self.witness.asked[job.session.hex()].member != self.name for job in jobs):
            raise WrongResultError("a job is listed that this member has not submitted")
        if not jobs:
            return
        job: Job = self.rng.choice(jobs)
        if self.rng.random() < 0.2:
            await self.watch.call("cancel a job", job.cancel())
        else:
            result = await self.watch.call("fetch a job", job.result())
            self.compare_total(result.revealed)

    async def _joined(self) -> tuple[Table, pd.DataFrame]:
        first, first_rows = await self.find(self.rng.choices(NAMES["hospital"], [2, 1])[0])
        second, second_rows = await self.find(self.rng.choices(NAMES["insurer"], [2, 1])[0])
        joined = await self.watch.call("join", first.join(second, on="id"))
        exact = first_rows.merge(second_rows, on="id")
        if joined.rows != len(exact):
            raise WrongResultError(f"{joined.rows} rows where pandas has {len(exact)}")
        return joined, exact

    async def join(self) -> None:
        """Join two owners' tables; look at single rows, which is forbidden; describe."""
        joined, exact = await self._joined()
        with contextlib.suppress(ConsentError, SchemaError):
            await joined.reveal("age")
            raise WrongResultError("single rows were revealed, which no owner allows")
        made = joined.describe(["cost"], statistics=["mean"])
        found = await self.watch.call("describe a join", made)
        compare("mean of cost", found["cost"]["mean"], exact["cost"].mean(), atol=0.5)

    async def model(self) -> None:
        """Fit, reveal, evaluate and keep a model."""
        joined, exact = await self._joined()
        made = LogisticRegression(C=1.0).fit(joined, target="sick", features=FEATURES)
        fitted = await self.watch.call("fit", made)
        found = await self.watch.call("reveal a model", fitted.reveal())
        clear = await trio.to_thread.run_sync(_fit, exact)
        spread = exact[FEATURES].std().to_numpy()
        for name, one, other in zip(FEATURES, found.coef_[0] * spread, clear.coef_[0] * spread, strict=True):
            compare(f"coefficient of {name}", one, other, atol=0.02)
        if self.rng.random() < 0.5:
            evaluation = await self.watch.call("evaluate", fitted.evaluate(joined, metrics=["roc_auc"]))
            auc = (await self.watch.call("reveal a metric", evaluation.reveal())).roc_auc
            compare("AUC", auc, roc_auc_score(exact["sick"], _scores(found, exact)), atol=0.01)
        name = f"risk-{self.name}"
        # From now on either may be found, until it is known that the new one was kept.
        self.world.models.setdefault(name, []).append(found)
        await self.watch.call("keep a model", fitted.save(name))
        self.world.models[name] = [found]

    async def reuse(self) -> None:
        """Predict for rows of one's own, with a model that was kept."""
        name = f"risk-{self.name}"
        if name not in self.world.models:
            return
        known = list(self.world.models[name])
        model = await self.watch.call("find a model", self.lake.model(name))
        rng = np.random.default_rng(self.rng.randrange(2**32))
        spread = [(50, 15), (27, 4), (200, 100), (3, 1)]
        rows = {one: rng.normal(*of, 20) for one, of in zip(FEATURES, spread, strict=True)}
        frame = pd.DataFrame({"id": np.arange(20), **rows})
        made = self.lake.upload(frame, name=OWN_ROWS + self.name, key="id", owner=self.name)
        table = await self.watch.call("upload one's own", made)
        secret = await self.watch.call("predict", model.predict_proba(table))
        found = await self.watch.call("reveal predictions", secret.reveal())
        await self.watch.call("drop", self.lake.desk.forget("table", OWN_ROWS + self.name))
        exact = [1 / (1 + np.exp(-_scores(one, frame))) for one in known]
        if not any(np.allclose(found, one, atol=2e-3) for one in exact):
            raise WrongResultError(f"model {name!r} predicts {found[:3]}, {exact[-1][:3]} in the clear")


def compare(what: str, found: float, exact: float, *, atol: float) -> None:
    """Raise WrongResultError unless two numbers are close."""
    if not np.isclose(found, exact, rtol=1e-3, atol=atol):
        raise WrongResultError(f"{what} is {found}, and {exact} in the clear")


def _fit(frame: pd.DataFrame) -> Clear:
    return Clear(C=1.0, solver="newton-cholesky", tol=1e-8).fit(frame[FEATURES].to_numpy(), frame["sick"])


def _scores(model: RevealedModel, frame: pd.DataFrame) -> np.ndarray:
    columns = list(model.feature_names_in_)
    return frame[columns].to_numpy() @ model.coef_[0] + model.intercept_[0]
