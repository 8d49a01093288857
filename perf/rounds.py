"""`rounds`: what a round takes of a party's processor, where tables are small and rounds are all that counts.

Four figures. Over TLS between processes: a round of a default fit; a round of a plan that does nothing but
one product after another, of one column; and an empty round, one small frame each way over a bare link, which
is what the network alone takes. And a round of the same fit without a network: what one party computed is
recorded and computed again, alone.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import trio

import tercet
from perf import tables
from perf.everyday import processor_seconds
from perf.lakes import Conditions, open_lake
from perf.report import Measured, median
from perf.transports import far_process, there_and_back
from tercet.actors.replay import replay
from tercet.actors.transcript import recording
from tercet.ml import LogisticRegression

PRODUCTS = 200
EXCHANGES = 2000
MICRO = 1e6


async def run(rows: int, features: int, repeat: int) -> Measured:
    """Microseconds of processor time a round and party: medians of `repeat` runs, one more to warm up."""
    conditions = Conditions(tls=True, repeat=repeat)
    async with open_lake(conditions) as lake:
        uploaded = await tables.upload(lake, tables.learnable(rows, features), "owner")

        async def fit() -> Any:
            fitted: Any = LogisticRegression().fit(uploaded.table, target=tables.TARGET)
            return await fitted

        async def multiply() -> Any:
            return await lake.run(_products(lake, uploaded.table))

        of_fit, fit_rounds, seconds = await _cost(lake, fit, repeat)
        of_product, product_rounds, _ = await _cost(lake, multiply, repeat)
    alone = await _alone(rows, features, repeat)
    empty = await _empty()
    return Measured(
        name="rounds",
        seconds=seconds,
        rounds=fit_rounds,
        more={
            "rows": rows,
            "features": features,
            **conditions.describe(),
            "cpu_us_a_round_of_a_fit": MICRO * of_fit,
            "cpu_us_a_round_of_a_fit_alone": MICRO * alone,
            "cpu_us_a_round_of_one_product": MICRO * of_product,
            "rounds_of_products": product_rounds,
            "cpu_us_an_empty_round": MICRO * empty,
            "fit_over_empty": of_fit / empty,
        },
    )


def _products(lake: tercet.AsyncLake, table: Any) -> Any:
    """A plan of one product of bits after another."""
    builder = lake.builder("products")
    (value,) = table.raw(builder, [tables.TARGET])
    for _ in range(PRODUCTS):
        value = (value * value).bounded(1.0, "a product of bits")
    value.sum().reveal("ones", to="analyst", kind="count")
    return builder.plan()


async def _cost(
    lake: tercet.AsyncLake, work: Callable[[], Awaitable[Any]], repeat: int
) -> tuple[float, int, float]:
    """Processor seconds a round and party, rounds, and seconds that the caller waited."""
    costs, waited, rounds = [], [], 0
    for number in range(repeat + 1):
        mark = len(lake.phases)
        before = [processor_seconds(pid) for pid in lake.cluster.pids]
        began = time.perf_counter()
        await work()
        seconds = time.perf_counter() - began
        used = sum(map(processor_seconds, lake.cluster.pids)) - sum(before)
        rounds = sum(phase.rounds for phase in lake.phases[mark:])
        if number:
            waited.append(seconds)
            costs.append(used / len(before) / rounds)
    return median(costs), rounds, median(waited)


async def _alone(rows: int, features: int, repeat: int) -> float:
    """Processor seconds a round of what a party computes in a fit, without links."""
    with recording([0]) as tapes:
        async with tercet.open_local() as lake:
            uploaded = await tables.upload(lake, tables.learnable(rows, features), "owner")
            fitted: Any = LogisticRegression().fit(uploaded.table, target=tables.TARGET)
            await fitted
    costs = []
    for _ in range(repeat + 1):
        runs = [await replay(tape) for tape in tapes]
        rounds = sum(run.outcome.statistics.rounds for run in runs)
        costs.append(sum(run.processor_seconds for run in runs) / rounds)
    return median(costs[1:])


async def _empty() -> float:
    """Processor seconds that one end takes to send a small frame and to receive one."""
    async with trio.open_nursery() as nursery:
        async with far_process("tls", nursery) as link:
            await there_and_back(link, EXCHANGES // 10)
            began = time.process_time()
            await there_and_back(link, EXCHANGES)
            used = time.process_time() - began
        nursery.cancel_scope.cancel()
    return used / EXCHANGES
