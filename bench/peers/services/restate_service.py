"""The service of the Restate peer, served by hypercorn from an environment of its own.

Every handler answers when its first leaf began, in Unix seconds.
"""

import time

import restate
from restate import Context, Service

bench = Service("Bench")


@bench.handler()
async def leaf(ctx: Context, index: int) -> float:
    return time.time()


@bench.handler()
async def fan(ctx: Context, size: int) -> float:
    calls = [ctx.service_call(leaf, arg=index) for index in range(size)]
    await restate.gather(*calls)
    return min([await call for call in calls])


@bench.handler()
async def chain(ctx: Context, size: int) -> float:
    return min([await ctx.service_call(leaf, arg=index) for index in range(size)])


def step() -> float:
    return time.time()


@bench.handler()
async def steps(ctx: Context, size: int) -> float:
    runs = [ctx.run_typed(f"step {index}", step) for index in range(size)]
    await restate.gather(*runs)
    return min([await run for run in runs])


@bench.handler()
async def steps_in_a_row(ctx: Context, size: int) -> float:
    return min([await ctx.run_typed(f"step {index}", step) for index in range(size)])


app = restate.app(services=[bench])
